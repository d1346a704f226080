"""The service that is measured: started as its users start it, and always stopped."""

from __future__ import annotations

import http.client
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Self

import psutil
from tests.support.service import clean_environment, free_port

MINT_REQUEST = '{"sender":"agent://risk"}'
START_SECONDS = 30  # a bound, not the target
STOP_SECONDS = 15
POLL_SECONDS = 0.005  # short beside a start, and long enough to leave it the processor
MIB = 1024 * 1024


class ServiceFailed(RuntimeError):
    """The service did not start."""


class Service:
    """A running service with these variables. Use as a context manager."""

    def __init__(self, environment: Mapping[str, str], workers: int) -> None:
        self.port = free_port()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the service has stopped
        self._started = time.perf_counter()
        self._process = psutil.Popen(
            [sys.executable, "-m", "macp_auth", "serve", "--port", str(self.port), "--workers", str(workers)],
            env=clean_environment(environment),
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._stop()
        self._log.close()

    def wait_for_first_token(self) -> float:
        """Seconds from the start of the process until it has minted a token."""
        deadline = self._started + START_SECONDS
        while not self._mints():
            if (status := self._process.poll()) is not None:
                raise ServiceFailed(f"the service exited with {status}:\n{self._read_log()}")
            if time.perf_counter() > deadline:
                raise ServiceFailed(f"no token within {START_SECONDS} s:\n{self._read_log()}")
            time.sleep(POLL_SECONDS)
        return time.perf_counter() - self._started

    def cpu_seconds(self) -> float:
        """CPU time, user and system, that all its processes have used so far."""
        times = [process.cpu_times() for process in self._tree()]
        return sum(spent.user + spent.system for spent in times)

    def resident_mib(self) -> float:
        """Resident memory of all its processes; what workers share counts once for each."""
        return sum(process.memory_info().rss for process in self._tree()) / MIB

    def _stop(self) -> None:
        processes = self._tree()  # listed first: workers can't be found once their parent is gone
        self._process.terminate()
        _, stubborn = psutil.wait_procs(processes, timeout=STOP_SECONDS)
        for process in stubborn:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()

    def _tree(self) -> list[psutil.Process]:
        return [self._process, *self._process.children(recursive=True)]

    def _mints(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=START_SECONDS)
        try:
            connection.request("POST", "/tokens", MINT_REQUEST, {"content-type": "application/json"})
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _read_log(self) -> str:
        self._log.seek(0)
        return self._log.read().decode(errors="replace")
