"""HAProxy in front of replicas, with the configuration that the documentation can show."""

from __future__ import annotations

import csv
import os
import socket
import subprocess
from pathlib import Path
from typing import Self

from tools.support.programs import require_tool
from tools.support.service import free_port, wait_until

CONFIGURATION = Path(__file__).with_name("haproxy.cfg")
SLOTS = ("replica1", "replica2", "replica3", "replica4")
_BACKEND = "macp_auth"
_START_SECONDS = 10
_CHECK_SECONDS = 10  # it takes half a second; a bound for a loaded machine


class HAProxy:
    """A running HAProxy. Use as a context manager; it is gone afterwards, whatever happened."""

    def __init__(self, directory: Path) -> None:
        self._program = require_tool("haproxy", "haproxy")
        self.port, self._admin_port = free_port(), free_port()
        self._log_path = directory / "haproxy.log"

    def __enter__(self) -> Self:
        with self._log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [self._program, "-db", "-f", str(CONFIGURATION)],
                env={**os.environ, "PORT": str(self.port), "ADMIN_PORT": str(self._admin_port)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the drill, which then ends it
            )
        try:
            wait_until(self._answers, within=_START_SECONDS, what="HAProxy answers")
            for slot in SLOTS:
                self.wait_until_out(slot)
        except BaseException as error:
            self.__exit__()
            error.add_note(self._log_path.read_text())
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def take_in(self, slot: str, port: int) -> None:
        """Look for a replica on ``port``, and wait until its readiness checks have let it in."""
        self._tell(f"set server {_BACKEND}/{slot} addr 127.0.0.1 port {port}")
        wait_until(lambda: self._status(slot) == "UP", within=_CHECK_SECONDS, what=f"{slot} is in")

    def wait_until_out(self, slot: str) -> None:
        """Wait until the checks have found that nothing is ready there."""
        wait_until(lambda: self._status(slot) == "DOWN", within=_CHECK_SECONDS, what=f"{slot} is out")

    def count(self, column: str) -> int:
        """A figure of the whole backend, by the name that ``show stat`` has for it."""
        return int(self._statistics("BACKEND")[column])

    def _answers(self) -> bool:
        assert self._process.poll() is None, "HAProxy ended"
        try:
            return self._status(SLOTS[0]) != ""
        except OSError:
            return False

    def _status(self, slot: str) -> str:
        return self._statistics(slot)["status"]

    def _statistics(self, name: str) -> dict[str, str]:
        rows = csv.DictReader(self._tell("show stat").lstrip("# ").splitlines())
        return next(row for row in rows if (row["pxname"], row["svname"]) == (_BACKEND, name))

    def _tell(self, command: str) -> str:
        with socket.create_connection(("127.0.0.1", self._admin_port), timeout=5) as sock:
            sock.sendall(command.encode() + b"\n")
            with sock.makefile() as answer:
                return answer.read()
