"""The commands of the pages work when they are typed in, in the order of the page."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, ROOT, blocks, read
from tests.docs.terminal import ServiceTerminal, Terminal, assert_as_shown, same_shape, steps
from tools.support.programs import require_tools
from tools.support.service import BOOT_SECONDS, clean_environment, free_port, wait_until

WALKS = ["README.md", "docs/getting-started.md", "docs/index.md"]
_SERVE = re.compile(r"^((?:\w+=\S+ )*make) serve$")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A directory where the commands find what they need, and can leave what they like."""
    (tmp_path / ".venv-serve").symlink_to(sys.prefix)
    (tmp_path / "Makefile").symlink_to(ROOT / "Makefile")
    return tmp_path


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def service_terminal(checkout: Path, port: int) -> Iterator[ServiceTerminal]:
    terminal = ServiceTerminal(checkout, port)
    yield terminal
    terminal.close()


@pytest.fixture
def client_terminal(checkout: Path, port: int) -> Iterator[Terminal]:
    terminal = Terminal(checkout, clean_environment({"MACP_AUTH_SERVICE_URL": f"http://localhost:{port}"}))
    yield terminal
    terminal.close()


@pytest.fixture
def shell_tools() -> None:
    """What the page's commands call."""
    require_tools("bash", "curl", "make")


@pytest.mark.usefixtures("shell_tools")
@pytest.mark.parametrize("page", WALKS)
def test_a_reader_who_follows_the_page_gets_what_it_shows(
    page: str, service_terminal: ServiceTerminal, client_terminal: Terminal, port: int
) -> None:
    """Every command of the page exits 0, in order, and prints what the page shows in shape."""
    for commands, shown in steps(read(page)):
        *before, last = commands.rstrip().splitlines()
        if serve := _SERVE.match(last):
            service_terminal.run("\n".join(before))
            service_terminal.serve(serve[1])
            if shown:
                wait_until(
                    lambda s=shown: service_terminal.shows(s.text), within=BOOT_SECONDS, what=shown.text
                )
        elif re.fullmatch(r"make [a-z-]+", commands.strip()):
            assert commands.split()[1] in _make_targets()
        else:
            output = client_terminal.run(commands.replace("localhost:3200", f"localhost:{port}"))
            if shown:
                assert_as_shown(shown, output)


def test_an_environment_without_pip_is_completed(tmp_path: Path) -> None:
    """Debian without python3-venv leaves one at the first try; after its installation, the next try works."""
    for path in ("Makefile", "requirements", "pyproject.toml"):
        (tmp_path / path).symlink_to(ROOT / path)
    fake = tmp_path / ".venv-serve/bin/python"
    fake.parent.mkdir(parents=True)
    fake.write_text('#!/bin/sh\necho "$@" >>calls\n')
    fake.chmod(0o755)
    subprocess.run(
        ["make", ".venv-serve/.installed", f"PYTHON={fake}"], cwd=tmp_path, capture_output=True, check=True
    )
    assert "-m venv .venv-serve" in (tmp_path / "calls").read_text().splitlines()


def test_a_start_is_shown_until_the_service_is_ready() -> None:
    """A reader who compares the last lines sees that nothing is missing."""
    starts = [block.text for block in blocks(read("docs/getting-started.md")) if "signing key" in block.text]
    assert len(starts) == 3
    assert [text.split()[-1] for text in starts] == ["ready"] * 3


def _make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", read("Makefile"), re.MULTILINE))


def test_commands_are_written_so_that_these_tests_see_them() -> None:
    """No page has commands under another name of the shell, which the walk would pass by."""
    languages = {block.language for page in PAGES for block in blocks(page.read_text(encoding="utf-8"))}
    assert languages.isdisjoint({"bash", "shell", "console", "zsh"})
    for page in WALKS:
        assert steps(read(page))


def test_the_contributors_table_lists_the_make_targets() -> None:
    """CONTRIBUTING.md names every target of the Makefile, and no other."""
    named = set(re.findall(r"^\| `make ([a-z-]+)`", read("CONTRIBUTING.md"), re.MULTILINE))
    assert named == _make_targets() - {"help", "install"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_shows_a_whole_token_or_a_private_key(page: Path) -> None:
    """Tokens and keys are shortened, so that nobody copies one and no scanner finds one."""
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"eyJ[\w-]+\.[\w-]+\.[\w-]+", text)
    assert not re.search(r"\"d\"\s*:", text)


@pytest.mark.parametrize(
    ("expected", "found"),
    [
        ("ok  exp  in 5 s", "ok exp in 3599 s"),
        ('"kid":"4oVA…"', '"kid":"zz-9_Q"'),
        ("signs 2026-11-23T00:51:48Z (in 1h 15m)", "signs 2027-01-01T10:00:00Z (in 9s)"),
    ],
)
def test_shapes_may_differ_in_numbers_times_spacing_and_what_is_shortened(expected: str, found: str) -> None:
    """A page need not be run again for each new token."""
    assert same_shape(expected, found)


@pytest.mark.parametrize(
    ("expected", "found"), [("ok  alg", "BAD  alg"), ("ok  sub", "ok  sub  x"), ("in 1h 15m", "in 15 m")]
)
def test_shapes_may_not_differ_in_words(expected: str, found: str) -> None:
    """What the page says happens is what happens."""
    assert not same_shape(expected, found)
