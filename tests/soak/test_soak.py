"""The service holds up: nothing grows under load, and slow sockets cost the others little.

``make soak`` is the long form.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.soak.crowd import run_crowd
from tests.soak.soak import run_soak

SECONDS = 60 if os.environ.get("CI") else 30


@pytest.mark.timeout(180)
def test_nothing_grows_under_steady_load(tmp_path: Path) -> None:
    """All tokens verify; memory, descriptors and threads stay, with a local key and with Vault's."""
    reports = run_soak(SECONDS, tmp_path)
    for report in reports:
        print(report)  # noqa: T201 - its figures
    assert not [fault for report in reports for fault in report.faults]


def test_slow_sockets_do_not_double_the_latency_of_the_others(tmp_path: Path) -> None:
    """500 of them, a byte a second each, in turns with none."""
    report = run_crowd(3, 3, tmp_path)
    print(report)  # noqa: T201 - its figures
    assert not report.faults
