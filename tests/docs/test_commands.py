"""The commands of the pages work when they are typed in, in the order of the page."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import PAGES, ROOT, Block, blocks, read
from tests.support.service import BOOT_SECONDS, clean_environment, free_port, wait_until

WALKS = ["README.md", "docs/getting-started.md"]
_COMMAND_SECONDS = 30
_STOP_SECONDS = 10  # what docs/getting-started.md promises
_SERVE = re.compile(r"^((?:\w+=\S+ )*make) serve$")
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


# --- what the reader does ---------------------------------------------------------------------------


class Terminal:
    """A shell that stays open, so that its variables do."""

    def __init__(self, directory: Path, env: dict[str, str]) -> None:
        self._directory = directory
        self._done = directory / f"done-{id(self)}"
        self._shell = subprocess.Popen(
            ["bash", "-e", "-o", "pipefail", "-s"], cwd=directory, env=env, stdin=subprocess.PIPE, text=True
        )

    def run(self, commands: str) -> str:
        """Type the commands in; what they print. Fails the test if one of them fails."""
        script, out, err = (self._directory / name for name in ("commands", "out", "err"))
        script.write_text(commands)
        self._done.unlink(missing_ok=True)
        self._type(f". ./{script.name} </dev/null >{out.name} 2>{err.name}; : >{self._done.name}\n")
        wait_until(self._is_done, within=_COMMAND_SECONDS, what=f"these commands end:\n{commands}")
        assert self._shell.poll() is None, f"failed:\n{commands}\n{out.read_text()}\n{err.read_text()}"
        return out.read_text()

    def environment(self) -> dict[str, str]:
        """What a program would get that is started here."""
        entries = self.run("env -0").split("\0")
        return dict(entry.split("=", 1) for entry in entries if entry)

    def close(self) -> None:
        assert self._shell.stdin is not None
        try:
            self._shell.stdin.close()
        finally:
            self._shell.wait(_COMMAND_SECONDS)

    def _is_done(self) -> bool:
        return self._done.exists() or self._shell.poll() is not None

    def _type(self, line: str) -> None:
        assert self._shell.stdin is not None
        self._shell.stdin.write(line)
        self._shell.stdin.flush()


class ServiceTerminal(Terminal):
    """The terminal in which the service runs, and shows its log as a terminal does."""

    def __init__(self, directory: Path, port: int) -> None:
        super().__init__(directory, {**clean_environment(), "PORT": str(port)})
        self._port = port
        self._service: subprocess.Popen[bytes] | None = None
        self._screen = -1
        self._shown = ""

    def serve(self, make: str) -> None:
        """Run ``make serve``, without what it would install; stops what runs here already, as Ctrl-C does."""
        self.stop()
        self._shown = ""
        self._screen, terminal = os.openpty()
        os.set_blocking(self._screen, False)
        self._service = subprocess.Popen(
            ["bash", "-c", f"{make} --old-file=install serve"],
            cwd=self._directory,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=terminal,
            stderr=terminal,
            start_new_session=True,
        )
        os.close(terminal)
        wait_until(self._answers, within=BOOT_SECONDS, what="the service answers")

    def stop(self) -> None:
        """Press Ctrl-C, and see the service end."""
        if self._service is None:
            return
        os.killpg(self._service.pid, signal.SIGINT)
        begun = time.monotonic()
        try:
            self._service.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self._service.pid, signal.SIGKILL)
            self._service.wait()
            raise
        finally:
            os.close(self._screen)
            self._service = None
        assert time.monotonic() - begun < _STOP_SECONDS
        assert not _listens(self._port)

    def shows(self, expected: str) -> bool:
        """Whether the page's lines are on the screen, in their order."""
        remaining = iter(self._read())
        return all(any(same_shape(line, shown) for shown in remaining) for line in lines_of(expected))

    def close(self) -> None:
        try:
            self.stop()
        finally:
            super().close()

    def _answers(self) -> bool:
        assert self._service is not None
        assert self._service.poll() is None, "\n".join(self._read())
        return _listens(self._port)

    def _read(self) -> list[str]:
        try:
            while chunk := os.read(self._screen, 65536):
                self._shown += chunk.decode()
        except OSError:
            pass  # nothing to read now, or nobody writes any more
        return lines_of(_ANSI.sub("", self._shown))


def _listens(port: int) -> bool:
    try:
        probe = subprocess.run(
            ["curl", "-sf", f"http://localhost:{port}/healthz"], check=False, capture_output=True, timeout=5
        )
    except subprocess.TimeoutExpired:
        return False
    return probe.returncode == 0


# --- what the page shows ------------------------------------------------------------------------------


def lines_of(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def same_shape(expected: str, found: str) -> bool:
    """Whether a line is the page's but for numbers, spacing and what the page shortens with an ellipsis."""
    parts = re.split(r"([\w.-]*…|\d+|\s+)", expected)
    wild = (
        ".*" if part.endswith("…") else r"\d+" if part.isdigit() else r"\s+" if part.isspace() else ""
        for part in parts
    )
    pattern = "".join(special or re.escape(part) for special, part in zip(wild, parts, strict=True))
    return re.fullmatch(pattern, found) is not None


def same_members(expected: Any, found: Any) -> bool:
    """Whether two JSON values have the same members of the same types, in the same order."""
    if isinstance(expected, dict) and isinstance(found, dict):
        return list(expected) == list(found) and all(
            same_members(expected[name], found[name]) for name in expected
        )
    if isinstance(expected, list) and isinstance(found, list):
        return len(expected) == len(found) and all(map(same_members, expected, found))
    return type(expected) is type(found)


def assert_as_shown(shown: Block, output: str) -> None:
    if shown.language == "json":
        assert same_members(json.loads(shown.text), json.loads(output))
    else:
        expected, found = lines_of(shown.text), lines_of(output)
        assert len(expected) == len(found), output
        for expected_line, found_line in zip(expected, found, strict=True):
            assert same_shape(expected_line, found_line), f"page: {expected_line}\nreal: {found_line}"


def steps(page: str) -> list[tuple[str, Block | None]]:
    """Each block of commands, with the output that the page shows right after it."""
    found = blocks(read(page))
    after = [*found[1:], None]
    return [
        (block.text, following if following and following.language in {"json", "text"} else None)
        for block, following in zip(found, after, strict=True)
        if block.language == "sh"
    ]


# --- the tests ------------------------------------------------------------------------------------------


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A directory where the commands find what they need, and can leave what they like."""
    (tmp_path / ".venv").symlink_to(sys.prefix)
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
def client_terminal(checkout: Path) -> Iterator[Terminal]:
    terminal = Terminal(checkout, clean_environment())
    yield terminal
    terminal.close()


needs_shell_tools = pytest.mark.skipif(
    not all(map(shutil.which, ("bash", "curl", "make"))), reason="the pages use bash, curl and make"
)


@needs_shell_tools
@pytest.mark.parametrize("page", WALKS)
def test_a_reader_who_follows_the_page_gets_what_it_shows(
    page: str, service_terminal: ServiceTerminal, client_terminal: Terminal, port: int
) -> None:
    """Every command of the page exits 0, in order, and prints what the page shows in shape."""
    for commands, shown in steps(page):
        *before, last = commands.rstrip().splitlines()
        if serve := _SERVE.match(last):
            service_terminal.run("\n".join(before))
            service_terminal.serve(serve[1])
            if shown:
                wait_until(
                    lambda s=shown: service_terminal.shows(s.text), within=BOOT_SECONDS, what=shown.text
                )
        elif re.fullmatch(r"make [a-z]+", commands.strip()):
            assert commands.split()[1] in _make_targets()
        else:
            output = client_terminal.run(commands.replace("localhost:3200", f"localhost:{port}"))
            if shown:
                assert_as_shown(shown, output)


def _make_targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", read("Makefile"), re.MULTILINE))


def test_commands_are_written_so_that_these_tests_see_them() -> None:
    """No page has commands under another name of the shell, which the walk would pass by."""
    languages = {block.language for page in PAGES for block in blocks(page.read_text(encoding="utf-8"))}
    assert languages.isdisjoint({"bash", "shell", "console", "zsh"})
    for page in WALKS:
        assert steps(page)


def test_the_contributors_table_lists_the_make_targets() -> None:
    """CONTRIBUTING.md names every target of the Makefile, and no other."""
    named = set(re.findall(r"^\| `make ([a-z]+)`", read("CONTRIBUTING.md"), re.MULTILINE))
    assert named == _make_targets() - {"help", "install"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_shows_a_whole_token_or_a_private_key(page: Path) -> None:
    """Tokens and keys are shortened, so that nobody copies one and no scanner finds one."""
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"eyJ[\w-]+\.[\w-]+\.[\w-]+", text)
    assert not re.search(r"\"d\"\s*:", text)


@pytest.mark.parametrize(
    ("expected", "found"),
    [("ok  exp  in 5 s", "ok exp in 3599 s"), ('"kid":"4oVA…"', '"kid":"zz-9_Q"')],
)
def test_shapes_may_differ_in_numbers_spacing_and_what_is_shortened(expected: str, found: str) -> None:
    """A page need not be run again for each new token."""
    assert same_shape(expected, found)


@pytest.mark.parametrize(("expected", "found"), [("ok  alg", "BAD  alg"), ("ok  sub", "ok  sub  x")])
def test_shapes_may_not_differ_in_words(expected: str, found: str) -> None:
    """What the page says happens is what happens."""
    assert not same_shape(expected, found)
