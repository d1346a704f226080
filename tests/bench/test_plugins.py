"""The process of a plugin: what ``make bench-plugins`` measures, and its bounds."""

from __future__ import annotations

import json

from tests.bench.command import call_short
from tools.bench.plugins import (
    BUILT_IN,
    CONCURRENCIES,
    HOSTED,
    IN_PROCESS,
    MOST_MORE_CPU,
    MOST_MORE_P50_MS,
    MOST_START_RATIO,
    PLUGIN,
    measure_signatures,
    measure_starts,
)


def test_a_short_bench_has_every_figure() -> None:
    """Each concurrency and place, and the starts."""
    done = call_short("tools.bench.plugins", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert list(report["signatures"]) == [str(concurrency) for concurrency in CONCURRENCIES]
    for places in report["signatures"].values():
        assert set(places[IN_PROCESS]) == {"cpu_us", "ratio", "p50_ms"}
        assert set(places[HOSTED]) == {"cpu_us", "ratio", "p50_ms", "resident_mib"}
    assert set(report["starts"]) == {BUILT_IN, PLUGIN}


def test_a_signature() -> None:
    """What the process adds: the least of five, because other load slows all of them.

    One at a time may take half as much again: an idle virtual machine takes long to wake a processor.
    """
    found = measure_signatures(5)
    for concurrency, places in found.items():
        more = MOST_MORE_CPU * (1.5 if concurrency == 1 else 1)
        assert places[HOSTED]["ratio"].low - places[IN_PROCESS]["ratio"].low < more
    alone = found[1]
    assert alone[HOSTED]["p50_ms"].low - alone[IN_PROCESS]["p50_ms"].low < 1.5 * MOST_MORE_P50_MS


def test_a_start() -> None:
    """Two programs start while the service loads: the least of three."""
    found = measure_starts(3)
    slowest = MOST_START_RATIO * found[BUILT_IN]["first_token_ms"].low
    assert found[PLUGIN]["first_token_ms"].low < slowest
