"""The composition root: assembles a worker of the service."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from litestar.types import ASGIApp
from msgspec import Struct

from macp_auth.adapters.audit.destination import OFF, Destination
from macp_auth.adapters.audit.line import check_line
from macp_auth.adapters.audit.log import AuditLog, RequiredAuditLog
from macp_auth.adapters.audit.standard_output import StandardOutput
from macp_auth.adapters.metrics.meter import Meter
from macp_auth.adapters.metrics.service_state import ServiceStates
from macp_auth.adapters.metrics.workers import Subject, Workers, files_of, write_state
from macp_auth.application.access import Access, GrantedAccess, OpenAccess, ReportedAccess, ReportLog
from macp_auth.application.callers_refresh import CallersRefresher
from macp_auth.application.clock import TrustedClock
from macp_auth.application.key_refresh import KeyRefresher
from macp_auth.application.key_ring import KeyRing
from macp_auth.application.mint import Minter, any_claims
from macp_auth.application.readiness import AUDIT_LINES_DROPPED, Condition, Readiness
from macp_auth.application.reporter import Reporter, Watched
from macp_auth.domain.claims import probe_claims
from macp_auth.domain.errors import AuditUnavailable, CallersUnavailable
from macp_auth.domain.minting import Observer
from macp_auth.entrypoints.http import discovery, jwks, probes, tokens
from macp_auth.entrypoints.http.app import KEYS, MAIN, Applications, Lifetime, create_apps
from macp_auth.entrypoints.http.caller_checks import (
    CallerCheck,
    OwnHosts,
    refuse_browsers,
    require_client_certificate,
)
from macp_auth.entrypoints.http.credentials import Authenticate, anonymous, authenticate
from macp_auth.entrypoints.plan import ServicePlan, callers_file, load_tracing, open_signer
from macp_auth.entrypoints.server.gc_freeze import frozen_heap
from macp_auth.entrypoints.server.listening import is_loopback
from macp_auth.entrypoints.server.processes import Builders, Metered
from macp_auth.entrypoints.settings import Settings


def _caller_checks(settings: Settings) -> list[CallerCheck]:
    checks: list[CallerCheck] = [refuse_browsers, *_host_checks(settings.host)]
    if settings.tls is not None and settings.tls.client_ca is not None and not settings.callers_enforced:
        checks.append(require_client_certificate)  # else it is one credential among others
    return checks


def _host_checks(listening_on: str) -> list[CallerCheck]:
    return [OwnHosts(listening_on)] if is_loopback(listening_on) else []


class _Gate(Struct, frozen=True):
    """The parts that decide who may mint what."""

    access: Access
    authenticate: Authenticate = anonymous
    rules: Callable[[], object] = tokens.no_rules
    callers: CallersRefresher | None = None
    failing_issuers: Callable[[], Mapping[str, bool]] = dict
    lifetimes: Sequence[Lifetime] = ()
    conditions: Sequence[Condition] = ()

    @property
    def has_callers(self) -> bool:
        return self.callers is not None


def _gate(settings: Settings, reported: Callable[[str], None]) -> _Gate:
    unlimited = OpenAccess(settings.audience, settings.ttl)
    if (file := callers_file(settings)) is None:
        return _Gate(unlimited)
    callers = CallersRefresher(file.read)
    granted = GrantedAccess(callers.rules, settings.ttl)
    access: Access = granted
    if settings.callers_mode == "report":
        access = ReportedAccess(granted, unlimited, ReportLog(reported).report)
    return _Gate(
        access,
        partial(authenticate, access),
        callers.current,
        callers,
        file.failing_issuers,
        lifetimes=[file.running, callers.running],
        conditions=[
            Condition(callers.is_empty, CallersUnavailable.reason, "no usable callers file since the start")
        ],
    )


def _audit_condition(audit: AuditLog | RequiredAuditLog) -> Condition:
    if isinstance(audit, RequiredAuditLog):
        text = "cannot write the audit log, which is required"
        return Condition(audit.is_unavailable, AuditUnavailable.reason, text)
    text = "cannot write the audit log, and its buffer is full"
    return Condition(audit.is_dropping, AUDIT_LINES_DROPPED, text)


def build_service(plan: ServicePlan, output: StandardOutput, metrics: Metered | None = None) -> Applications:
    """Return the applications of a worker, which opens and closes its own signer.

    Args:
        plan: what to build.
        output: where the audit log goes if it goes to standard output.
        metrics: the metrics of this process; None for none.
    """
    settings = plan.settings
    signer = open_signer(plan)
    observers: list[Observer] = []
    jwks_answered: Callable[[str], Callable[[int], None]] = _ignoring
    lines_dropped: Callable[[int], None] = _ignore
    reported: Callable[[str], None] = _ignore
    if metrics is not None:
        counts, state = files_of(metrics.directory, os.getpid())
        meter = Meter(counts)
        signer = meter.timed(signer)
        observers.append(meter.count_mint)
        jwks_answered = partial(partial, meter.count_jwks)
        lines_dropped = meter.count_dropped_lines
        reported = meter.count_report
        for listener, connections in metrics.connections.items():
            connections.observe_shed(meter.shed_connections(listener))
    audit: AuditLog | RequiredAuditLog | None = None
    if settings.audit_log != OFF:
        destination = Destination(settings.audit_log, output)
        required = settings.audit_required == "on"
        audit = RequiredAuditLog(destination) if required else AuditLog(destination, lines_dropped)
        observers.append(audit.record)
    tracing = None if settings.traces == "off" else load_tracing()()
    clock = TrustedClock(
        tolerated=settings.max_clock_step_seconds, accept_after=settings.clock_accept_after_seconds
    )
    keys = KeyRing(signer, settings.rotation.timing)
    refresher = KeyRefresher(keys, settings.key_refresh_seconds, source=plan.signer, now=clock.adjusted)
    gate = _gate(settings, reported)
    conditions = [*gate.conditions, *([] if audit is None else [_audit_condition(audit)])]
    readiness = Readiness(
        keys,
        refresher,
        probe_claims=lambda: probe_claims(settings.issuer, settings.audience, time.time()),
        clock_trusted=clock.is_trusted,
        conditions=conditions,
    )
    minter = Minter(
        issuer=settings.issuer,
        senders=settings.senders,
        access=gate.access,
        keys=keys,
        check_claims=any_claims if audit is None else partial(check_line, with_caller=gate.has_callers),
    )
    reporter = None
    if metrics is not None:
        watched = Watched(
            keys=keys,
            refresher=refresher,
            readiness=readiness,
            signer=signer,
            clock=clock,
            connections=metrics.connections,
            certificates=metrics.certificates,
            callers=gate.callers,
            failing_issuers=gate.failing_issuers,
            audit_head=_no_head if audit is None else audit.head,
        )
        reporter = Reporter(watched, partial(write_state, state))
    # Started in this order and stopped in reverse: a part comes after the parts that it uses.
    lifetimes = [
        *([] if tracing is None else [tracing.running]),
        *([] if audit is None else [audit.running]),
        clock.running,
        *gate.lifetimes,
        refresher.running,
        readiness.running,
        *([] if reporter is None else [reporter.running]),
        frozen_heap,
    ]
    max_age = settings.jwks_max_age_seconds
    metadata = discovery.provider_metadata(settings.issuer)
    apps = create_apps(
        tokens.token_app(
            minter,
            observers,
            now=clock.now,
            caller_checks=_caller_checks(settings),
            authenticate=gate.authenticate,
            rules=gate.rules,
            recorded=audit.recorded if isinstance(audit, RequiredAuditLog) else None,
        ),
        {name: jwks.jwks_app(keys, max_age, jwks_answered(name)) for name in (MAIN, KEYS)},
        readiness,
        lifetimes,
        more_routes=[] if metadata is None else [discovery.discovery_route(metadata, max_age)],
        documented=settings.openapi == "on",
    )
    if tracing is None:
        return apps
    traced = partial(
        tracing.traced,
        named=[tokens.PATH, jwks.PATH, discovery.PATH],
        excluded=[probes.HEALTH_PATH, probes.READY_PATH, probes.KEYS_READY_PATH],
    )
    return Applications(traced(apps.service), traced(apps.keys))


def builders(plan: ServicePlan, output: StandardOutput) -> Builders:
    """Return what makes all that a service with this plan serves."""
    return Builders(service=partial(build_service, plan, output), metrics=partial(build_metrics, plan))


def build_metrics(
    plan: ServicePlan, directory: Path, pids: Callable[[], Sequence[int]], restarts: Callable[[], int]
) -> ASGIApp:
    """Return the application that serves the metrics of all workers.

    Args:
        plan: the plan of the workers.
        directory: the folder of their files.
        pids: returns the process ids of the workers, by index.
        restarts: returns the number of workers that died and were replaced.
    """
    # Imported here, so that prometheus-client costs no time and memory while metrics are off.
    from macp_auth.adapters.metrics.exposition import ServiceCollector  # noqa: PLC0415
    from macp_auth.entrypoints.server.metrics_listener import metrics_app  # noqa: PLC0415

    settings = plan.settings
    subject = Subject(
        signer=plan.signer,
        workers=settings.workers,
        refresh_seconds=settings.key_refresh_seconds,
        started_at=time.time(),
        restarts=restarts,
    )
    states = ServiceStates(subject, settings.rotation.timing, Workers(directory, pids))
    checks = _host_checks(settings.metrics_host or settings.host)
    return metrics_app(ServiceCollector(subject, states.read), states.state, checks)


def _no_head() -> None:
    """Return that there is no audit log."""


def _ignore(_: object) -> None:
    """Count nothing."""


def _ignoring(_listener: str) -> Callable[[int], None]:
    return _ignore
