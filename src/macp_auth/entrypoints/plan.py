"""Reads the whole configuration once, before anything listens, and selects the signer.

It imports no web framework, because commands use it too.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from macp_auth.adapters.plugins import BUILT_IN, IN_PROCESS, load_signer_plugin
from macp_auth.adapters.sandbox.planning import Hosted
from macp_auth.adapters.sandbox.wrapped import hosted
from macp_auth.adapters.signers.env_jwk import KEY_JSON
from macp_auth.adapters.verifying import VerifyingSigner
from macp_auth.domain.errors import ConfigurationError, SignerError
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
from macp_auth.entrypoints.signers.hosted import hosted_signer
from macp_auth.entrypoints.signers.settings import declared_secrets, read_signer_settings, secret_variables

if TYPE_CHECKING:
    from macp_auth.adapters.callers.source import CallersFile
    from macp_auth.adapters.tracing import Tracing  # its packages are an extra


class ServicePlan(msgspec.Struct, frozen=True):
    """The configuration of a worker process, pickled and passed through a pipe."""

    settings: Settings
    signer: str
    signer_state: Any
    """The state that a built-in signer prepared; may contain key material, so ``repr`` hides it."""
    hosted: Hosted | None
    """The signer of another distribution, which runs in a process of its own; None for a built-in one."""
    unread_variables: list[UnreadVariable]
    """Variables that are set but not read: with this service's prefix, or of the signer's backend."""
    secret_variables: list[str]
    """Variables with a secret that can be cleared: the plan has their values."""


def plan_service(
    environ: Mapping[str, str],
    host: Callable[[str, Settings, Mapping[str, str]], Hosted] = hosted_signer,
) -> ServicePlan:
    """Read the whole configuration and prepare the signer.

    Args:
        environ: the variables of the service.
        host: prepares a signer of another distribution.

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
    hosted = state = None
    try:
        if name in BUILT_IN and settings.signer_command is None:
            plugin = load_signer_plugin(name)
            state = plugin.prepare(read_signer_settings(plugin, environ))
            known = [each.name for each in variables(plugin.settings, plugin.settings_prefix)]
            secrets = secret_variables(declared_secrets(plugin), built_in=True)
        else:
            hosted = host(name, settings, environ)
            known = [variable.name for variable in hosted.description.variables]
            declared = [variable.name for variable in hosted.description.variables if variable.secret]
            secrets = secret_variables(declared, built_in=False)
    except SignerError as error:
        raise ConfigurationError(str(error)) from error
    known += [variable.name for variable in variables(Settings, PREFIX)]
    unread = [*unread_variables(environ, known), *_without_listener(settings, environ)]
    if name == "vault-transit":
        from macp_auth.adapters.signers.vault_transit.settings import unused_variables  # noqa: PLC0415 - needs hvac

        unread += [UnreadVariable(*each) for each in unused_variables(environ)]
    return ServicePlan(settings, name, state, hosted, unread, secrets)


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


def program_name(environ: Mapping[str, str]) -> str | None:
    """Return the name of the signer whose program is in MACP_AUTH_SIGNER_COMMAND; None if there is none.

    Raises:
        ConfigurationError: a setting of the service is invalid.
    """
    settings = read_settings(Settings, PREFIX, environ)
    return settings.signer if settings.signer_command is not None else None


def _selected(settings: Settings, environ: Mapping[str, str]) -> str:
    return settings.signer or ("env-jwk" if KEY_JSON in environ else "ephemeral")


def open_signer(plan: ServicePlan) -> Signer:
    """Return the planned signer with the wrappers that it needs."""
    if plan.hosted is not None:
        return hosted(plan.hosted.opening(os.environ), plan.hosted.description.sign_seconds)
    signer = load_signer_plugin(plan.signer).open(plan.signer_state)
    if plan.signer in IN_PROCESS:
        return signer
    return VerifyingSigner(signer, plan.signer)  # has its own limits, but its signatures come over a network


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
