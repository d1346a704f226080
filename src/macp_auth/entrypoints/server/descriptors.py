"""The limit of file descriptors, and the number of connections that it allows."""

from __future__ import annotations

import resource

from macp_auth.domain.errors import ConfigurationError
from macp_auth.entrypoints.server.connections import MAX_CONNECTIONS

METRICS_CONNECTIONS = 32
"""Bound on connections to the metrics port, which may be in the same process."""
RESERVED = 64 + METRICS_CONNECTIONS
"""For files, pipes, connections to a signer's backend, and descriptors that are being closed. A service
with TLS, metrics and an audit log has 21 open."""
_VARIABLE = "MACP_AUTH_MAX_CONNECTIONS"


def raise_limit() -> None:
    """Raise the soft limit to the hard one, for this process and its workers.

    The soft limit is low for programs that call select(2), which this one does not.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):  # connection_bound checks the limit
        return


def connection_bound(wanted: int | None, listeners: int) -> int:
    """Return how many connections each listener of a worker may have open.

    Args:
        wanted: the setting; None for as many as the limit allows, up to :data:`MAX_CONNECTIONS`.
        listeners: how many there are.

    Raises:
        ConfigurationError: the limit does not allow them.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        return wanted or MAX_CONNECTIONS
    room = (hard - RESERVED) // listeners
    if room < (wanted or 1):
        times = "" if listeners == 1 else f"{listeners} times "
        raise ConfigurationError(
            f"the limit of open files is {hard}, and {RESERVED} of them are reserved: too few for "
            f"{times}{_VARIABLE}; raise the hard limit (ulimit -n, LimitNOFILE=), or lower {_VARIABLE}"
        )
    return wanted or min(room, MAX_CONNECTIONS)
