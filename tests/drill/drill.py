"""Runs a drill: the service, its verifiers, the load, and the changes of its keys meanwhile.

The revocation takes out the key that was replaced last, right after the newest key has begun to sign. So
whoever rejects a token of another key is wrong. Had the signing key been taken out, the next one would
sign at once, even inside its lead, and verifiers that have not fetched it yet would be right to reject
its tokens for as long as the publish lead promises.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

from msgspec import Struct

from macp_auth.domain.keys import Algorithm
from tests.drill.desk import Desk, Judge, open_desk
from tests.drill.keys_file import KeysFile
from tests.drill.ledger import Ledger
from tests.drill.load import Load, until
from tests.drill.report import Report
from tests.drill.scenario import Scenario
from tests.drill.verifiers import VERIFIERS, VerifierMissing
from tests.support.service import Service

_SLACK = 30  # seconds on top of what a step should take, for a busy machine
_RSA_EVERY = 5  # the second of five keys: migrating from one algorithm to another, and back


class Size(Struct, frozen=True, kw_only=True):
    """How much is to be done, and how long it may take."""

    tokens: int
    """At least."""
    rotations: int
    """At least; more while tokens are missing."""
    spacing: float | None = None
    """Seconds between two rotations; None for each when the key before it has begun to sign."""
    revoke: bool = True
    linger: float = 3
    """Seconds that it mints on after the last change."""
    rate: float = 200
    """Tokens a second to begin with."""
    seconds: float
    """The longest that it may take once all runs; more fails."""


class Drill:
    """One run. Use :func:`run_drill`."""

    def __init__(self, size: Size, scenario: Scenario, keys_file: KeysFile, first_kid: str) -> None:
        self._size = size
        self._scenario = scenario
        self._keys_file = keys_file
        self.ledger = Ledger()
        self.algorithms = {first_kid: "ES256"}

    async def run(self, service: Service, judges: Sequence[Judge], logs: Path) -> float:
        """Run to the end; how many seconds it minted."""
        async with asyncio.timeout(self._size.seconds), AsyncExitStack() as stack:
            desks = [await stack.enter_async_context(open_desk(judge, self.ledger, logs)) for judge in judges]
            load = Load(service.port, desks, self.ledger, self._size.rate)
            begun = time.monotonic()
            async with asyncio.TaskGroup() as group:
                checking = [group.create_task(desk.run()) for desk in desks]
                minting = group.create_task(load.run())
                await self._change_keys(desks)
                load.stop()
                await minting
                seconds = time.monotonic() - begun
                for desk in desks:
                    desk.close()
                await asyncio.wait(checking)
            return seconds

    async def _change_keys(self, desks: Sequence[Desk]) -> None:
        tallies = self.ledger.tallies
        await until(
            lambda: all(tallies[desk.name].checks for desk in desks),
            within=_SLACK,
            what="every verifier has the first keys",
        )
        made = 0
        while made < self._size.rotations or self.ledger.tokens < self._size.tokens:
            newest = self._rotate()
            made += 1
            if self._size.spacing is not None and made < self._size.rotations:
                await asyncio.sleep(self._size.spacing)
            else:
                await self._signs(newest)
            if self._size.revoke and made == self._size.rotations:
                self._revoke(list(self.algorithms)[-2])
        await asyncio.sleep(self._size.linger)

    def _rotate(self) -> str:
        number = len(self.algorithms)
        algorithm = Algorithm.RS256 if number % _RSA_EVERY == 1 else Algorithm.ES256
        kid = self._keys_file.rotate(algorithm)
        self.algorithms[kid] = algorithm.value
        return kid

    async def _signs(self, kid: str) -> None:
        await until(
            lambda: self.ledger.minted[kid] > 0,
            within=self._scenario.lead + _SLACK,
            what="the newest key signs",
        )

    def _revoke(self, kid: str) -> None:
        self.ledger.revoked[kid] = time.time()
        self._keys_file.revoke(kid)


def run_drill(
    size: Size,
    scenario: Scenario,
    directory: Path,
    *,
    verifiers: Sequence[str] = tuple(VERIFIERS),
    say: Callable[[str], None] = lambda _: None,
) -> Report:
    """Run a drill with these verifiers and return what it found. All that it starts is gone afterwards."""
    keys_file = KeysFile(directory / "keys.json", scenario.lead, scenario.lag)
    first = keys_file.start(Algorithm.ES256)
    drill = Drill(size, scenario, keys_file, first)
    with ExitStack() as stack:
        service = stack.enter_context(Service(directory, scenario.environment(keys_file.path)))
        judges: list[Judge] = []
        missing: dict[str, str] = {}
        for name in verifiers:
            try:
                judges.append(stack.enter_context(VERIFIERS[name](service, scenario, directory)))
            except VerifierMissing as error:
                missing[name] = str(error)
        say(f"verifiers: {', '.join(judge.name for judge in judges)}")
        seconds = asyncio.run(drill.run(service, judges, directory))
        errors = [
            str(event) for event in service.events if event.get("level") in {"error", "critical", "exception"}
        ]
    return Report(
        ledger=drill.ledger,
        seconds=seconds,
        algorithms=drill.algorithms,
        lead=scenario.lead,
        lag=scenario.lag,
        revocation_bound=scenario.revocation_bound,
        service_errors=errors,
        missing=missing,
    )
