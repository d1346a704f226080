"""Clients that keep their connections and mint on them, each at its pace, in a thread of their own."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Self

import jwt
from msgspec import Struct

from tools.support.processes import mint_bytes
from tools.support.service import wait_until

ANSWER_SECONDS = 15
_MINT = mint_bytes()


class Attempt(Struct, frozen=True):
    """One request for a token."""

    began: float
    """By the monotonic clock."""
    seconds: float
    client_port: int
    """Of the connection; 0 if there was none."""
    failure: str
    """What went wrong; empty if a token came that verifies."""


class Clients:
    """Mint until stopped. Use as a context manager.

    Args:
        port: of the service, or of what stands in front of it.
        jwks: what every token must verify with.
        count: how many clients, each with a connection.
        pause: seconds from an answer to the client's next request.
        requests_a_connection: after so many every second client reconnects; 0 for never.
    """

    def __init__(
        self,
        port: int,
        jwks: Mapping[str, Any],
        *,
        count: int = 16,
        pause: float = 0.0,
        requests_a_connection: int = 0,
    ) -> None:
        self._port = port
        self._verify = verifier(jwks)
        self._count = count
        self.pause = pause
        self._requests_a_connection = requests_a_connection
        self._stopping = False
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self.attempts: list[Attempt] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        self._thread.join()

    @property
    def failed(self) -> list[Attempt]:
        return [attempt for attempt in list(self.attempts) if attempt.failure]

    def since(self, moment: float) -> list[Attempt]:
        """The attempts that began after ``moment``."""
        return [attempt for attempt in list(self.attempts) if attempt.began >= moment]

    def wait_for(self, attempts: int, *, within: float = 30) -> None:
        """Wait until so many more have ended."""
        enough = len(self.attempts) + attempts
        wait_until(lambda: len(self.attempts) >= enough, within=within, what=f"{attempts} attempts")

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(self._count):
                group.create_task(self._mint_until_stopped(self._requests_a_connection * (number % 2)))

    async def _mint_until_stopped(self, requests_a_connection: int) -> None:
        while not self._stopping:
            began = time.monotonic()
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            except OSError as error:
                self.attempts.append(Attempt(began, time.monotonic() - began, 0, repr(error)))
                await asyncio.sleep(0.05)
                continue
            try:
                await self._mint_on(reader, writer, requests_a_connection)
            finally:
                writer.close()

    async def _mint_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, most_requests: int
    ) -> None:
        client_port = writer.get_extra_info("sockname")[1]
        asked = 0
        # As HTTP clients do, check first whether the other side has closed the connection meanwhile.
        while not (self._stopping or reader.at_eof() or writer.is_closing()):
            asked += 1
            last = asked == most_requests
            began = time.monotonic()
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    status, close, body = await _ask(reader, writer)
            except (OSError, EOFError, TimeoutError) as error:
                self.attempts.append(Attempt(began, time.monotonic() - began, client_port, repr(error)))
                return
            seconds = time.monotonic() - began
            failure = self._fault(body) if status == 200 else f"{status}: {body.decode(errors='replace')}"
            self.attempts.append(Attempt(began, seconds, client_port, failure))
            if last or close:
                return
            await asyncio.sleep(self.pause)

    def _fault(self, body: bytes) -> str:
        try:
            self._verify(json.loads(body)["token"])
        except (ValueError, KeyError, jwt.PyJWTError) as error:
            return repr(error)
        return ""


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[int, bool, bytes]:
    """Status, whether the connection ends here, and body."""
    writer.write(_MINT)
    status_line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines if line)
    body = await reader.readexactly(int(headers["content-length"]))
    return int(status_line.split()[1]), headers.get("connection") == "close", body


def verifier(jwks: Mapping[str, Any]) -> Callable[[str], object]:
    """PyJWT with these keys, which are read once."""
    keys = jwt.PyJWKSet.from_dict(dict(jwks))

    def verify(token: str) -> object:
        key = keys[jwt.get_unverified_header(token)["kid"]]
        return jwt.decode(
            token,
            key,
            algorithms=[key.algorithm_name],
            issuer="macp-auth-service",
            audience="macp-runtime",
            options={"require": ["exp", "iat"]},
        )

    return verify


def p99(attempts: list[Attempt]) -> float:
    """The time in seconds that 99 of 100 stay below."""
    ordered = sorted(attempt.seconds for attempt in attempts)
    return ordered[len(ordered) * 99 // 100]
