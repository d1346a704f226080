"""Converts the readings of the workers to metric families, described in docs/metrics.md."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from macp_auth import __version__
from macp_auth.adapters.metrics.meter import (
    AUDIT_DROPPED,
    GRANTS,
    JWKS,
    MINTS,
    REPORTS,
    SHED,
    SIGN,
    SIGN_BOUNDS,
    SIGN_SECONDS,
)
from macp_auth.adapters.metrics.workers import Counts, Reading, Subject, not_ready
from macp_auth.domain.statistics import Distribution
from macp_auth.domain.worker_state import PublishedKey, WorkerState

Row = tuple[list[str], float | None]


class ServiceCollector(Collector):
    """Reads the workers at each scrape."""

    def __init__(
        self, subject: Subject, read: Callable[[], Reading], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._subject = subject
        self._read = read
        self._clock = clock

    def collect(self) -> Iterator[Metric]:
        """Return every family."""
        reading = self._read()
        yield from _service(self._subject)
        yield from _counted(reading.counts, self._subject.signer)
        states = [(str(place), state) for place, state in reading.states.items()]
        yield from _readiness(states, self._clock())
        offset: list[Row] = [([worker], state.clock_offset) for worker, state in states]
        text = "How far the wall clock is ahead of where it should be."
        yield _gauge("clock_offset_seconds", text, ["worker"], offset)
        yield from _keys(states)
        yield from _server(states)
        yield from _signer(reading.counts, states, self._subject.signer)


def _service(subject: Subject) -> Iterator[Metric]:
    build = [__version__, platform.python_version(), subject.signer]
    yield _gauge(
        "build_info", "Versions, and the signer's name.", ["version", "python", "signer"], [(build, 1)]
    )
    yield _gauge("start_time_seconds", "When the service started.", [], [([], subject.started_at)])
    yield _gauge("workers", "How many worker processes there should be.", [], [([], subject.workers)])
    restarts: list[tuple[list[str], float]] = [([], float(subject.restarts()))]
    yield _counter("worker_restarts", "Workers that died and were replaced.", [], restarts)
    yield _gauge(
        "key_refresh_interval_seconds",
        "How often, at least, keys are read.",
        [],
        [([], subject.refresh_seconds)],
    )


def _counted(counts: Counts, signer: str) -> Iterator[Metric]:
    cells = counts.cells
    mints = [([*name[1:]], number) for name, number in cells.items() if name[0] == MINTS]
    yield _counter("mints", "Requests for a token, by outcome.", ["result", "reason"], mints)
    granted = [([*name[1:]], number) for name, number in cells.items() if name[0] == GRANTS]
    text = "Requests of known callers, by the grant that decided."
    yield _counter("caller_mints", text, ["caller", "grant", "result"], granted)
    reported = [([*name[1:]], number) for name, number in cells.items() if name[0] == REPORTS]
    text = "Requests that the callers file would refuse, in report mode."
    yield _counter("callers_reports", text, ["reason"], reported)
    jwks = [([*name[1:]], number) for name, number in cells.items() if name[0] == JWKS]
    yield _counter("jwks_requests", "Answered requests for the keys.", ["status", "listener"], jwks)
    dropped: list[tuple[list[str], float]] = [([], cells.get((AUDIT_DROPPED,), 0))]
    text = "Lines of minted tokens that the audit log could not keep."
    yield _counter("audit_lines_dropped", text, [], dropped)
    shed = [([*name[1:]], number) for name, number in cells.items() if name[0] == SHED]
    text = "Idle connections closed to make room for others."
    yield _counter("connections_shed", text, ["listener"], shed)
    within = [cells.get((SIGN, str(bound)), 0) for bound in (*SIGN_BOUNDS, "+Inf")]
    taken = Distribution(SIGN_BOUNDS, [int(number) for number in within], cells.get((SIGN_SECONDS,), 0))
    yield _histogram("sign_duration_seconds", "How long the signer took.", signer, taken)


def _readiness(states: list[tuple[str, WorkerState]], now: float) -> Iterator[Metric]:
    reasons = {worker: not_ready(state, now) for worker, state in states}
    ready: list[Row] = [([worker], float(reason is None)) for worker, reason in reasons.items()]
    yield _gauge("ready", "Whether the worker can mint.", ["worker"], ready)
    unready: list[Row] = [([worker, reason], 1) for worker, reason in reasons.items() if reason is not None]
    yield _gauge("not_ready", "Why the worker can't mint; absent if it can.", ["worker", "reason"], unready)


def _keys(states: list[tuple[str, WorkerState]]) -> Iterator[Metric]:
    read: list[Row] = [([worker], state.keys_read_at) for worker, state in states]
    yield _gauge("keys_read_timestamp_seconds", "When the keys were read last.", ["worker"], read)
    keys = [(worker, key) for worker, state in states for key in state.keys]
    labels = ["worker", "kid", "alg", "state"]
    yield _gauge(
        "key_state",
        "A published key, and what it is for.",
        labels,
        [([worker, key.kid, key.algorithm, key.state], 1) for worker, key in keys],
    )

    def times(of: Callable[[PublishedKey], float | None]) -> list[Row]:
        return [([worker, key.kid], of(key)) for worker, key in keys]

    labels = ["worker", "kid"]
    created = times(lambda key: key.created_at)
    yield _gauge("key_created_timestamp_seconds", "When the key was made, if known.", labels, created)
    changes = times(lambda key: key.next_change)
    yield _gauge(
        "key_next_change_timestamp_seconds", "When the key leaves its state, if planned.", labels, changes
    )


def _server(states: list[tuple[str, WorkerState]]) -> Iterator[Metric]:
    connections: list[Row] = [
        ([worker, name], number) for worker, state in states for name, number in state.connections.items()
    ]
    text = "Open connections of callers and verifiers."
    yield _gauge("connections", text, ["worker", "listener"], connections)
    failing: list[Row] = [
        ([worker], state.callers_failing) for worker, state in states if state.callers_failing is not None
    ]
    text = "Whether the callers file is unusable, and an earlier reading decides."
    yield _gauge("callers_file_failing", text, ["worker"], failing)
    issuers: list[Row] = [
        ([worker, name], failed) for worker, state in states for name, failed in state.failing_issuers.items()
    ]
    text = "Whether the keys of an issuer of callers' JWTs can't be read."
    yield _gauge("issuer_keys_failing", text, ["worker", "issuer"], issuers)
    certificates = [
        ([worker, use], validity) for worker, state in states for use, validity in state.certificates.items()
    ]
    labels = ["worker", "certificate"]
    begins: list[Row] = [(values, validity.begins) for values, validity in certificates]
    text = "When the certificate begins to be good."
    yield _gauge("tls_certificate_not_before_timestamp_seconds", text, labels, begins)
    ends: list[Row] = [(values, validity.ends) for values, validity in certificates]
    text = "When the certificate expires."
    yield _gauge("tls_certificate_expiry_timestamp_seconds", text, labels, ends)


def _signer(counts: Counts, states: list[tuple[str, WorkerState]], signer: str) -> Iterator[Metric]:
    text = "Reported by the signer."
    for name, count in counts.signer.items():
        if isinstance(count, Distribution):
            yield _histogram(f"signer_{name}", text, signer, count)
        else:
            yield _counter(f"signer_{name}", text, ["signer"], [([signer], count)])
    reported = [
        (name, [signer, worker], number)
        for worker, state in states
        for name, number in state.signer.items()
        if name not in counts.signer and not isinstance(number, Distribution)
    ]
    for name in sorted({name for name, _, _ in reported}):
        rows: list[Row] = [(labels, number) for of, labels, number in reported if of == name]
        yield _gauge(f"signer_{name}", text, ["signer", "worker"], rows)


def _gauge(name: str, text: str, labels: list[str], rows: Iterable[Row]) -> Metric:
    family = GaugeMetricFamily(f"macp_auth_{name}", text, labels=labels)
    for values, number in rows:
        if number is not None:
            family.add_metric(values, number)
    return family


def _counter(name: str, text: str, labels: list[str], rows: Iterable[tuple[list[str], float]]) -> Metric:
    family = CounterMetricFamily(f"macp_auth_{name}", text, labels=labels)
    for values, number in rows:
        family.add_metric(values, number)
    return family


def _histogram(name: str, text: str, signer: str, values: Distribution) -> Metric:
    family = HistogramMetricFamily(f"macp_auth_{name}", text, labels=["signer"])
    bounds = [*(str(float(bound)) for bound in values.bounds), "+Inf"]
    buckets = list(zip(bounds, accumulate(values.counts), strict=True))
    family.add_metric([signer], buckets, values.total)
    return family
