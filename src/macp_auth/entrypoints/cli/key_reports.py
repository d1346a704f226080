"""Texts about keys: the published ones, and the effect of a change."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from macp_auth.domain.key_changes import Revocation, Rotation
from macp_auth.domain.keys import KeyVersion
from macp_auth.domain.policy import VERIFIERS, RotationPolicy, Sum
from macp_auth.domain.rotation import KeyStatus, Schedule, Timing
from macp_auth.entrypoints.pictures.times import from_now, utc

_HEADINGS = ("KID", "ALG", "STATE", "SINCE", "NEXT CHANGE", "WHY")


def as_table(schedule: Schedule, now: float) -> str:
    """Return a table with one row per key."""
    rows = [_HEADINGS, *(_row(key, now) for key in schedule.keys)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def as_json(schedule: Schedule) -> str:
    """Return a JSON array with one object per key; times in seconds since the epoch."""
    keys = [
        {
            "kid": key.version.kid,
            "alg": key.version.algorithm.value,
            "state": key.state.value,
            "signing": key.version is schedule.signing,
            "since": key.since,
            "next_change": key.next_change,
            "why": key.why,
        }
        for key in schedule.keys
    ]
    return msgspec.json.format(msgspec.json.encode(keys)).decode()


def _row(key: KeyStatus, now: float) -> tuple[str, ...]:
    return (
        key.version.kid,
        key.version.algorithm.value,
        key.state.value,
        "-" if key.since is None else utc(key.since),
        "-" if key.next_change is None else from_now(key.next_change, now),
        key.why,
    )


def first_key(file: Path, kid: str) -> str:
    """Report a new file."""
    return f"new      {kid}: the first key of {file}; signs at once"


def rotation(planned: Rotation, kid: str, timing: Timing, now: float) -> str:
    """Report when the new key signs, and when the old one leaves."""
    starts, leaves = from_now(planned.signs_from, now), from_now(planned.retiring_leaves, now)
    old = f"{planned.retiring.kid}: signs until then; leaves the JWKS {leaves}"
    lines = [
        f"new      {kid}: starts signing {starts}; the publish lead is {timing.publish_lead} s",
        f"old      {old}; the retire lag is {timing.retire_lag} s",
    ]
    lines += _removed(planned.gone)
    return "\n".join(lines)


def revocation(kid: str, planned: Revocation, policy: RotationPolicy, now: float) -> str:
    """Report which key signs now, and until when each verifier may still accept the revoked one."""
    rows = [
        f"  {verifier.name:<14}{_until(policy.revocation_bound(verifier), now, 'it sees a new kid'):<38}"
        f"{_until(policy.blocked_revocation_bound(verifier), now, 'it can fetch again')}"
        for verifier in (policy.verifier, *VERIFIERS.values())
    ]
    within = f"as soon as each replica reads the file, within {policy.refresh} s"
    return "\n".join(
        [
            f"revoked  {kid}",
            f"signs    {planned.schedule.signing.kid}, {within}",
            *_removed(planned.gone),
            "",
            "A verifier may still accept the revoked key:",
            f"  {'verifier':<14}{'until':<38}until, if its fetches are blocked",
            *rows,
        ]
    )


def _removed(gone: Iterable[KeyVersion]) -> list[str]:
    return [f"removed  {version.kid}: left the JWKS earlier" for version in gone]


def _until(bound: Sum | None, now: float, otherwise: str) -> str:
    return otherwise if bound is None else from_now(now + bound.seconds, now)
