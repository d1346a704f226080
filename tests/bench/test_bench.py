"""``make bench`` measures what it says it measures; how fast is not for a test to say."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import psutil
import pytest

from tests.bench.command import SHORT, call, call_short, with_peer
from tests.docs.pages import ROOT
from tools.bench.run import Figures
from tools.bench.scaling import Scaling
from tools.support.processes import all_gone
from tools.support.programs import require_tool
from tools.support.service import clean_environment, wait_until

BENCH = "tools.bench"
OF_OURS_ONLY = {"bare_us", "cpu_to_bare", "jwks_cpu_us"}


@pytest.fixture(autouse=True)
def wrk() -> None:
    require_tool("wrk", "wrk")


def test_a_short_bench_has_every_figure_and_no_failed_request(tmp_path: Path) -> None:
    """The service, the bare route, and a peer that hides in a child are measured; there is a chart of it."""
    chart = tmp_path / "chart.svg"
    done = call_short(BENCH, "--json", "--svg", str(chart), *with_peer("hides"))
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["failed"] == 0
    ours, route, peer = report["subjects"]
    assert (ours["group"], ours["name"]) == ("ES256", "ephemeral")
    assert (route["name"], peer["name"]) == ("bare Litestar route", "peer")
    every = set(Figures.__struct_fields__)
    assert (set(ours["figures"]), set(route["figures"])) == (every, every - OF_OURS_ONLY)
    assert set(peer["figures"]) == every - OF_OURS_ONLY
    assert set(report["scaling"]["ES256"]) == set(Scaling.__struct_fields__)
    for figures in (*(each["figures"] for each in report["subjects"]), report["scaling"]["ES256"]):
        assert all(0 < each["low"] <= each["median"] <= each["high"] for each in figures.values()), figures
    assert {"macp-auth, ephemeral", "bare Litestar route", "peer"} <= {
        element.text
        for element in ET.fromstring(chart.read_text()).iter()  # noqa: S314 - our own
    }


@pytest.mark.parametrize(
    ("way", "complaint"),
    [
        ("refuses", "bench: POST /tokens was answered with 500:"),
        ("dies", "bench: the server exited with 3:"),
        ("tires", "bench: the server exited with 3:"),
    ],
)
def test_a_peer_that_does_not_mint_ends_the_bench_with_what_it_did(way: str, complaint: str) -> None:
    """It is checked before the measurement, and again after its load."""
    done = call_short(BENCH, *with_peer(way))
    assert done.returncode == 1
    assert complaint in done.stderr
    assert done.stdout == ""


def test_a_peer_that_can_not_be_run_is_named() -> None:
    """A mistyped command is no traceback."""
    done = call_short(BENCH, "--peer", "no-such-program --fast")
    assert done.returncode == 1
    assert "bench: no-such-program can't be run: No such file or directory" in done.stderr


def test_without_wrk_it_says_what_to_install(tmp_path: Path) -> None:
    """The one tool that it needs is named, with its package."""
    done = call(BENCH, PATH=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr == "bench: wrk is not installed; it is in Debian's package `wrk`\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_bench_leaves_no_process(number: signal.Signals) -> None:
    """Ctrl-C under load stops the load and the service, in a shell that signals only the bench, too."""
    bench = subprocess.Popen(
        [sys.executable, "-m", BENCH, *SHORT[BENCH], "--seconds", "60"],
        cwd=ROOT,
        env=clean_environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    with bench:
        process = psutil.Process(bench.pid)
        wait_until(
            lambda: "wrk" in {child.name() for child in process.children()}, within=30, what="there is load"
        )
        started = process.children(recursive=True)
        assert len(started) >= 2
        bench.send_signal(number)
        assert bench.wait(30) == 130
        assert bench.stderr is not None
        assert bench.stderr.read().endswith("bench: interrupted; what was started is stopped\n")
        assert all_gone(started)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--seconds", "0"), "must be a whole number from 1 to 3600"),
        (("--peer-env", "NAME"), "must be NAME=VALUE"),
        (("--svg", "no/such/directory/chart.svg"), "there is no directory no/such/directory"),
        (("--page", "no-such-page.md"), "there is no page no-such-page.md"),
        (("--json", "--markdown"), "not allowed with"),
    ],
)
def test_options_are_refused_before_anything_is_measured(options: tuple[str, ...], complaint: str) -> None:
    """Minutes of measuring are not lost to a typing error."""
    done = call(BENCH, *options)
    assert done.returncode == 2
    assert complaint in done.stderr
