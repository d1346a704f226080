"""``make bench`` measures what it says it measures; how fast is not for a test to say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.run import Figures
from benchmarks.targets import judge

from macp_auth.domain.keys import Algorithm
from tests.support.service import clean_environment
from tests.support.tools import require_tool


def bench(directory: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.bench", *arguments],
        cwd=directory,
        env={**clean_environment(), **environment},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def test_a_short_bench_has_every_figure_and_no_failed_request(pytestconfig: pytest.Config) -> None:
    require_tool("wrk", "wrk")
    done = bench(pytestconfig.rootpath, "--seconds", "1", "--runs", "1", "--alg", "ES256", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert list(report["algorithms"]) == ["ES256"]
    summary = report["algorithms"]["ES256"]
    assert summary["non_2xx"] == summary["socket_errors"] == 0
    for figures in (summary["median"], summary["low"], summary["high"], summary["runs"][0]["figures"]):
        assert set(figures) == set(Figures.__struct_fields__)
        assert all(value > 0 for value in figures.values()), figures


def test_without_wrk_it_says_what_to_install(pytestconfig: pytest.Config, tmp_path: Path) -> None:
    done = bench(pytestconfig.rootpath, PATH=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr == "bench: wrk is not installed; it is in Debian's package `wrk`\n"


def figures(*, cpu_to_bare: float, resident_mib: float) -> Figures:
    others = dict.fromkeys(Figures.__struct_fields__, 1.0)
    return Figures(**{**others, "cpu_to_bare": cpu_to_bare, "resident_mib": resident_mib})


def test_a_missed_target_is_told_apart_from_a_met_one() -> None:
    same = figures(cpu_to_bare=1.5, resident_mib=79)
    verdicts = judge({Algorithm.RS256: same, Algorithm.ES256: same}, workers=1)
    assert [verdict.target for verdict in verdicts if not verdict.met] == [
        "RS256: CPU per token : bare signature"
    ]


def test_memory_has_a_target_for_one_worker_only() -> None:
    large = {Algorithm.RS256: figures(cpu_to_bare=1, resident_mib=200)}
    assert not all(verdict.met for verdict in judge(large, workers=1))
    assert all(verdict.met for verdict in judge(large, workers=2))
