"""Plays raw clients against a service on a real socket, and says what went wrong."""

from __future__ import annotations

import asyncio
import json
import random
import re
import socket
import struct
from collections import Counter
from collections.abc import Sequence

from msgspec import Struct

from tools.fuzz.raw_requests import PATH, Script, script
from tools.support.processes import Ending

AT_ONCE = 24
ANSWER_SECONDS = 30.0
"""A client that has ended its side hears the end of the service's in far less, or the service hangs."""
_RESET = struct.pack("ii", 1, 0)


class Outcome(Struct):
    """What a number of connections came to."""

    statuses: Counter[int]
    faults: list[str]
    """What should not be: a hang, a 5xx, an answer that is cut or is no JSON."""


def fuzz(port: int, seed: int, connections: int, path: bytes = PATH) -> Outcome:
    """Play ``connections`` clients, the same for the same seed, of which most ask for ``path``."""
    return asyncio.run(_fuzz(port, seed, connections, path))


async def _fuzz(port: int, seed: int, connections: int, path: bytes) -> Outcome:
    outcome = Outcome(Counter(), [])
    numbers = iter(range(connections))

    async def play_on() -> None:
        for number in numbers:
            played = script(random.Random(f"{seed}-{number}"), path)  # noqa: S311 - to be had again
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    received = await _play(port, played)
            except TimeoutError:
                outcome.faults.append(f"connection {number}: it hangs after {_shown(played.parts)}")
                continue
            _judge(outcome, number, played, received)

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(play_on())
    return outcome


async def _play(port: int, played: Script) -> bytes:
    """What the service said; empty if the client did not stay to hear it."""
    received = bytearray()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for part in played.parts:
            writer.write(part)
            await asyncio.sleep(0)  # another write, and most often another read of the service
        if played.ending == "half-close":
            writer.write_eof()
            while data := await reader.read(65536):
                received += data
        elif played.ending == "reset":
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()
    except OSError:
        pass  # refused and closed before all was sent; what came before counts
    finally:
        writer.close()
    return bytes(received)


def _judge(outcome: Outcome, number: int, played: Script, received: bytes) -> None:
    # An interim answer, and answers without a body, would hide where the next begins.
    plain = received.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"")
    statuses = [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", plain)]
    outcome.statuses.update(statuses)
    if [status for status in statuses if status >= 500]:
        outcome.faults.append(f"connection {number}: {statuses} after {_shown(played.parts)}")
    if b"HEAD " in b"".join(played.parts):
        return
    try:
        for answer in Ending(plain, clean=True, at=0).answers():
            if answer.body and answer.headers["content-type"] == "application/json":
                json.loads(answer.body)
    except (AssertionError, ValueError) as error:
        outcome.faults.append(f"connection {number}: {error} after {_shown(played.parts)}")


def _shown(parts: Sequence[bytes]) -> str:
    return " | ".join(repr(part if len(part) < 400 else part[:400] + b"...") for part in parts)


def tracebacks(log: str) -> int:
    """How many tracebacks, and other errors, a service's log has."""
    return log.count("Traceback") + log.count('"level":"error"') + log.count('"level":"critical"')
