"""New replicas for old, while clients mint. ``make rollout-drill`` is the long form."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.rollout.rollout import run_rollout

ROUNDS = 5


@pytest.mark.timeout(180)
def test_no_request_fails_while_replicas_are_replaced(tmp_path: Path) -> None:
    """Behind HAProxy with readiness checks; each old replica exits 0."""
    report = run_rollout(ROUNDS, tmp_path)
    assert not report.faults, str(report)
    assert len(report.exits) == ROUNDS
    print(report)  # noqa: T201 - its figures
