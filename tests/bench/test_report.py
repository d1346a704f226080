"""What the benchmarks make of their figures: targets, gains, tables, charts, the block of a page."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

from macp_auth.domain.keys import Algorithm
from tests.bench import samples
from tools.bench import chart, report
from tools.bench.command import fill
from tools.bench.figures import Spread
from tools.bench.growth import chart as growth_chart
from tools.bench.growth import report as growth_report
from tools.bench.growth.series import SERIES
from tools.bench.load import Load
from tools.bench.scaling import gain
from tools.bench.targets import judge_scaling, judge_service

_SVG = "{http://www.w3.org/2000/svg}"
RS256, ES256 = Algorithm.RS256, Algorithm.ES256


@pytest.mark.parametrize(
    ("algorithm", "medians", "missed"),
    [
        (RS256, {}, []),
        (RS256, {"cpu_to_bare": 1.25, "jwks_cpu_us": 50, "first_token_ms": 1000, "resident_mib": 70}, []),
        (RS256, {"cpu_to_bare": 1.26}, ["RS256, jwk-file: CPU per token : bare signature"]),
        (ES256, {"cpu_to_bare": 3.33}, []),
        (ES256, {"cpu_to_bare": 3.34}, ["ES256, jwk-file: CPU per token : bare signature"]),
        (ES256, {"jwks_cpu_us": 51}, ["ES256, jwk-file: CPU per JWKS request, us"]),
        (ES256, {"first_token_ms": 1001}, ["ES256, jwk-file: first token, ms"]),
        (ES256, {"resident_mib": 70.1}, ["ES256, jwk-file: resident memory, MiB"]),
    ],
)
def test_a_missed_target_differs_from_a_met_one(
    algorithm: Algorithm, medians: dict[str, float], missed: list[str]
) -> None:
    """Each target is judged by the median of its own figure."""
    verdicts = judge_service(algorithm, "jwk-file", samples.figures(**medians))
    assert [verdict.target for verdict in verdicts if not verdict.met] == missed


@pytest.mark.parametrize(
    ("found", "workers", "cores", "met"),
    [(1.8, 2, 2, [True]), (1.79, 2, 2, [False]), (1.0, 2, 1, []), (1.0, 3, 4, [])],
)
def test_the_gain_has_a_target_where_two_workers_have_two_cores(
    found: float, workers: int, cores: int, met: list[bool]
) -> None:
    """On a single core, two workers gain nothing, and that is not a fault."""
    scaling = {ES256: {"gain": Spread(found, 0, 9)}}
    verdicts = judge_scaling(scaling, workers=workers, cores=cores)
    assert [verdict.met for verdict in verdicts] == met


def load(per_second: int, cores: float) -> Load:
    """A second's load that took so many cores itself."""
    return Load(per_second, 1_000_000, round(cores * 1e6), p50_us=1, p99_us=1, non_2xx=0, socket_errors=0)


@pytest.mark.parametrize(
    ("many", "cores", "expected"),
    [
        (load(2000, cores=0), 2, 2.0),  # nothing was missing to them
        (load(1800, cores=0.2), 2, 2.0),  # what is missing is what the load took
        (load(1800, cores=0), 2, 1.8),  # what is missing is their own
        (load(2000, cores=0.2), 4, 2.0),  # the load had cores of its own
        (load(900, cores=0.1), 1, 1.0),  # there is one core, and it is shared
    ],
)
def test_a_gain_gives_back_what_the_load_took(many: Load, cores: int, expected: float) -> None:
    """Two workers on two cores with the load beside them can't make twice the tokens, but twice per core."""
    one = load(1000, cores=0.1) if cores > 1 else load(900, cores=0.1)
    assert gain(one, many, workers=2, cores=cores) == pytest.approx(expected)


def test_tables_show_the_median_and_the_range_of_what_was_measured() -> None:
    """A figure that another server does not have has no row in its table."""
    ours, beside, workers = report.tables(samples.bench_report())
    labels = [row.label for row in report.ROWS]
    assert [row[0] for row in ours.cells] == ["", *labels]
    assert ["CPU per token, us", "400 (360 to 440)"] in ours.cells
    assert [row[0] for row in beside.cells] == [
        "",
        *(row.label for row in report.ROWS if row.figure not in samples.OF_OURS_ONLY),
    ]
    assert [row[0] for row in workers.cells] == ["", *(row.label for row in report.SCALING_ROWS)]


def test_text_ends_with_the_verdicts() -> None:
    """They are what --target-check was given for."""
    verdict = next(judge_service(RS256, "jwk-file", samples.figures(cpu_to_bare=2)))
    assert str(verdict) == "MISSED  RS256, jwk-file: CPU per token : bare signature: 2.00, at most 1.25"


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(svg).iter(f"{_SVG}text")]  # noqa: S314 - our own


def test_the_chart_names_each_subject_and_writes_its_median() -> None:
    """Also one whose name is no XML."""
    found = texts(chart.draw(samples.bench_report(peer="a < b")))
    assert {"bare signature", "macp-auth, jwk-file", "a < b", "300", "400", "800"} <= set(found)
    assert any("Z80 <overclocked>" in text for text in found)


def test_bars_are_as_long_as_their_figures() -> None:
    """From zero: twice the cost is twice the bar. Ours begins with its signature."""
    root = ET.fromstring(chart.draw(samples.bench_report()))  # noqa: S314 - our own
    bars = [bar for bar in root.iter(f"{_SVG}rect") if bar.get("height") == "14.0"]
    widths = [(bar.get("class"), float(bar.get("width", ""))) for bar in bars if bar.get("x") == "190.0"]
    bare, ours, its_signature, peer = widths
    assert [bare[0], ours[0], its_signature[0], peer[0]] == ["signature", "ours", "signature", "other"]
    assert [each[1] / peer[1] for each in (bare, ours, its_signature)] == [
        pytest.approx(share, abs=0.01) for share in (3 / 8, 4 / 8, 3 / 8)
    ]


def test_nothing_in_a_chart_lies_outside_of_it() -> None:
    """With any figures."""
    for svg in (chart.draw(samples.bench_report()), growth_chart.draw(samples.growth_report())):
        root = ET.fromstring(svg)  # noqa: S314 - our own
        width, height = map(float, root.get("viewBox", "").split()[2:])
        points = re.findall(r"([\d.-]+),([\d.-]+)", " ".join(each.get("points", "") for each in root.iter()))
        points += [(x, y) for each in root.iter() if (x := each.get("x")) and (y := each.get("y"))]
        assert len(points) > 20
        assert all(0 <= float(x) <= width and 0 <= float(y) <= height for x, y in points)


def test_the_chart_of_growth_has_a_panel_for_each_series() -> None:
    """With its sizes below, and its slope above."""
    report_ = samples.growth_report()
    found = texts(growth_chart.draw(report_))
    for name, series in SERIES.items():
        assert f"{series.name}: {series.rows[0].label}" in found
        assert growth_report.slope_line(name, report_.series[name]) in found
        assert {f"{size:,}" for size in series.sizes} <= set(found)


def test_a_block_of_a_page_is_replaced_and_nothing_else() -> None:
    """Figures are written by the tool that measured them; what is said of them stays."""
    page = "Before.\n\n<!-- bench: begin -->\n\nold\n\n<!-- bench: end -->\n\nAfter.\n"
    assert fill(page, "bench", r"new \1") == page.replace("old", r"new \1")
    assert fill(fill(page, "bench", "new"), "bench", "old") == page
    with pytest.raises(ValueError, match="the page has no <!-- growth: begin -->"):
        fill(page, "growth", "new")
