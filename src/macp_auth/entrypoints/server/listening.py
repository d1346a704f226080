"""The listening sockets, bound once and before anything is served.

With SO_REUSEPORT, two services could share a port in silence, each with keys of its own.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket

from macp_auth.domain.errors import ConfigurationError
from macp_auth.entrypoints.settings import Settings

SOCKET_BUFFER_BYTES = 16 * 1024
"""How much the kernel keeps of a connection, each way: requests before they are read, and answers.

By default it is megabytes. This is also how much is read at once, with TLS or without.
"""

_ALL_IPV6, _ALL_IPV4 = "::", "0.0.0.0"  # noqa: S104 - it listens there only if the setting says so
_HOST, _JWKS_HOST, _METRICS_HOST = "MACP_AUTH_HOST (--host)", "MACP_AUTH_JWKS_HOST", "MACP_AUTH_METRICS_HOST"


def listen(settings: Settings) -> socket.socket:
    """Return the bound and listening socket.

    Raises:
        ConfigurationError: the address can't be listened on.
    """
    return _listen(settings.host, settings.port, _HOST, "PORT (--port)")


def listen_for_keys(settings: Settings) -> socket.socket | None:
    """Return the socket of the listener for the keys, bound and listening; None if there is none.

    Raises:
        ConfigurationError: the address can't be listened on.
    """
    if (address := settings.jwks_address) is None:
        return None
    return _listen(*address, _JWKS_HOST, "MACP_AUTH_JWKS_PORT")


def listen_for_metrics(settings: Settings) -> socket.socket | None:
    """Return the socket of the metrics, bound and listening; None if they are off.

    Raises:
        ConfigurationError: the address can't be listened on.
    """
    if (address := settings.metrics_address) is None:
        return None
    return _listen(*address, _METRICS_HOST, "MACP_AUTH_METRICS_PORT")


def _listen(host: str, port: int, host_variable: str, port_variable: str) -> socket.socket:
    family, address = _resolved(host, port, host_variable)
    both_families = address[0] == _ALL_IPV6
    if both_families and not socket.has_dualstack_ipv6():  # a kernel without IPv6, as with ipv6.disable=1
        family, address, both_families = socket.AF_INET, (_ALL_IPV4, port), False
    try:
        listener = socket.create_server(
            address, family=family, backlog=2048, reuse_port=False, dualstack_ipv6=both_families
        )
    except OSError as error:
        remedies = {
            errno.EADDRINUSE: f"Stop what listens there, or set {port_variable} or {host_variable}",
            errno.EACCES: f"Set {port_variable} to one from 1024 on, which needs no privilege",
        }
        raise ConfigurationError(
            f"can't listen on port {port} of {host_variable}: {os.strerror(error.errno or 0)}. "
            + remedies.get(error.errno or 0, _another_address(host_variable))
        ) from error
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):  # a connection inherits them
        listener.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER_BYTES)
    return listener


def is_loopback(host: str) -> bool:
    """Whether listening on ``host`` is listening on loopback only."""
    address = _numeric(host)
    return host.lower() == "localhost" if address is None else address.is_loopback


def check_addresses(settings: Settings) -> None:
    """Look the addresses up, and leave the ports alone: the service may be running.

    Raises:
        ConfigurationError: one leads nowhere.
    """
    _resolved(settings.host, settings.port, _HOST)
    if (address := settings.jwks_address) is not None:
        _resolved(*address, _JWKS_HOST)
    if (address := settings.metrics_address) is not None:
        _resolved(*address, _METRICS_HOST)


def _resolved(host: str, port: int, host_variable: str) -> tuple[int, tuple[str, int]]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        reason = (isinstance(error, socket.gaierror) and error.strerror) or "not a host name"
        raise ConfigurationError(
            f"cannot resolve {host_variable}: {reason}. {_another_address(host_variable)}"
        ) from error
    family, _, _, _, address = found[0]
    return family, (str(address[0]), int(address[1]))


def _another_address(host_variable: str) -> str:
    return f"Set {host_variable} to an address of this machine, such as 127.0.0.1 or 0.0.0.0"


def is_unspecified(host: str) -> bool:
    """Whether what listens on ``host`` listens on all addresses."""
    address = _numeric(host)
    return address is not None and address.is_unspecified


def _numeric(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the address that ``host`` spells, perhaps as ``0``, ``127.1`` or ``*``; None for a name."""
    name = None if host == "*" else host  # as in the C library of GNU
    flags = socket.AI_PASSIVE | socket.AI_NUMERICHOST
    try:
        found = socket.getaddrinfo(name, 0, type=socket.SOCK_STREAM, flags=flags)
    except (OSError, ValueError):
        return None
    return ipaddress.ip_address(str(found[0][4][0]))
