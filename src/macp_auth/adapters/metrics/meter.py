"""The counters of a worker: tokens, JWKS requests, and signature durations."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable
from pathlib import Path

from macp_auth.adapters.metrics.cells import Cells
from macp_auth.adapters.wrapper import SignerWrapper
from macp_auth.domain.minting import MintEvent
from macp_auth.domain.signer import Signer

MINTS, JWKS, SIGN, SIGN_SECONDS, AUDIT_DROPPED = "mints", "jwks", "sign", "sign-seconds", "audit-dropped"
SHED, GRANTS, REPORTS = "shed", "grants", "reports"
"""The first word of a cell's name."""
SIGN_BOUNDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Seconds: from a local ES256 signature (0.05 ms) to above a signer's deadline (2 s)."""
MAX_GRANTS = 500
"""Callers and grants are named in a file of any length; the time series are bounded."""
OTHER = "other"
MAX_REASONS = 64
"""There are about thirty of our own; a plugin adds its own, and each is a time series."""

_INTERNAL_ERROR = 500


class Meter:
    """Counts in the file of one process."""

    def __init__(self, path: Path) -> None:
        self._cells = Cells(path)
        self._numbers = self._cells.numbers
        self._minted = self._cells.cell(MINTS, "minted", "")
        self._reasons: set[tuple[str, str]] = set()
        self._grants: set[tuple[str, str]] = set()

    def count_mint(self, event: MintEvent) -> None:
        """Count a minted token or a refused request."""
        if event.minted is not None:
            result = "minted"
            self._numbers[self._minted] += 1
        else:
            result = "failed" if event.status >= _INTERNAL_ERROR else "refused"
            self._count(MINTS, result, self._bounded(result, event.reason or ""))
        if event.caller is not None:
            self._count(GRANTS, *self._bounded_grant(event.caller.name, event.grant or ""), result)

    def count_report(self, reason: str) -> None:
        """Count a request that the callers file would refuse."""
        self._count(REPORTS, self._bounded(REPORTS, reason))

    def count_jwks(self, listener: str, status: int) -> None:
        """Count a response to a request for the keys."""
        self._count(JWKS, str(status), listener)

    def count_dropped_lines(self, lines: int) -> None:
        """Count dropped audit lines of minted tokens."""
        self._numbers[self._cells.cell(AUDIT_DROPPED)] += lines

    def shed_connections(self, listener: str) -> Callable[[], None]:
        """Return what counts a connection of ``listener`` that is closed to make room for another."""
        cell = self._cells.cell(SHED, listener)

        def count() -> None:
            self._numbers[cell] += 1

        return count

    def timed(self, signer: Signer) -> Signer:
        """Return ``signer`` with its signatures timed."""
        return _TimedSigner(signer, self._cells)

    def _bounded_grant(self, caller: str, grant: str) -> tuple[str, str]:
        if (caller, grant) not in self._grants:
            if len(self._grants) >= MAX_GRANTS:
                return OTHER, OTHER
            self._grants.add((caller, grant))
        return caller, grant

    def _bounded(self, result: str, reason: str) -> str:
        if (result, reason) not in self._reasons:
            if len(self._reasons) >= MAX_REASONS:
                return OTHER
            self._reasons.add((result, reason))
        return reason

    def _count(self, *name: str) -> None:
        self._numbers[self._cells.cell(*name)] += 1


class _TimedSigner(SignerWrapper):
    """Measures the duration of each signature, including failures, as a caller sees it."""

    def __init__(self, signer: Signer, cells: Cells) -> None:
        super().__init__(signer)
        self._numbers = cells.numbers
        self._buckets = [cells.cell(SIGN, str(bound)) for bound in (*SIGN_BOUNDS, "+Inf")]
        self._seconds = cells.cell(SIGN_SECONDS)

    async def sign(self, kid: str, signing_input: bytes) -> bytes:
        """Return the wrapped signer's signature."""
        began = time.perf_counter()
        try:
            return await self._signer.sign(kid, signing_input)
        finally:
            seconds = time.perf_counter() - began
            self._numbers[self._buckets[bisect_left(SIGN_BOUNDS, seconds)]] += 1
            self._numbers[self._seconds] += seconds
