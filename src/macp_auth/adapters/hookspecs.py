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
"""The version of the plugin API. It increases when plugins must change."""

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
    api_version: int | None = None
    """The :data:`API_VERSION` that the plugin was written for, as an integer. An installed plugin that
    declares another, or none, is rejected."""
    durable: bool = True
    """False if the keys are lost when the service stops: for development only."""
    settings: type[Struct]
    """The settings type, one field per variable; the host reads and validates them."""
    settings_prefix: str
    """The prefix of the variables; the upper-cased field name follows."""
    prepare: Callable[[Any], Any]
    """Turns settings into a picklable state; runs once, before any worker. Raises SignerMisconfigured."""
    open: Callable[[Any], Signer]
    """Opens a signer from the state; runs once in every worker, on its event loop."""
    diagnose: Callable[[Any, RotationPolicy], Iterable[Finding]] | None = None
    """Diagnoses the deployment for ``macp-auth doctor``. It may block, and should yield each finding at once,
    because it is abandoned when it takes too long."""


@hookspec
def macp_auth_signer() -> SignerPlugin:  # type: ignore[empty-body]  # a specification has no body
    """Return this plugin's signer."""
