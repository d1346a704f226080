"""Reads the whole configuration once, before anything listens, and selects the signer.

It imports no web framework, because commands use it too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from macp_auth.adapters.plugins import BUILT_IN, IN_PROCESS, load_signer_plugin
from macp_auth.adapters.sandbox import prepare_state, sandboxed
from macp_auth.adapters.signers.env_jwk import KEY_JSON
from macp_auth.adapters.verifying import VerifyingSigner
from macp_auth.domain.errors import ConfigurationError, SignerMisconfigured
from macp_auth.domain.signer import Signer
from macp_auth.entrypoints.environment import (
    PREFIX,
    UnreadVariable,
    read_settings,
    unread_variables,
    variables,
)
from macp_auth.entrypoints.server.descriptors import connection_bound
from macp_auth.entrypoints.server.tls_files import load_tls
from macp_auth.entrypoints.settings import Settings
from macp_auth.entrypoints.signer_settings import read_signer_settings, secret_variables

if TYPE_CHECKING:
    from macp_auth.adapters.callers.source import CallersFile
    from macp_auth.adapters.tracing import Tracing  # its packages are an extra


class ServicePlan(msgspec.Struct, frozen=True):
    """The configuration of a worker process, pickled and passed through a pipe."""

    settings: Settings
    signer: str
    signer_state: Any
    """The state that the signer plugin prepared; may contain key material, so ``repr`` hides it."""
    unread_variables: list[UnreadVariable]
    """Variables that are set but not read: with this service's prefix, or of the signer's backend."""
    secret_variables: list[str]
    """Variables with a secret that can be cleared: the plan has their values."""


def plan_service(environ: Mapping[str, str]) -> ServicePlan:
    """Read the whole configuration and prepare the signer.

    Raises:
        ConfigurationError: it is invalid; the text names the variable.
    """
    settings = read_settings(Settings, PREFIX, environ)
    _ = settings.ttl, settings.rotation  # checked here, before anything listens
    settings.check_addresses()
    settings.check_names()
    settings.check_callers()
    settings.check_audit()
    connection_bound(settings.max_connections, 1 if settings.jwks_address is None else 2)  # likewise
    if settings.traces != "off":
        load_tracing()
    if (callers := callers_file(settings)) is not None:
        callers.check()
    if settings.tls is not None:
        load_tls(settings.tls)  # likewise; each worker loads its own
    name = _selected(settings, environ)
    try:
        plugin = load_signer_plugin(name)
        signer_settings = read_signer_settings(plugin, environ)
        state = prepare_state(plugin, signer_settings)
    except SignerMisconfigured as error:
        raise ConfigurationError(str(error)) from error
    known = [
        variable.name
        for struct, prefix in ((Settings, PREFIX), (plugin.settings, plugin.settings_prefix))
        for variable in variables(struct, prefix)
    ]
    unread = [*unread_variables(environ, known), *_without_listener(settings, environ)]
    if name == "vault-transit":
        from macp_auth.adapters.signers.vault_transit.settings import unused_variables  # noqa: PLC0415 - needs hvac

        unread += [UnreadVariable(*each) for each in unused_variables(environ)]
    return ServicePlan(settings, name, state, unread, secret_variables(plugin))


def _without_listener(settings: Settings, environ: Mapping[str, str]) -> Iterator[UnreadVariable]:
    """Yield the variables of a listener that is off."""
    for port, name, others in (
        (settings.jwks_port, "MACP_AUTH_JWKS_PORT", ["MACP_AUTH_JWKS_HOST", "MACP_AUTH_JWKS_TLS"]),
        (settings.metrics_port, "MACP_AUTH_METRICS_PORT", ["MACP_AUTH_METRICS_HOST"]),
    ):
        if port is None:
            for other in others:
                if other in environ:
                    yield UnreadVariable(other, f"set {name}, or unset {other}")


def callers_file(settings: Settings) -> CallersFile | None:
    """Return the callers file; None if there is none."""
    if settings.callers_file is None:
        return None
    from macp_auth.adapters.callers.source import CallersFile  # noqa: PLC0415 - a service without one needs no TOML

    return CallersFile(
        Path(settings.callers_file), audience=settings.audience, max_ttl_seconds=settings.ttl.maximum
    )


def selected_signer(environ: Mapping[str, str]) -> str:
    """Return the name of the signer that a service with this environment would use.

    Raises:
        ConfigurationError: a setting of the service is invalid.
    """
    return _selected(read_settings(Settings, PREFIX, environ), environ)


def _selected(settings: Settings, environ: Mapping[str, str]) -> str:
    return settings.signer or ("env-jwk" if KEY_JSON in environ else "ephemeral")


def open_signer(plan: ServicePlan) -> Signer:
    """Return the planned signer with the wrappers that it needs."""
    opening = partial(load_signer_plugin(plan.signer).open, plan.signer_state)
    if plan.signer in IN_PROCESS:
        return opening()
    if plan.signer in BUILT_IN:  # has its own limits, but its signatures come over a network
        return VerifyingSigner(opening(), plan.signer)
    return sandboxed(opening, plan.signer)


def load_tracing() -> type[Tracing]:
    """Return the class for tracing.

    Raises:
        ConfigurationError: its packages are not installed.
    """
    try:
        from macp_auth.adapters.tracing import Tracing  # noqa: PLC0415 - its packages are an extra
    except ImportError as error:
        raise ConfigurationError(
            "MACP_AUTH_TRACES needs packages that are not installed: "
            "pip install 'macp-auth[otel]', or set it to off"
        ) from error
    return Tracing
