"""What a reader of our pages does, and whether what happens is what the page shows."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from tests.docs.pages import Block, blocks
from tools.support.bounded import HANG_SECONDS
from tools.support.service import BOOT_SECONDS, clean_environment, wait_until

_COMMAND_SECONDS = 30
_STOP_SECONDS = 10  # what docs/getting-started.md promises
_DAY = r"\b(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)\b"
_MONTH = r"\b(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)\b"
_DURATION = r"\b\d+[dhms]\b(?: \d+[dhms]\b)?"  # as our commands write one: 1h 15m
_AXIS = re.compile(rf"^('|\d\d:\d\d|\d+ {_MONTH} \d{{4}})(\s+('|\d\d:\d\d|\d+ {_MONTH}))+$")
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


# --- what the reader does ---------------------------------------------------------------------------


class Terminal:
    """A shell that stays open, so that its variables do."""

    def __init__(self, directory: Path, env: dict[str, str]) -> None:
        self._directory = directory
        self._done = directory / f"done-{id(self)}"
        self._shell = subprocess.Popen(
            ["bash", "-e", "-o", "pipefail", "-s"],
            cwd=directory,
            env=env,
            stdin=subprocess.PIPE,
            text=True,
            start_new_session=True,  # so that what is left in the background can be ended with it
        )

    def run(self, commands: str, within: float = _COMMAND_SECONDS) -> str:
        """Type the commands in; what they print. Fails the test if one of them fails."""
        script, out, err = (self._directory / name for name in ("commands", "out", "err"))
        script.write_text(commands)
        self._done.unlink(missing_ok=True)
        self._type(f". {script} </dev/null >{out} 2>{err}; : >{self._done}\n")
        wait_until(self._is_done, within=within, what=f"these commands end:\n{commands}")
        assert self._shell.poll() is None, f"failed:\n{commands}\n{out.read_text()}\n{err.read_text()}"
        return out.read_text()

    def look(self, command: str) -> tuple[int, str]:
        """Type one command in that may fail; its exit status, and what it prints, errors included."""
        status = self._directory / "status"
        output = self.run(f"{{\n{command.rstrip()}\n}} 2>&1 && echo 0 >{status} || echo $? >{status}")
        return int(status.read_text()), output

    def environment(self) -> dict[str, str]:
        """What a program would get that is started here."""
        entries = self.run("env -0").split("\0")
        return dict(entry.split("=", 1) for entry in entries if entry)

    def close(self) -> None:
        """End the shell, and what was left in its background."""
        assert self._shell.stdin is not None
        try:
            self._shell.stdin.close()
        finally:
            self._shell.wait(_COMMAND_SECONDS)
            if self._signal(signal.SIGTERM):
                try:
                    wait_until(
                        lambda: not self._signal(0), within=_STOP_SECONDS, what="the background is empty"
                    )
                finally:
                    self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> bool:
        """Send a signal to what the shell started; whether there was something."""
        try:
            os.killpg(self._shell.pid, number)
        except ProcessLookupError:
            return False
        return True

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
            ["bash", "-c", f"{make} --old-file=.venv-serve/.installed serve"],
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
        """Whether the page's lines are on the screen; those of several workers come in any order."""
        remaining = self._read()
        for line in lines_of(expected):
            found = next((shown for shown in remaining if same_shape(line, shown)), None)
            if found is None:
                return False
            remaining.remove(found)
        return True

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
            ["curl", "-sf", f"http://localhost:{port}/healthz"],
            check=False,
            capture_output=True,
            timeout=HANG_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return False
    return probe.returncode == 0


# --- what the page shows ------------------------------------------------------------------------------


def lines_of(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def same_shape(expected: str, found: str) -> bool:
    """Whether a line is the page's, but for numbers, lengths, spacing and what an ellipsis shortens.

    An axis of a drawing has as many ticks as there are round times.
    """
    expected, found = (_AXIS.sub(r"\1", line) for line in (expected, found))
    parts = re.split(rf"([\w.-]*…[\w.-]*|{_DAY}|{_MONTH}|{_DURATION}|█+|░+|▓+|\d+|\s+)", expected)
    return re.fullmatch("".join(map(_pattern, parts)), found) is not None


def _pattern(part: str) -> str:
    if "…" in part:
        return ".*"
    for words in (_DAY, _MONTH, _DURATION):
        if re.fullmatch(words, part):
            return words
    if part[:1] in {"█", "░", "▓"}:
        return f"{part[0]}+"
    if part.isdigit():
        return r"\d+"
    return r"\s+" if part.isspace() else re.escape(part)


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


def steps(text: str) -> list[tuple[str, Block | None]]:
    """Each block of commands, with the output that the page shows right after it."""
    found = blocks(text)
    after = [*found[1:], None]
    return [
        (block.text, following if following and following.language in {"json", "text"} else None)
        for block, following in zip(found, after, strict=True)
        if block.language == "sh"
    ]
