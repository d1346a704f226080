"""The hook through which every signer, built-in or not, makes itself known."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pluggy
from msgspec import Struct

from macp_auth.domain.diagnosis import Finding
from macp_auth.domain.policy import RotationPolicy
from macp_auth.domain.signer import Signer

PROJECT = "macp_auth"
"""The pluggy project name, and the entry-point group of outside plugins."""

API_VERSION = 1
"""The version of what is importable from ``macp_auth`` for plugins. It grows when a plugin has to change."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class SignerPlugin(Struct, frozen=True, kw_only=True):
    """A kind of signer, and the two steps that bring one up.

    Two steps, because the service may run in several processes that must share one key: what
    ``prepare`` returns is pickled and handed to each worker through a pipe (never through the
    environment or a file), and each worker opens its own signer from it.
    """

    name: str
    """What ``MACP_AUTH_SIGNER`` says to select it; the entry point has the same name."""
    api_version: int | None = None
    """The :data:`API_VERSION` that the plugin was written for, as a number: ``1``. An installed plugin that
    declares another, or none, is refused."""
    durable: bool = True
    """False for a signer whose keys end with the service: for development only."""
    settings: type[Struct]
    """The settings, one field a variable; filled from the environment and validated by the host."""
    settings_prefix: str
    """What a field's upper-cased name is prefixed with to give its variable."""
    prepare: Callable[[Any], Any]
    """Settings to a picklable state; runs once, before any worker. Raises SignerMisconfigured."""
    open: Callable[[Any], Signer]
    """State to a signer; runs once in every worker, on its event loop."""
    diagnose: Callable[[Any, RotationPolicy], Iterable[Finding]] | None = None
    """What ``macp-auth doctor`` asks, of the state: is the deployment fit to go live? It may block, and
    yields each finding as soon as it is known, for it is left when it takes too long."""


@hookspec
def macp_auth_signer() -> SignerPlugin:  # type: ignore[empty-body]  # a specification has no body
    """Return the signer that this plugin brings."""
