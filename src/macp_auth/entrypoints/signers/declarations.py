"""What a signer of another distribution may declare: one answer for the host and the conformance kit."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from macp_auth.adapters.hookspecs import CONCURRENT_SIGNS
from macp_auth.adapters.plugins import BUILT_IN_SECRETS
from macp_auth.adapters.sandbox.process import selected
from macp_auth.entrypoints.environment import PREFIX, variables
from macp_auth.entrypoints.settings import Settings

MAX_CONCURRENT_SIGNS = CONCURRENT_SIGNS
"""The limit of the service, which includes calls that wait."""

_OWN_PREFIX = re.compile(r"MACP_AUTH_([A-Z0-9]+_)+")
_VARIABLES = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\*?")


def names_variables(name: object) -> bool:
    """Return whether ``name`` is that of a variable, with a star at most at the end."""
    return isinstance(name, str) and _VARIABLES.fullmatch(name) is not None


def prefix_fault(prefix: object) -> str | None:
    """Return what is wrong with the prefix of a signer's settings, to follow its name; None if nothing is.

    The signer's process gets all variables with this prefix, so none of the service may begin with it.
    """
    if not isinstance(prefix, str) or not _OWN_PREFIX.fullmatch(prefix):
        return (
            f"is {prefix!r}: it must be MACP_AUTH_, the signer's name in upper-case letters, "
            "digits and underscores, and an underscore"
        )
    for name in _of_the_service():
        if name.startswith(prefix):
            return f"is {prefix!r}, and {name} is a variable of the service: use another prefix"
    return None


def environment_fault(names: Sequence[object]) -> str | None:
    """Return what is wrong with the further variables that a signer declares; None if nothing is."""
    if not all(map(names_variables, names)):
        return "environment must be names of variables, with a star at most at the end"
    for name in selected(dict.fromkeys(_of_the_service(), ""), tuple(map(str, names))):
        return f"environment includes {name}, a variable of the service"
    return None


def variables_fault(names: Iterable[str]) -> str | None:
    """Return what is wrong with the names of the variables that a signer reads; None if nothing is."""
    of_the_service = _of_the_service()
    for name in names:
        if name in of_the_service:
            return f"variables include {name}, a variable of the service"
        if name.endswith("*") or not names_variables(name):
            return f"variables include {name!r}, which is not the name of one variable"
    return None


def _of_the_service() -> list[str]:
    return [*(each.name for each in variables(Settings, PREFIX)), *BUILT_IN_SECRETS]
