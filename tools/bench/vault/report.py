"""The figures of vault-transit as people read them."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from tools.bench.figures import Spreads
from tools.bench.machine import Machine
from tools.bench.tables import Row, Table, table
from tools.bench.vault.calls import CLIENTS
from tools.bench.vault.measure import JWKS_ALGORITHM

SIGNING_ROWS = (
    Row(f"bare hvac, {CLIENTS} threads: tokens/s", "bare_hvac", 0),
    Row(f"tuned hvac, {CLIENTS} threads: tokens/s", "tuned_hvac", 0),
    Row("Vault in batches: signatures/s", "server", 0),
    Row(f"macp-auth, {CLIENTS} connections: tokens/s", "service", 0),
    Row("macp-auth : bare hvac", "to_bare_hvac", 2),
    Row("macp-auth : Vault in batches", "to_server", 2),
    Row("tuned hvac, one call: p50, ms", "hvac_p50_ms", 2),
    Row("macp-auth, one connection: p50, ms", "service_p50_ms", 2),
    Row("macp-auth : tuned hvac, p50", "to_hvac_p50", 2),
)
READING_ROWS = (
    Row("with Vault: p99, ms", "p99_ms", 2),
    Row("with Vault stopped: p99, ms", "stopped_p99_ms", 2),
)
READING_TITLE = "JWKS while tokens are asked for"


class Report(Struct, frozen=True, kw_only=True):
    """All that the bench has to say."""

    machine: Machine
    placement: str
    seconds: int
    runs: int
    signing: Mapping[str, Spreads]
    """By algorithm."""
    reading: Spreads
    failed: int


def as_text(report: Report) -> str:
    """Return what a terminal shows."""
    about = f"{report.machine}\n{_workload(report)}"
    shown = (each.as_text() for each in tables(report))
    return "\n\n".join([about, *shown, f"failed requests: {report.failed}"])


def as_markdown(report: Report) -> str:
    """Return what a page shows."""
    about = f"{report.machine}.\n{_workload(report)}; {report.failed} failed requests."
    return "\n\n".join([about, *(each.as_markdown() for each in tables(report))])


def tables(report: Report) -> list[Table]:
    """Return the tables, in their order."""
    return [
        table("Keys in Vault", report.signing, SIGNING_ROWS),
        table(READING_TITLE, {JWKS_ALGORITHM: report.reading}, READING_ROWS),
    ]


def _workload(report: Report) -> str:
    return (
        f"{report.placement}; one worker, {report.seconds} s a load; "
        f"median (and range) of {report.runs} alternating run(s)"
    )
