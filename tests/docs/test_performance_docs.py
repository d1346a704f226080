"""docs/performance.md: its commands run, and its tables and charts are those that they make."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from macp_auth.domain.keys import Algorithm
from tests.bench import samples
from tests.bench.command import PEER, call_short
from tests.docs.pages import ROOT, blocks, plain, read, rows, section
from tests.docs.terminal import lines_of
from tools.bench import callers, credentials, plugins
from tools.bench.command import fill
from tools.bench.growth import report as growth_report
from tools.bench.growth.series import SERIES
from tools.bench.report import ROWS, tables
from tools.bench.subjects import BESIDE, SIGNERS
from tools.bench.tables import Row
from tools.bench.targets import judge_scaling, judge_service
from tools.bench.vault.measure import JWKS_ALGORITHM, KEY_TYPES
from tools.bench.vault.report import READING_ROWS, READING_TITLE, SIGNING_ROWS
from tools.support.programs import require_tool

PAGE = read("docs/performance.md")
COMMANDS = [line for block in blocks(PAGE) if block.language == "sh" for line in lines_of(block.text)]
STAND_IN = shlex.join([sys.executable, str(PEER), "mints"])


def block(name: str) -> str:
    """What the tool wrote into the page."""
    found = re.search(f"(?s)<!-- {name}: begin -->(.*)<!-- {name}: end -->", PAGE)
    assert found
    return found[1]


def titles(text: str) -> list[str]:
    return re.findall(r"^\*\*(.+)\*\*$", text, re.MULTILINE)


def headings(text: str) -> list[list[str]]:
    """The first row of each table."""
    lines = re.findall(r"^\|(.*)\|\n\|---", text, re.MULTILINE)
    return [[cell.strip() for cell in line.split("|")] for line in lines]


def recipe(command: str) -> list[list[str]]:
    """What make runs: a module of ours and its arguments, for each line."""
    make, target, *variables = shlex.split(command)
    assert make == "make"
    arguments = dict(each.split("=", 1) for each in variables)
    lines = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", read("Makefile"), re.MULTILINE)
    assert lines, f"the Makefile has no {target}"
    expanded = lines[1].replace("$(BENCH_ARGS)", arguments.get("BENCH_ARGS", ""))
    return [shlex.split(line.removeprefix("$(BIN)/python -m ")) for line in lines_of(expanded)]


def elsewhere(argument: str, directory: Path) -> str:
    """The argument, or another file for the one that it names: a test writes nothing into the repository."""
    if argument.endswith(".svg"):
        return str(directory / Path(argument).name)
    if argument.endswith(".md"):
        return str(shutil.copy(ROOT / argument, str(directory)))
    return argument.replace("node dist/index.js", STAND_IN)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_runs_in_a_shortened_form(command: str, tmp_path: Path) -> None:
    """With the page's own options, with less time and fewer subjects; and it writes the requested files."""
    require_tool("wrk", "wrk")
    for module, *options in recipe(command):
        arguments = [elsewhere(option, tmp_path) for option in options]
        if "--peer" in arguments:
            arguments += ["--peer-env", "GREETING=good day"]
        done = call_short(module, *arguments)
        assert done.returncode == 0 or "\nMISSED" in done.stdout, done.stderr
        for name in filter(lambda each: each.endswith(".svg"), arguments):
            assert "</svg>" in Path(name).read_text(encoding="utf-8")
        for name in filter(lambda each: each.endswith(".md"), arguments):
            assert_block_written(Path(name), module.rpartition(".")[2])


def assert_block_written(page: Path, name: str) -> None:
    written = page.read_text(encoding="utf-8")
    assert written != PAGE
    assert fill(written, name, "") == fill(PAGE, name, "")


def test_the_figures_have_the_labels_that_the_bench_gives_them() -> None:
    """Every algorithm, signer and figure is there, in tables that the bench could have written today."""
    found = block("bench")
    assert titles(found) == [*Algorithm, BESIDE, tables(samples.bench_report())[-1].title]
    *services, beside, workers = headings(found)
    assert services == [["", *SIGNERS]] * len(Algorithm)
    assert beside[:2] == ["", "bare Litestar route"]
    assert workers == ["", *Algorithm]
    expected = [row[0] for each in tables(samples.bench_report()) for row in each.cells[1:]]
    of_one_service = [row.label for row in ROWS]
    assert [row[0] for row in rows(found)] == of_one_service * (len(Algorithm) - 1) + expected


def test_the_growth_has_the_labels_that_its_bench_gives_it() -> None:
    """Every series, size and figure, and a slope for each."""
    found = block("growth")
    every = list(SERIES.values())
    assert titles(found) == [series.name for series in every]
    assert headings(found) == [["", *map(label_of, series.rows)] for series in every]
    assert [row[0] for row in rows(found)] == [f"{size:,}" for series in every for size in series.sizes]
    begins = [growth_report.slope_line(name, samples.growth_report().series[name])[:30] for name in SERIES]
    slopes = [line for line in lines_of(found) if line.startswith("Slope")]
    assert [slope[:30] for slope in slopes] == begins


def test_the_figures_of_vault_have_the_labels_that_their_bench_gives_them() -> None:
    """Each figure for each algorithm, and how the JWKS fares."""
    found = block("vault")
    assert headings(found) == [["", *KEY_TYPES], ["", JWKS_ALGORITHM]]
    assert titles(found)[-1] == READING_TITLE
    assert [row[0] for row in rows(found)] == [row.label for row in (*SIGNING_ROWS, *READING_ROWS)]


def test_the_figures_of_callers_have_the_labels_that_their_bench_gives_them() -> None:
    """Each form of grants and each number of them; and the targets are those of the test."""
    found = block("callers")
    assert titles(found) == [*callers.GRANTS, credentials.TITLE]
    files = [["", *map(label_of, callers.ROWS)]] * len(callers.GRANTS)
    assert headings(found) == [*files, ["", *map(label_of, credentials.ROWS)]]
    sizes = [f"{size:,}" for size in callers.SIZES] * len(callers.GRANTS)
    assert [row[0] for row in rows(found)] == [*sizes, *credentials.NAMES]
    bounds = f"{callers.MOST_LOAD_SECONDS} s for {callers.SIZES[-1]:,} grants", f"{callers.MOST_DECIDE_US} us"
    assert all(bound in section(PAGE, "Callers") for bound in bounds)


def test_the_figures_of_plugins_have_the_labels_that_their_bench_gives_them() -> None:
    """Each concurrency and place, and the starts; and the bounds are those of the test."""
    found = block("plugins")
    assert titles(found) == [*plugins.CONCURRENCIES.values(), plugins.START_TITLE]
    places = [["", plugins.IN_PROCESS, plugins.HOSTED]] * len(plugins.CONCURRENCIES)
    assert headings(found) == [*places, ["", plugins.BUILT_IN, plugins.PLUGIN]]
    signatures = [*map(label_of, plugins.SIGNATURE_ROWS)] * len(plugins.CONCURRENCIES)
    assert [row[0] for row in rows(found)] == [*signatures, *map(label_of, plugins.START_ROWS)]
    bounds = (
        f"{plugins.MOST_MORE_CPU_US} us more",
        f"{plugins.BARE_US} us: {plugins.MOST_MORE_CPU:.1f} bare signatures",
        f"{plugins.MOST_MORE_P50_MS} ms more",
        f"{plugins.MOST_START_RATIO} times",
    )
    assert all(bound in plain(section(PAGE, "Plugins")) for bound in bounds)


def label_of(row: Row) -> str:
    return row.label


def test_the_targets_are_those_that_are_checked() -> None:
    """Each figure that has a target, with its limit for each algorithm."""
    limits: dict[str, list[str]] = {}
    for algorithm in Algorithm:
        scaling = judge_scaling({algorithm: samples.figures(gain=1)}, workers=2, cores=2)
        for verdict in (*judge_service(algorithm, "", samples.figures()), *scaling):
            limits.setdefault(verdict.target.split(": ", 1)[1], []).append(verdict.limit)
    assert rows(section(PAGE, "Targets")) == [[figure, *limit] for figure, limit in limits.items()]


@pytest.mark.parametrize(("chart", "name"), [("performance", "bench"), ("performance-growth", "growth")])
def test_the_charts_are_of_the_run_that_the_tables_are_of(chart: str, name: str) -> None:
    """Both were written by one command: the machine, its load and each median are the same."""
    svg = read(f"docs/{chart}.svg")
    about = lines_of(block(name))[0].removesuffix(".")
    assert f">{about}<" in svg
    drawn = {"bench": {"CPU per token, us", "tokens/s"}, "growth": {"1", "100"}}[name]
    medians = [row[1].split(" (")[0] for row in rows(block(name)) if plain(row[0]) in drawn]
    assert medians
    assert all(f">{median}<" in svg for median in medians)
