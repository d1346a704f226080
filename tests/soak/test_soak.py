"""The service holds up: nothing grows under load, and slow sockets cost the others little.

``make soak`` is the long form.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest

from tests.soak.leaks import leaks_descriptors, leaks_memory, leaks_threads, leaky
from tools.soak.crowd import run_crowd
from tools.soak.soak import Report, Sample, run_soak

SECONDS = 60 if os.environ.get("CI") else 30
LEAKY_SECONDS = 8


@pytest.mark.timeout(180)
def test_nothing_grows_under_steady_load(tmp_path: Path) -> None:
    """All tokens verify; memory, descriptors and threads stay, with a local key and with Vault's."""
    reports = run_soak(SECONDS, tmp_path)
    for report in reports:
        print(report)  # noqa: T201 - its figures
    assert not [fault for report in reports for fault in report.faults]


def test_a_leak_is_noticed(tmp_path: Path) -> None:
    """Services that leak memory, descriptors or threads do not pass, each for its own leak and no other."""
    leaks = {leaks_memory: "memory grew", leaks_descriptors: "descriptors: ", leaks_threads: "threads: "}
    reports = run_soak(LEAKY_SECONDS, tmp_path, {leak.name: partial(leaky, leak) for leak in leaks})
    for report, sign in zip(reports, leaks.values(), strict=True):
        print(report)  # noqa: T201 - its figures
        [fault] = report.faults
        assert fault.startswith(f"{report.name}: {sign}")


@pytest.mark.parametrize(
    ("after", "failures", "faults"),
    [
        (Sample(104.9, 12, 6), [], []),
        (Sample(90.0, 11, 5), [], []),
        (Sample(105.0, 12, 6), [], ["memory grew by 5.0%"]),
        (Sample(100.0, 13, 6), [], ["descriptors: 12, then 13"]),
        (Sample(100.0, 12, 7), [], ["threads: 6, then 7"]),
        (Sample(100.0, 12, 6), ["503: "], ["1 requests failed: ['503: ']"]),
    ],
)
def test_the_limits(after: Sample, failures: list[str], faults: list[str]) -> None:
    """Memory may grow by less than 5 %, descriptors and threads not by one, and no request may fail."""
    report = Report(
        name="s", seconds=600, tokens=9, p99=0.01, failures=failures, before=Sample(100, 12, 6), after=after
    )
    assert report.faults == [f"s: {fault}" for fault in faults]


def test_slow_sockets_do_not_double_the_latency_of_the_others(tmp_path: Path) -> None:
    """500 of them, a byte a second each, in turns with none."""
    report = run_crowd(3, 3, tmp_path)
    print(report)  # noqa: T201 - its figures
    assert not report.faults
