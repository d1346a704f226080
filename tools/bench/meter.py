"""What a load costs the server that bears it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from msgspec import Struct

from tools.bench import load
from tools.bench.load import Load, LoadFailed
from tools.bench.service import MINT_REQUEST, Server

WARM_UP_SECONDS = 1


class Reading(Struct, frozen=True):
    """A load, and the server's CPU time for each of its requests."""

    load: Load
    cpu_us: float


def meter(server: Server, drive: Callable[[], Load]) -> Reading:
    """Put the load on the server.

    Raises:
        ServerFailed: it ended under the load.
        LoadFailed: it gave no answer.
    """
    before = server.cpu_seconds()
    try:
        borne = drive()
    except LoadFailed:
        server.check_running()  # that it ended says more
        raise
    server.check_running()
    return Reading(borne, (server.cpu_seconds() - before) * 1e6 / borne.requests)


def meter_minting(server: Server, *, seconds: int, connections: int, request: str = MINT_REQUEST) -> Reading:
    """Ask for tokens, after some to warm up: the first ones are slower, and count for nothing."""
    drive = partial(load.mint, server.port, connections=connections, request=request)
    meter(server, partial(drive, seconds=WARM_UP_SECONDS))
    return meter(server, partial(drive, seconds=seconds))
