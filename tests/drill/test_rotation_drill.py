"""Keys rotate and are revoked under load, and real verifiers judge every token until it ends.

``make rotation-drill`` is the long form.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.drill.drill import Size, run_drill
from tools.drill.scenario import Scenario


def test_no_token_is_lost_or_wrongly_rejected_while_keys_rotate(tmp_path: Path) -> None:
    """Three rotations, with a change of algorithm and back, and a revocation, at the least lead allowed."""
    report = run_drill(Size(tokens=3000, rotations=3, seconds=90), Scenario(), tmp_path)
    assert not report.faults, str(report)
    assert len(report.algorithms) >= 4
    assert len(report.ledger.revoked) == 1
    if report.missing:
        pytest.skip(f"all passed, but without {dict(report.missing)}")


def test_an_emergency_costs_no_more_than_the_bound(tmp_path: Path) -> None:
    """The signing key is taken out: the next one signs at once, and soon every verifier has it."""
    size = Size(tokens=0, rotations=0, revoke=False, emergency=True, linger=8, seconds=60)
    scenario = Scenario(cache_ttl=10)
    verifiers = ("macp-runtime", "macp-runtime-model", "pyjwt")
    report = run_drill(size, scenario, tmp_path, verifiers=verifiers)
    assert not report.faults, str(report)
    if report.seconds > scenario.cache_ttl + size.linger:
        pytest.skip("too slow here: the verifiers fetched the next key before it had to sign")
    for name in {"macp-runtime", "macp-runtime-model"} - report.missing.keys():
        assert report.ledger.tallies[name].early_rejected, str(report)
    if report.missing:
        pytest.skip(f"all passed, but without {dict(report.missing)}")


def test_verifiers_reject_tokens_when_the_publish_lead_is_too_short(tmp_path: Path) -> None:
    """The drill can fail: configured with shorter caches than the real ones, the service signs too early."""
    scenario = Scenario(cache_ttl=30, claimed_cache_ttl=0, claimed_stale_grace=0, max_age=0)
    size = Size(tokens=0, rotations=1, revoke=False, seconds=60)
    report = run_drill(size, scenario, tmp_path, verifiers=("macp-runtime", "macp-runtime-model", "envoy"))
    assert not report.ledger.losses, str(report)
    assert report.ledger.tallies
    for name, tally in report.ledger.tallies.items():
        assert tally.wrongly_rejected, f"{name} rejected nothing:\n{report}"
    if report.missing:
        pytest.skip(f"all passed, but without {dict(report.missing)}")
