"""What a drill found, judged and written down."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from tools.drill.ledger import Ledger, Tally

_MOST_LATE = 0.01  # of the checks; more, and the machine was too slow for the drill to say anything


class Report(Struct, frozen=True, kw_only=True):
    """A drill that has ended."""

    ledger: Ledger
    seconds: float
    """How long it minted."""
    algorithms: Mapping[str, str]
    """Of every key that there was, by kid, in the order of their making."""
    max_ttl: int
    """A token's lifetime, in seconds."""
    lead: int
    lag: int
    fetch_bound: int
    """How soon after a change of keys every verifier that can fetch must have seen it, in seconds."""
    service_errors: list[str]
    """What the service's log says at level error or above."""
    missing: Mapping[str, str]
    """Why a verifier did not take part, by name."""

    @property
    def faults(self) -> list[str]:
        """All that should not be, in words. Empty if the drill passed."""
        ledger = self.ledger
        faults = [f"{len(ledger.losses)} tokens lost: {ledger.losses[:3]}"] if ledger.losses else []
        faults += [f"the service logged: {line}" for line in self.service_errors[:3]]
        for name, tally in ledger.tallies.items():
            faults += [f"{name}: {fault}" for fault in self._faults_of(tally)]
        return faults

    def _faults_of(self, tally: Tally) -> list[str]:
        faults = []
        if tally.tokens != self.ledger.tokens:
            faults.append(f"checked {tally.tokens} of {self.ledger.tokens} tokens")
        if tally.wrongly_rejected:
            faults.append(f"wrongly rejected {tally.wrongly_rejected} times: {tally.examples}")
        if tally.late > _MOST_LATE * tally.checks:
            faults.append(f"{tally.late} of {tally.checks} checks came too late; this machine is too busy")
        if tally.last_accepted_after > self.fetch_bound:
            faults.append(
                f"accepted a revoked key's token {tally.last_accepted_after:.2f} s after the revocation; "
                f"the bound is {self.fetch_bound} s"
            )
        if self.ledger.revoked and not tally.revoked_rejected and self.fetch_bound < self.max_ttl:
            faults.append("rejected no token of the revoked key")
        return faults

    def __str__(self) -> str:
        ledger = self.ledger
        keys = [
            f"{kid[:8]} {algorithm} {ledger.minted[kid]}" + (" revoked" if kid in ledger.revoked else "")
            for kid, algorithm in self.algorithms.items()
        ]
        return "\n".join(
            [
                f"{ledger.tokens} tokens in {self.seconds:.0f} s, {len(ledger.losses)} lost",
                f"{len(self.algorithms) - 1} rotations, {len(ledger.revoked)} revocations",
                f"publish lead {self.lead} s, retire lag {self.lag} s, revocation bound {self.fetch_bound} s",
                f"tokens by key: {', '.join(keys)}",
                *(f"{name}: {_row(tally)}" for name, tally in ledger.tallies.items()),
                *(f"WITHOUT {name}: {why}" for name, why in self.missing.items()),
                *(self.faults or ["passed"]),
            ]
        )


def _row(tally: Tally) -> str:
    cells = {
        "tokens": tally.tokens,
        "checks": tally.checks,
        "wrongly rejected": tally.wrongly_rejected,
        "rejected inside the lead": tally.early_rejected,
        "too late to tell": tally.late,
        "left at the last check (s, mean)": round(tally.left_at_last / max(tally.last_checks, 1), 2),
        "of the revoked rejected": tally.revoked_rejected,
        "of the revoked accepted": tally.revoked_accepted,
        "until (s after)": round(tally.last_accepted_after, 2),
    }
    return ", ".join(f"{name} {value}" for name, value in cells.items())
