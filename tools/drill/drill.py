"""Runs a drill: the service, its verifiers, the load, and the changes of its keys meanwhile.

The revocation takes out the key that was replaced last, right after the newest key has begun to sign. So
a verifier that rejects a token of another key is wrong.

In an emergency the signing key itself is taken out. The next one then signs at once, inside its lead, and
verifiers that have not fetched it yet reject its tokens. These rejections are counted apart, and are wrong
once the bound has passed within which every verifier that can fetch must have done so.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

from msgspec import Struct

from macp_auth.domain.keys import Algorithm
from tools.drill.desk import Desk, Judge, open_desk
from tools.drill.keys_file import KeysFile
from tools.drill.ledger import Ledger
from tools.drill.load import Load, until
from tools.drill.report import Report
from tools.drill.scenario import Scenario
from tools.drill.verifiers import VERIFIERS
from tools.support.programs import ProgramMissing
from tools.support.service import Service

_SLACK = 30  # seconds on top of what a step should take, for a busy machine
_ERROR = re.compile(r'"level":"(error|critical)"')
_RSA_EVERY = 5  # the second of five keys: migrating from one algorithm to another, and back


class Size(Struct, frozen=True, kw_only=True):
    """How much is to be done, and how long it may take."""

    tokens: int
    """At least."""
    rotations: int
    """At least; more while tokens are missing."""
    revoke: bool = True
    """Take the key out that was replaced last, after the last of these rotations."""
    emergency: bool = False
    """In the end, add a key and take the signing one out at once."""
    linger: float = 3
    """Seconds that it mints on after the last change."""
    rate: float = 200
    """Tokens a second to begin with."""
    seconds: float
    """The longest that it may take once all runs; more fails."""


class Drill:
    """One run. Use :func:`run_drill`."""

    def __init__(
        self,
        size: Size,
        scenario: Scenario,
        keys_file: KeysFile,
        say: Callable[[str], None],
    ) -> None:
        self._size = size
        self._scenario = scenario
        self._keys_file = keys_file
        self._say = say
        self.ledger = Ledger()
        self.algorithms: dict[str, str] = {}

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
            await self._signs(await self.rotate())
            made += 1
            if self._size.revoke and made == self._size.rotations:
                await self._revoke(list(self.algorithms)[-2])
        if self._size.emergency:
            next_to_sign = await self.rotate()
            self.ledger.trusted_from[next_to_sign] = self._keys_file.changed + self._scenario.fetch_bound
            await self._revoke(list(self.algorithms)[-2])
            await self._signs(next_to_sign)
        await asyncio.sleep(self._size.linger)

    async def rotate(self) -> str:
        """Add a key; its kid."""
        number = len(self.algorithms)
        algorithm = Algorithm.RS256 if number % _RSA_EVERY == 1 else Algorithm.ES256
        kid = await self._keys_file.rotate(algorithm)
        self.algorithms[kid] = algorithm.value
        self._say(f"{self.ledger.tokens} tokens; new key {kid[:8]} {algorithm}")
        return kid

    async def _signs(self, kid: str) -> None:
        await until(
            lambda: self.ledger.minted[kid] > 0,
            within=self._scenario.lead + _SLACK,
            what="the newest key signs",
        )

    async def _revoke(self, kid: str) -> None:
        self.ledger.hold(kid)
        await self._keys_file.revoke(kid)
        self.ledger.revoke(kid, self._keys_file.changed)
        self._say(f"{self.ledger.tokens} tokens; revoked {kid[:8]}")


def run_drill(
    size: Size,
    scenario: Scenario,
    directory: Path,
    *,
    verifiers: Sequence[str] = tuple(VERIFIERS),
    say: Callable[[str], None] = lambda _: None,
) -> Report:
    """Run a drill with these verifiers and return what it found. All that it starts is gone afterwards."""
    path = directory / "keys.json"
    settings = scenario.environment(path)
    drill = Drill(size, scenario, KeysFile(path, settings), say)
    asyncio.run(drill.rotate())
    with ExitStack() as stack:
        service = stack.enter_context(Service(directory, settings))
        judges: list[Judge] = []
        missing: dict[str, str] = {}
        for name in verifiers:
            try:
                judges.append(stack.enter_context(VERIFIERS[name](service, scenario, directory)))
            except ProgramMissing as error:
                missing[name] = str(error)
        say(f"verifiers: {', '.join(judge.name for judge in judges)}")
        seconds = asyncio.run(drill.run(service, judges, directory))
        errors = [line for line in service.log.splitlines() if _ERROR.search(line)]
    return Report(
        ledger=drill.ledger,
        seconds=seconds,
        algorithms=drill.algorithms,
        max_ttl=scenario.max_ttl,
        lead=scenario.lead,
        lag=scenario.lag,
        fetch_bound=scenario.fetch_bound,
        service_errors=errors,
        missing=missing,
    )
