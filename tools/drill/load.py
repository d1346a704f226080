"""Mints from several connections, as fast as the verifiers can keep up with."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence

from tools.drill.desk import Desk
from tools.drill.ledger import Ledger, Token
from tools.support.wire import request_bytes

CONNECTIONS = 8
_TICK = 0.05  # seconds
_TICKS_A_STEP = 20
_FASTER, _SLOWER = 1.1, 0.75  # a step: most checks of a token come seconds later, so nothing is hurried
_IN_TIME, _TOO_LATE = 0.15, 0.35  # seconds that a check may wait
_LEAST_RATE = 20.0  # tokens a second
_MOST_LOSSES = 100
_ANSWER_SECONDS = 15


class Load:
    """Mints tokens and hands each to every desk.

    Args:
        port: the service's.
        desks: who checks the tokens.
        ledger: where they are counted.
        rate: tokens a second to begin with; it grows until the checks begin to wait.
    """

    def __init__(self, port: int, desks: Sequence[Desk], ledger: Ledger, rate: float) -> None:
        self._port = port
        self._desks = desks
        self._ledger = ledger
        self._rate = rate
        self._turns = asyncio.Semaphore(0)
        self._stopping = False
        self._asked = 0

    def stop(self) -> None:
        """Mint no more; :meth:`run` ends when the last answers have come."""
        self._stopping = True

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._give_turns())
            for _ in range(CONNECTIONS):
                group.create_task(self._mint_in_turns())

    async def _give_turns(self) -> None:
        owed = 0.0
        while not self._stopping:
            lateness = 0.0
            for _ in range(_TICKS_A_STEP):
                await asyncio.sleep(_TICK)
                owed += self._rate * _TICK
                while owed >= 1:
                    self._turns.release()
                    owed -= 1
                lateness = max(lateness, *(desk.lateness() for desk in self._desks))
            if lateness > _TOO_LATE:
                self._rate = max(self._rate * _SLOWER, _LEAST_RATE)
            elif lateness < _IN_TIME:
                self._rate *= _FASTER
        for _ in range(CONNECTIONS):
            self._turns.release()

    async def _mint_in_turns(self) -> None:
        """Mint on one connection, and on another when that breaks: each break is a loss."""
        while not self._stopping:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                try:
                    await self._mint_on(reader, writer)
                finally:
                    writer.close()
            except (OSError, EOFError, TimeoutError, ValueError) as error:
                self._lose(f"{type(error).__name__}: {error}")

    async def _mint_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await self._turns.acquire()
            if self._stopping:
                return
            self._asked += 1
            writer.write(_request(self._asked))
            async with asyncio.timeout(_ANSWER_SECONDS):
                status, body = await _read_answer(reader)
            if status != 200:
                self._lose(f"{status}: {body.decode(errors='replace')}")
                continue
            token = Token.parse(json.loads(body)["token"], time.time())
            self._ledger.minted[token.kid] += 1
            for desk in self._desks:
                desk.accept(token)

    def _lose(self, why: str) -> None:
        self._ledger.losses.append(why)
        assert len(self._ledger.losses) < _MOST_LOSSES, self._ledger.losses[-5:]


def _request(number: int) -> bytes:
    body = b'{"sender":"agent://drill/%d"}' % number  # RS256 signs the same claims into the same token
    headers = [
        ("Host", "localhost"),
        ("Content-Type", "application/json"),
        ("Content-Length", str(len(body))),
    ]
    return request_bytes("POST", "/tokens", headers, body)


async def _read_answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    status_line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines if line)
    return int(status_line.split()[1]), await reader.readexactly(int(headers["content-length"]))


async def until(condition: Callable[[], bool], *, within: float, what: str) -> None:
    """Wait until ``condition`` holds; fails after ``within`` seconds."""
    try:
        async with asyncio.timeout(within):
            while not condition():  # noqa: ASYNC110 - the condition is made of what many tasks count
                await asyncio.sleep(_TICK)
    except TimeoutError:
        raise AssertionError(f"not within {within} s: {what}") from None
