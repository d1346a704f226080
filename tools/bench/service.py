"""A server that is measured, ours or another: a process and all that it starts, stopped whatever happens."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Self

import psutil

from tools.support.service import clean_environment, free_port

MINT_REQUEST = '{"sender":"agent://risk"}'
START_SECONDS = 30  # a bound, not the target
STOP_SECONDS = 15
POLL_SECONDS = 0.005  # short beside a start, and long enough to leave it the processor
NOT_NOW = 503  # the one answer that says that a later request may fare better
LOG_TAIL_BYTES = 2000
MIB = 1024 * 1024


class ServerFailed(RuntimeError):
    """The server did not start, did not mint, or ended while it was measured."""


class Server:
    """A running server that is asked on ``port``. Use as a context manager."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], port: int) -> None:
        self.port = port
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the server has stopped
        self._started = time.perf_counter()
        try:
            self._process = psutil.Popen(
                command,
                env=clean_environment(environment),
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                start_new_session=True,  # what it starts is in its group, and can be ended with it
            )
        except OSError as error:
            raise ServerFailed(f"{command[0]} can't be run: {error.strerror}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._process.terminate()
            self._process.wait(STOP_SECONDS)
        except (psutil.NoSuchProcess, psutil.TimeoutExpired):
            pass
        finally:  # on a second Ctrl-C, too
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._log.close()

    def wait_for_first_token(self) -> float:
        """Seconds from the start of the process until it has minted a token."""
        deadline = self._started + START_SECONDS
        while (status := self._mint()) != 200:
            self.check_running()
            if status not in {None, NOT_NOW}:
                raise ServerFailed(f"POST /tokens was answered with {status}:\n{self._read_log()}")
            if time.perf_counter() > deadline:
                raise ServerFailed(f"no token within {START_SECONDS} s:\n{self._read_log()}")
            time.sleep(POLL_SECONDS)
        return time.perf_counter() - self._started

    def check_running(self) -> None:
        """Raise ServerFailed if it has ended."""
        if (status := self._process.poll()) is not None:
            raise ServerFailed(f"the server exited with {status}:\n{self._read_log()}")

    def cpu_seconds(self) -> float:
        """CPU time, user and system, that all its processes have used so far."""
        times = [process.cpu_times() for process in self._tree()]
        return sum(spent.user + spent.system for spent in times)

    def resident_mib(self) -> float:
        """Resident memory of all its processes; what they share counts once for each."""
        return sum(process.memory_info().rss for process in self._tree()) / MIB

    def _tree(self) -> list[psutil.Process]:
        return [self._process, *self._process.children(recursive=True)]

    def _mint(self) -> int | None:
        """Ask for a token; the status, or None if there was no answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=START_SECONDS)
        try:
            connection.request("POST", "/tokens", MINT_REQUEST, {"content-type": "application/json"})
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def _read_log(self) -> str:
        self._log.seek(0)
        return self._log.read()[-LOG_TAIL_BYTES:].decode(errors="replace")


class Service(Server):
    """macp-auth with these variables and so many workers, started as its users start it."""

    def __init__(self, environment: Mapping[str, str], workers: int) -> None:
        port = free_port()
        serve = ["serve", "--port", str(port), "--workers", str(workers)]
        super().__init__([sys.executable, "-m", "macp_auth", *serve], environment, port)
