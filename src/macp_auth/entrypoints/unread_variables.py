"""Variables with our prefix that nothing reads: misspelt, or of another signer."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping

from msgspec import Struct

from macp_auth.entrypoints.settings import PREFIX, is_service_link

ECOSYSTEM = frozenset(
    PREFIX + name
    for name in (
        # The MACP runtime, 0.6 to 0.13 (crate macp-auth).
        *("ISSUER", "AUDIENCE", "JWKS_JSON", "JWKS_TTL_SECS", "JWKS_URL", "JWT_ALGS"),
        *("TOKENS_FILE", "TOKENS_JSON"),
        # Clients that mint: the control plane, the examples service.
        *("SERVICE_URL", "SERVICE_TIMEOUT_MS", "SCOPES_JSON"),
        *("TOKEN_TTL_SECONDS", "TOKEN_SENDER", "TOKEN_CAN_MANAGE_REGISTRY"),
    )
)
"""Variables of other MACP software, which may share an environment file with this service."""

# https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
_LINK_NAMES = re.compile(
    r"_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_NEAR = 0.8  # MACP_AUTH_METRIC_PORT is near MACP_AUTH_METRICS_PORT; two unlike names of one prefix are not


class UnreadVariable(Struct, frozen=True):
    """A variable that is set in vain."""

    name: str
    remedy: str


def unread_variables(environ: Mapping[str, str], known: Collection[str]) -> list[UnreadVariable]:
    """Return the variables that look like ours, and are neither ``known`` nor of other software.

    Kubernetes makes some for every Service in the namespace (service links). They are known by their
    values: for a Service ``macp-auth``, MACP_AUTH_PORT holds a ``tcp://`` URL.
    """
    made_by_kubernetes = set(_made_by_kubernetes(environ))
    return [
        UnreadVariable(name, _remedy(name, known))
        for name in sorted(environ.keys() - set(known) - ECOSYSTEM - made_by_kubernetes)
        if name.startswith(PREFIX)
    ]


def _made_by_kubernetes(environ: Mapping[str, str]) -> Iterable[str]:
    services = [name.removesuffix("_PORT") for name, value in environ.items() if is_service_link(value)]
    for name in environ:
        if any(
            name.startswith(service) and _LINK_NAMES.fullmatch(name[len(service) :]) for service in services
        ):
            yield name


def _remedy(name: str, known: Collection[str]) -> str:
    if (bare := name.removeprefix(PREFIX)) in known:
        return f"the variable is {bare}"
    if near := difflib.get_close_matches(name, known, n=1, cutoff=_NEAR):
        return f"did you mean {near[0]}? Correct the name, or unset {name}"
    return f"correct the name, select the signer that reads it, or unset {name}"
