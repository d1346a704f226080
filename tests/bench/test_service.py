"""A server that is measured is watched and stopped with all that it started."""

from __future__ import annotations

import sys

import psutil

from tests.bench.command import PEER
from tools.bench.service import Server
from tools.support.processes import all_gone
from tools.support.service import free_port, wait_until


def test_what_a_server_started_is_measured_and_stopped_with_it() -> None:
    """A peer behind a shell or a package manager leaves nothing behind, though that passes no signal on."""
    port = free_port()
    environment = {"PORT": str(port), "GREETING": "good day"}
    with Server([sys.executable, str(PEER), "hides"], environment, port) as server:
        server.wait_for_first_token()
        family = [
            child for child in psutil.Process().children(recursive=True) if str(PEER) in child.cmdline()
        ]
        assert len(family) == 2
        assert server.resident_mib() > sum(each.memory_info().rss for each in family) / 2**20 * 0.9
        assert server.cpu_seconds() > 0
    wait_until(lambda: all_gone(family), within=5, what="both are gone")
