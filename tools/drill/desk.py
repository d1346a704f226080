"""Hands every token to one verifier again and again, each time when it is due."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import subprocess
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from tools.drill.judges.protocol import Verdict
from tools.drill.ledger import Ledger, Tally, Token
from tools.support.repository import ROOT

_AT_ONCE = 64
_PAUSE = 0.02  # seconds between two checks of an empty queue
_LONGEST_LINE = 16 * 1024 * 1024
_VERDICTS = msgspec.json.Decoder(list[Verdict])


class Judge(msgspec.Struct, frozen=True):
    """How to start a verifier's process."""

    name: str
    command: Sequence[str]
    directory: Path = ROOT


class Desk:
    """The queue in front of one verifier."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path, ledger: Ledger) -> None:
        self.name = name
        self._log = log
        self._process = process
        self._ledger = ledger
        self._queue: list[tuple[float, int, int, Token]] = []
        self._order = itertools.count()
        self._closed = False
        ledger.tallies[name] = Tally()

    def accept(self, token: Token) -> None:
        """Take a token in, for all of its checks."""
        for number, due in enumerate(token.checks_due):
            heapq.heappush(self._queue, (due, next(self._order), number, token))

    def lateness(self) -> float:
        """How long the next check has been due, in seconds; negative before it is."""
        return time.time() - self._queue[0][0] if self._queue else 0.0

    def close(self) -> None:
        """Take no more tokens; :meth:`run` ends with the last check."""
        self._closed = True

    async def run(self) -> None:
        """Have the tokens checked until the desk is closed and its queue is empty."""
        while self._queue or not self._closed:
            if self.lateness() < 0 or not self._queue:
                await asyncio.sleep(_PAUSE)
                continue
            now = time.time()
            batch: list[tuple[int, Token]] = []
            while self._queue and self._queue[0][0] <= now and len(batch) < _AT_ONCE:
                _, _, number, token = heapq.heappop(self._queue)
                batch.append((number, token))
            verdicts = await self._ask([token.text for _, token in batch])
            for (number, token), (at, reason) in zip(batch, verdicts, strict=True):
                self._ledger.record(self.name, token, number, at, reason)

    async def _ask(self, tokens: list[str]) -> list[Verdict]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(msgspec.json.encode(tokens) + b"\n")
        line = await self._process.stdout.readline()
        assert line, f"{self.name} ended, with {await self._process.wait()}:\n{self._log.read_text()}"
        return _VERDICTS.decode(line)


@asynccontextmanager
async def open_desk(judge: Judge, ledger: Ledger, logs: Path) -> AsyncIterator[Desk]:
    """Start the verifier; it is gone afterwards, whatever happened."""
    log_path = logs / f"judge-{judge.name}.log"
    with log_path.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *judge.command,
            cwd=judge.directory,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            limit=_LONGEST_LINE,
            start_new_session=True,  # Ctrl-C is for the drill, which then ends it
        )
    try:
        yield Desk(judge.name, process, log_path, ledger)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
