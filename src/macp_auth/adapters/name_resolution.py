"""Resolves host names for aiohttp.

Without name servers that answer, the C library waits for up to a minute. uvloop resolves in threads of libuv,
which the process waits for when it exits.
"""

from __future__ import annotations

import socket
from functools import lru_cache, partial

from aiohttp.abc import AbstractResolver, ResolveResult

from macp_auth.adapters.blocking_call import BlockingCall

RESOLVE_SECONDS = 10.0
"""Longer than any request may take: the request's own timeout decides."""
_NUMERIC = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV


class DaemonResolver(AbstractResolver):
    """Resolves names in daemon threads, one for each name."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the addresses of ``host``.

        Raises:
            OSError: it can't be resolved, or not in time.
        """
        return await _resolution(host, port, family).result_async(RESOLVE_SECONDS)

    async def close(self) -> None:
        """Do nothing: threads that hang are left behind."""


@lru_cache(64)  # more than there are names; while one hangs, its next caller joins the same thread
def _resolution(host: str, port: int, family: socket.AddressFamily) -> BlockingCall[list[ResolveResult]]:
    return BlockingCall(partial(_resolve, host, port, family), "name-resolution")


def _resolve(host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, family=family, flags=socket.AI_ADDRCONFIG)
    return [
        ResolveResult(
            hostname=host,
            host=socket.getnameinfo(address, _NUMERIC)[0],  # with the zone of a link-local address
            port=port,
            family=family_found,
            proto=protocol,
            flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
        )
        for family_found, _, protocol, _, address in found
    ]
