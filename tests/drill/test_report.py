"""The drill's verdict: it reports each fault, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tools.drill.ledger import Ledger, Tally, Token
from tools.drill.report import Report

MINTED = 1000.0
TOKEN = Token(text="t", kid="k", minted=MINTED, exp=1006)
BOUND = 3


def check(ledger: Ledger, number: int, after: float, reason: str | None = None) -> None:
    ledger.record("pyjwt", TOKEN, number, MINTED + after, reason)


def passing() -> Ledger:
    """A ledger of one token, checked three times."""
    ledger = Ledger()
    ledger.tallies["pyjwt"] = Tally()
    ledger.minted["k"] = 1
    for number, after in enumerate((0, 3, 5)):
        check(ledger, number, after)
    return ledger


def report(ledger: Ledger, *service_errors: str) -> Report:
    return Report(
        ledger=ledger,
        seconds=1,
        algorithms={"k": "ES256"},
        max_ttl=6,
        lead=9,
        lag=8,
        fetch_bound=BOUND,
        service_errors=list(service_errors),
        missing={},
    )


def lose(ledger: Ledger) -> None:
    ledger.losses.append("503")


def reject(ledger: Ledger) -> None:
    check(ledger, 1, 2, "no such key")


def come_too_late(ledger: Ledger) -> None:
    check(ledger, 2, 6.1, "expired")


def leave_out(ledger: Ledger) -> None:
    ledger.minted["k"] += 1


def revoke_without_effect(ledger: Ledger) -> None:
    ledger.hold("k")
    ledger.revoke("k", MINTED)


def accept_the_revoked_too_long(ledger: Ledger) -> None:
    ledger.hold("k")
    check(ledger, 1, 4.5)
    check(ledger, 2, 5, "no such key")
    ledger.revoke("k", MINTED + 1)


def reject_before_the_revocation(ledger: Ledger) -> None:
    ledger.hold("k")
    check(ledger, 1, 0.5, "no such key")
    check(ledger, 1, 2, "no such key")
    ledger.revoke("k", MINTED + 1)


def reject_after_the_lead(ledger: Ledger) -> None:
    ledger.trusted_from["k"] = MINTED + 2
    check(ledger, 1, 2.5, "no such key")


@pytest.mark.parametrize(
    ("happen", "message"),
    [
        (lose, "1 tokens lost"),
        (reject, "wrongly rejected 1 times"),
        (come_too_late, "1 of 4 checks came too late"),
        (leave_out, "checked 1 of 2 tokens"),
        (revoke_without_effect, "rejected no token of the revoked key"),
        (accept_the_revoked_too_long, "3.50 s after the revocation; the bound is 3 s"),
        (reject_before_the_revocation, "wrongly rejected 1 times"),
        (reject_after_the_lead, "wrongly rejected 1 times"),
    ],
)
def test_each_fault_is_reported(happen: Callable[[Ledger], None], message: str) -> None:
    """What should not be fails the drill, by its name."""
    ledger = passing()
    happen(ledger)
    (fault,) = report(ledger).faults
    assert message in fault
    assert fault in str(report(ledger))


def test_an_error_of_the_service_is_reported() -> None:
    """The service's own log counts."""
    assert report(passing(), "boom").faults == ["the service logged: boom"]


def test_rejections_that_must_be_are_no_fault() -> None:
    """A revoked key's token, and one signed inside the lead before the verifier must have its key."""
    ledger = passing()
    ledger.trusted_from["k"] = MINTED + 1
    check(ledger, 1, 0.5, "no such key")
    ledger.hold("k")
    check(ledger, 1, 4, "no such key")
    ledger.revoke("k", MINTED + 3.5)
    assert not report(ledger).faults
    tally = ledger.tallies["pyjwt"]
    assert (tally.early_rejected, tally.revoked_rejected) == (1, 1)
    assert str(report(ledger)).endswith("passed")
