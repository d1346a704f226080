"""File descriptors: as many as the system lets this process have, and how many connections that is."""

from __future__ import annotations

import resource

from macp_auth.domain.errors import ConfigurationError
from macp_auth.entrypoints.server.connections import MAX_CONNECTIONS

METRICS_CONNECTIONS = 32
"""The bound of the metrics' port, whose connections may be in the same process."""
RESERVED = 64 + METRICS_CONNECTIONS
"""Left for the rest: files, pipes, connections to a signer's backend, and what is being closed. A service
with TLS, metrics and an audit log has 21 open."""
_VARIABLE = "MACP_AUTH_MAX_CONNECTIONS"


def raise_limit() -> None:
    """Raise the soft limit to the hard one, for this process and its workers.

    The soft limit is low for the sake of programs that call select(2), which this one does not.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):  # no system of ours; what there is must do, and is checked
        return


def connection_bound(wanted: int | None) -> int:
    """Return how many connections a worker may have open.

    Args:
        wanted: the setting; None for as many as there is room for, up to :data:`MAX_CONNECTIONS`.

    Raises:
        ConfigurationError: there is no room for them.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        return wanted or MAX_CONNECTIONS
    room = hard - RESERVED
    if room < (wanted or 1):
        raise ConfigurationError(
            f"the limit of open files is {hard}, and {RESERVED} of them are reserved: too few for "
            f"{_VARIABLE}; raise the hard limit (ulimit -n, LimitNOFILE=), or lower {_VARIABLE}"
        )
    return wanted or min(room, MAX_CONNECTIONS)
