"""Tokens from the real service, whose workers sign on a real PKCS#11 module."""

from __future__ import annotations

import json
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

pytestmark = pytest.mark.slow  # services of their own

if TYPE_CHECKING:  # importable by mypy only: pytest imports each test file apart
    from conftest import Serving, SoftHSM


@pytest.mark.parametrize("key_type", ["rsa:2048", "EC:prime256v1"])
def test_service_mints(hsm: SoftHSM, serving: Serving, tmp_path: Path, key_type: str) -> None:
    """Tokens from the token verify, the service ends cleanly, and its log is JSON without the PIN."""
    hsm.generate("macp", "01", key_type)
    with serving(hsm, tmp_path) as service, ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(service.mint, range(64)))) == 1
    assert service.process.returncode == 0
    log = service.log.read_text()
    assert hsm.pin not in log
    assert [json.loads(line) for line in log.splitlines()]


@pytest.mark.skipif(
    os.geteuid() != 0, reason="a service hides its memory from its own user: run the tests as root"
)
def test_workers_sign_with_the_same_keys(hsm: SoftHSM, serving: Serving, tmp_path: Path) -> None:
    """Two worker processes, each with a session of its own, publish and sign alike."""
    hsm.generate("macp", "01")
    with serving(hsm, tmp_path, "--workers", "2") as service:

        def loaded_in() -> list[int]:
            processes = psutil.Process(service.process.pid).children(recursive=True)
            return [
                process.pid
                for process in processes
                if any("softhsm" in region.path for region in process.memory_maps())
            ]

        service.eventually(lambda: len(loaded_in()) == 2)
        parent = psutil.Process(service.process.pid).memory_maps()
        assert not any("softhsm" in region.path for region in parent)
        with ThreadPoolExecutor(8) as pool:
            minted = Counter(pool.map(service.mint, range(64)))
        assert minted.keys() == service.kids()
    assert service.process.returncode == 0


def test_rotation_and_withdrawal(hsm: SoftHSM, serving: Serving, tmp_path: Path) -> None:
    """A new key is published and does not sign yet; an older time signs; a deleted key is gone."""
    hsm.generate("macp", "01")
    with serving(hsm, tmp_path) as service:
        first = service.mint()
        hsm.generate(f"macp@{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}", "02")
        service.eventually(lambda: len(service.kids()) == 2)
        assert service.mint() == first
        hsm.generate(f"macp@{datetime.now(UTC) - timedelta(days=1):%Y-%m-%dT%H:%M:%SZ}", "03", "rsa:2048")
        service.eventually(lambda: first not in service.kids())  # replaced a day ago, by its times
        assert service.mint() != first
        assert service.published(service.mint()).algorithm_name == "RS256"
        signing = service.mint()
        hsm.delete("03")
        service.eventually(lambda: signing not in service.kids())


def test_wrong_pin_is_an_answer_and_a_log_line(hsm: SoftHSM, serving: Serving, tmp_path: Path) -> None:
    """With a wrong PIN the service runs, mints nothing, and says why; with the right one it mints."""
    hsm.generate("macp", "01")
    hsm.write_pin("wrong-pin-0000")
    with serving(hsm, tmp_path) as service:
        assert service.get("/tokens", {"sender": "agent://risk"})[0] == 503
        assert "refuses the PIN (PinIncorrect)" in service.log.read_text()
        hsm.write_pin(hsm.pin)
        service.eventually(lambda: service.get("/tokens", {"sender": "agent://risk"})[0] == 200)
    assert "wrong-pin" not in service.log.read_text()
