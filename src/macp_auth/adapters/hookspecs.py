"""The pluggy hook that registers signers, built-in or installed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pluggy
from msgspec import Struct

from macp_auth.domain.diagnosis import Finding
from macp_auth.domain.policy import RotationPolicy
from macp_auth.domain.signer import Signer

PROJECT = "macp_auth"
"""The pluggy project name, and the entry-point group of installed plugins."""

API_VERSION = 1
"""The newest version of the plugin API. It increases when plugins must change."""
OLDEST_API_VERSION = 1
"""The oldest version that a plugin may be written for. Versions before the newest are deprecated."""

SIGN_SECONDS = 2.0
"""The usual deadline of a signature; callers usually give up after a few seconds."""
MAX_SIGN_SECONDS = 5.0
"""The longest: the service must stop within 10 s, and answers what it has begun."""
CONCURRENT_SIGNS = 128
"""At 2 s each, a backend that almost hangs gives 64 signatures a second; others give more."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class SignerPlugin(Struct, frozen=True, kw_only=True):
    """A kind of signer, started in two steps.

    The processes of a service must share one key. So what ``prepare`` returns is pickled and passed to each
    worker through a pipe (never through the environment or a file), and each worker opens its own signer
    from it.
    """

    name: str
    """The value of ``MACP_AUTH_SIGNER`` that selects it; the entry point has the same name."""
    api_version: int | tuple[int, int] | None = None
    """The :data:`API_VERSION` that the plugin was written for, as an integer, or the first and the last one
    that it works with. An installed plugin that declares none, or none that this host has, is rejected."""
    durable: bool = True
    """Whether the keys outlive the service. False is for development only."""
    settings: type[Struct]
    """The settings type, one field per variable; the host reads and validates them."""
    settings_prefix: str
    """The prefix of the variables; the upper-cased field name follows."""
    prepare: Callable[[Any], Any]
    """Turns settings into a picklable state; runs once, before any worker. Raises SignerMisconfigured."""
    open: Callable[[Any], Signer]
    """Opens a signer from the state; runs once in every worker, on its event loop."""
    environment: tuple[str, ...] = ()
    """Further variables that the plugin's libraries read, such as ``SOFTHSM2_CONF`` or ``AWS_*``; a star at
    the end stands for any text. The process of a plugin gets these, and those of its settings."""
    sign_seconds: float = SIGN_SECONDS
    """The deadline of a signature, in seconds; more than 0, at most :data:`MAX_SIGN_SECONDS`."""
    concurrent_signs: int = CONCURRENT_SIGNS
    """How many signatures may be in progress; further calls wait for their turn until their deadline."""
    diagnose: Callable[[Any, RotationPolicy], Iterable[Finding]] | None = None
    """Diagnoses the deployment for ``macp-auth doctor``. It may block, and should yield each finding at once,
    because it is abandoned when it takes too long."""


@hookspec
def macp_auth_signer() -> SignerPlugin:  # type: ignore[empty-body]  # a specification has no body
    """Return this plugin's signer."""
