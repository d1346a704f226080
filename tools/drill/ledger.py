"""What came of every token: who accepted it, who rejected it, and when."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from collections import Counter
from functools import lru_cache

from msgspec import Struct, field

CHECKS = 3
"""How often each verifier checks each token: at once, in the middle of its life, and just before its end."""
_BEFORE_END = 0.7  # seconds; time for the last check to come before the end on a busy machine
_EXAMPLES = 2


class Token(Struct, frozen=True):
    """One minted token."""

    text: str
    kid: str
    minted: float
    """All times in seconds since the epoch."""
    exp: int

    @classmethod
    def parse(cls, text: str, minted: float) -> Token:
        header, payload, _ = text.split(".")
        return cls(text, _decode(header)["kid"], minted, json.loads(_octets(payload))["exp"])

    @property
    def checks_due(self) -> tuple[float, ...]:
        """When to check it, :data:`CHECKS` times."""
        last = self.exp - _BEFORE_END
        return (self.minted, (self.minted + last) / 2, last)


class Tally(Struct):
    """What one verifier said."""

    tokens: int = 0
    """Distinct tokens that it checked."""
    checks: int = 0
    wrongly_rejected: int = 0
    """Checks of a live token, of a key that was not revoked, that it rejected."""
    late: int = 0
    """Checks that came too late: it rejected a token that had ended. They say nothing."""
    early_rejected: int = 0
    """Checks of a live token that it rejected while it need not have fetched the key yet."""
    revoked_rejected: int = 0
    """Checks of a live token, of the revoked key, after the revocation, that it rejected."""
    revoked_accepted: int = 0
    """The same, accepted."""
    last_accepted_after: float = 0.0
    """How long after the revocation the last of these was, in seconds."""
    last_checks: int = 0
    """Tokens that were accepted in their last check."""
    left_at_last: float = 0.0
    """How long these had still to live, in seconds, summed."""
    examples: list[str] = field(default_factory=list)
    """Some of the wrong rejections."""


class Ledger:
    """The tallies of a drill, and what was lost."""

    def __init__(self) -> None:
        self.minted: Counter[str] = Counter()
        """Tokens by kid."""
        self.losses: list[str] = []
        """Why a mint failed, for each that did."""
        self.tallies: dict[str, Tally] = {}
        """By the verifier's name."""
        self.revoked: dict[str, float] = {}
        """When a key was revoked, by kid."""
        self._held: dict[str, list[tuple[Tally, Token, int, float, str | None]]] = {}
        self.trusted_from: dict[str, float] = {}
        """By when every verifier must have a key that signed inside its lead, by kid."""

    @property
    def tokens(self) -> int:
        return self.minted.total()

    def hold(self, kid: str) -> None:
        """Hold what is said of this key's tokens until :meth:`revoke` tells the moment."""
        self._held[kid] = []

    def revoke(self, kid: str, at: float) -> None:
        """Note that a held key was revoked."""
        self.revoked[kid] = at
        for check in self._held.pop(kid):
            self._judge(*check)

    def record(self, verifier: str, token: Token, number: int, at: float, reason: str | None) -> None:
        """Note what ``verifier`` said in its check of this ``number`` (from 0) of ``token``."""
        check = (self.tallies[verifier], token, number, at, reason)
        if token.kid in self._held:
            self._held[token.kid].append(check)
        else:
            self._judge(*check)

    def _judge(self, tally: Tally, token: Token, number: int, at: float, reason: str | None) -> None:
        tally.checks += 1
        tally.tokens += number == 0
        if number == CHECKS - 1 and reason is None:
            tally.last_checks += 1
            tally.left_at_last += token.exp - at
        revoked = self.revoked.get(token.kid)
        if revoked is not None and at >= revoked and at < token.exp:
            if reason is None:
                tally.revoked_accepted += 1
                tally.last_accepted_after = max(tally.last_accepted_after, at - revoked)
            else:
                tally.revoked_rejected += 1
        elif reason is not None and at >= token.exp:
            tally.late += 1
        elif reason is not None and at < self.trusted_from.get(token.kid, 0):
            tally.early_rejected += 1
        elif reason is not None:
            tally.wrongly_rejected += 1
            if len(tally.examples) < _EXAMPLES:
                tally.examples.append(
                    f"kid {token.kid[:8]}, {at - token.minted:.2f} s after its minting: {reason}"
                )


def _octets(part: str) -> bytes:
    return urlsafe_b64decode(part + "=" * (-len(part) % 4))


@lru_cache
def _decode(header: str) -> dict[str, str]:
    decoded: dict[str, str] = json.loads(_octets(header))
    return decoded
