"""The composition root: the one place that knows which parts the service is made of.

:func:`plan_service` runs once, before anything listens, and fails on any configuration that could
not work. :func:`build_service` runs in every worker process, from what the plan hands over.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from litestar.types import ASGIApp

from macp_auth.adapters.audit.destination import OFF, Destination
from macp_auth.adapters.audit.line import check_line
from macp_auth.adapters.audit.log import AuditLog
from macp_auth.adapters.metrics.meter import Meter
from macp_auth.adapters.metrics.reporter import Reporter, Watched
from macp_auth.adapters.metrics.workers import files_of
from macp_auth.adapters.plugins import BUILT_IN, IN_PROCESS, load_signer_plugin
from macp_auth.adapters.sandbox import host, prepare_state
from macp_auth.adapters.signers.env_jwk import KEY_JSON
from macp_auth.adapters.verifying import VerifyingSigner
from macp_auth.application.clock import TrustedClock
from macp_auth.application.key_refresh import KeyRefresher
from macp_auth.application.minting import Minter, any_claims
from macp_auth.application.readiness import Readiness
from macp_auth.domain.certificates import Validity
from macp_auth.domain.claims import probe_claims
from macp_auth.domain.errors import SignerMisconfigured
from macp_auth.domain.keyring import KeyRing
from macp_auth.domain.sender import SenderPolicy
from macp_auth.domain.signer import Signer
from macp_auth.entrypoints.http.app import Lifespan, create_app
from macp_auth.entrypoints.http.attempts import Observer
from macp_auth.entrypoints.http.browsers import OwnHosts, refuse_browsers
from macp_auth.entrypoints.http.client_certificates import require_client_certificate
from macp_auth.entrypoints.http.jwks import jwks_route
from macp_auth.entrypoints.http.tokens import CallerCheck, token_app
from macp_auth.entrypoints.server.connections import Connections
from macp_auth.entrypoints.server.descriptors import connection_bound
from macp_auth.entrypoints.server.gc_freeze import settled_heap
from macp_auth.entrypoints.server.listening import is_loopback
from macp_auth.entrypoints.server.tls_files import load_tls
from macp_auth.entrypoints.settings import (
    PREFIX,
    ConfigurationError,
    Settings,
    read_settings,
    variables,
)
from macp_auth.entrypoints.signer_settings import read_signer_settings, secret_variables
from macp_auth.entrypoints.standard_output import StandardOutput
from macp_auth.entrypoints.unread_variables import UnreadVariable, unread_variables

if TYPE_CHECKING:
    from macp_auth.adapters.tracing import Tracing  # its packages are an extra


class ServicePlan(msgspec.Struct, frozen=True):
    """All that a worker process needs. Picklable: a worker gets it through a pipe."""

    settings: Settings
    signer: str
    signer_state: Any
    """What the signer plugin prepared; may hold key material, and says so by a quiet ``repr``."""
    unread_variables: list[UnreadVariable]
    """Variables that are set in vain: of our prefix, or of the signer's backend."""
    secret_variables: list[str]
    """Those that held a secret, and need hold it no longer: the plan has what was in them."""


def plan_service(environ: Mapping[str, str]) -> ServicePlan:
    """Read the whole configuration and prepare the signer.

    Raises:
        ConfigurationError: it can't work; the text names the variable.
    """
    settings = read_settings(Settings, PREFIX, environ)
    _ = settings.ttl, settings.rotation, settings.metrics_address  # checked here, before anything listens
    settings.check_names()
    connection_bound(settings.max_connections)  # likewise
    if settings.traces != "off":
        _load_tracing()
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
    unread = unread_variables(environ, known)
    if name == "vault-transit":
        unread += [UnreadVariable(*each) for each in _vault_set_in_vain(environ)]
    return ServicePlan(settings, name, state, unread, secret_variables(plugin))


def _vault_set_in_vain(environ: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    from macp_auth.adapters.signers.vault_transit.settings import set_in_vain  # noqa: PLC0415 - other signers need no hvac

    return set_in_vain(environ)


def selected_signer(environ: Mapping[str, str]) -> str:
    """Return the name of the signer that a service with this environment would use.

    Raises:
        ConfigurationError: a setting of the service is wrong.
    """
    return _selected(read_settings(Settings, PREFIX, environ), environ)


def _selected(settings: Settings, environ: Mapping[str, str]) -> str:
    return settings.signer or ("env-jwk" if KEY_JSON in environ else "ephemeral")


def open_signer(plan: ServicePlan) -> Signer:
    """Return the planned signer, and between it and us what its signatures call for."""
    opening = partial(load_signer_plugin(plan.signer).open, plan.signer_state)
    if plan.signer in IN_PROCESS:
        return opening()
    if plan.signer in BUILT_IN:  # bounds itself, but its signatures come over a network
        return VerifyingSigner(opening(), plan.signer)
    return host(opening, plan.signer)


def _caller_checks(settings: Settings) -> list[CallerCheck]:
    checks: list[CallerCheck] = [refuse_browsers]
    if is_loopback(settings.host):
        checks.append(OwnHosts(settings.host))
    if settings.tls is not None and settings.tls.client_ca is not None:
        checks.append(require_client_certificate)
    return checks


class Metered(msgspec.Struct, frozen=True):
    """Where a worker counts, and what the server around the application has to count."""

    directory: Path
    connections: Connections
    certificates: Callable[[], Mapping[str, Validity]]


def build_service(plan: ServicePlan, output: StandardOutput, metrics: Metered | None = None) -> ASGIApp:
    """Return the application, with a signer of its own that it opens and closes.

    Args:
        plan: what to build.
        output: where the audit log goes if it goes to standard output.
        metrics: where this process counts; None, it does not.
    """
    settings = plan.settings
    signer = open_signer(plan)
    observers: list[Observer] = []
    jwks_answered: Callable[[int], None] = _ignore
    lines_dropped: Callable[[int], None] = _ignore
    if metrics is not None:
        counts, state = files_of(metrics.directory, os.getpid())
        meter = Meter(counts)
        signer = meter.timed(signer)
        observers.append(meter.count_mint)
        jwks_answered = meter.count_jwks
        lines_dropped = meter.count_dropped_lines
        metrics.connections.on_shed = meter.count_shed_connection
    audit = None
    if settings.audit_log != OFF:
        audit = AuditLog(Destination(settings.audit_log, output), lines_dropped)
    keys = KeyRing(signer, settings.rotation.timing)
    minter = Minter(
        issuer=settings.issuer,
        audience=settings.audience,
        senders=SenderPolicy(None if settings.sender_pattern is None else settings.sender_pattern.matches),
        ttl=settings.ttl,
        keys=keys,
        check_claims=any_claims if audit is None else check_line,
    )
    clock = TrustedClock(
        tolerated=settings.max_clock_step_seconds, accept_after=settings.clock_accept_after_seconds
    )
    refresher = KeyRefresher(keys, settings.key_refresh_seconds, source=plan.signer, now=clock.reckoned)
    readiness = Readiness(
        keys,
        refresher,
        probe_claims=lambda: probe_claims(settings.issuer, settings.audience, time.time()),
        clock_trusted=clock.is_trusted,
        audit_dropping=_never if audit is None else audit.is_dropping,
    )
    lifespan: list[Lifespan] = [clock.lifespan, refresher.lifespan, readiness.lifespan]
    if audit is not None:
        observers.append(audit.record)
        lifespan.insert(0, audit.lifespan)
    if metrics is not None:
        watched = Watched(
            keys, refresher, readiness, signer, clock, metrics.connections, metrics.certificates
        )
        lifespan.append(Reporter(state, watched).lifespan)
    tracing = None if settings.traces == "off" else _load_tracing()()
    if tracing is not None:
        lifespan.insert(0, tracing.lifespan)
    lifespan.append(settled_heap)
    app = create_app(
        token_app(minter, observers, now=clock.now, caller_checks=_caller_checks(settings)),
        jwks_route(keys, settings.jwks_max_age_seconds, jwks_answered),
        readiness,
        lifespan,
    )
    return app if tracing is None else tracing.traced(app)


def _load_tracing() -> type[Tracing]:
    try:
        from macp_auth.adapters.tracing import Tracing  # noqa: PLC0415 - its packages are an extra
    except ImportError as error:
        raise ConfigurationError(
            "MACP_AUTH_TRACES needs packages that are not installed: "
            "pip install 'macp-auth[otel]', or set it to off"
        ) from error
    return Tracing


def _ignore(_: int) -> None:
    """Count nothing."""


def _never() -> bool:
    return False
