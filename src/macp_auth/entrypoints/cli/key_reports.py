"""Keys in words: which are published, and what a change to them will do."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from macp_auth.domain.key_changes import Revocation, Rotation
from macp_auth.domain.keys import KeyVersion
from macp_auth.domain.policy import VERIFIERS, RotationPolicy, Sum
from macp_auth.domain.rotation import KeyStatus, Schedule, Timing
from macp_auth.entrypoints.cli.times import from_now, utc

_HEADINGS = ("KID", "ALG", "STATE", "SINCE", "NEXT CHANGE", "WHY")


def as_table(in_force: Schedule, now: float) -> str:
    """Return a line a key, in columns."""
    rows = [_HEADINGS, *(_row(key, now) for key in in_force.keys)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def as_json(in_force: Schedule) -> str:
    """Return a JSON array, an object a key; times in seconds since the epoch."""
    keys = [
        {
            "kid": key.version.kid,
            "alg": key.version.algorithm.value,
            "state": key.state.value,
            "signing": key.version is in_force.signing,
            "since": key.since,
            "next_change": key.next_change,
            "why": key.why,
        }
        for key in in_force.keys
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
    """Say that ``file`` is made."""
    return f"new      {kid}: the first key of {file}; signs at once"


def rotation(planned: Rotation, kid: str, timing: Timing, now: float) -> str:
    """Say when which key signs and leaves."""
    starts, leaves = from_now(planned.signs_from, now), from_now(planned.retiring_leaves, now)
    old = f"{planned.retiring.kid}: signs until then; leaves the JWKS {leaves}"
    lines = [
        f"new      {kid}: starts signing {starts}; the publish lead is {timing.publish_lead} s",
        f"old      {old}; the retire lag is {timing.retire_lag} s",
    ]
    lines += _removed(planned.gone)
    return "\n".join(lines)


def revocation(kid: str, planned: Revocation, policy: RotationPolicy, now: float) -> str:
    """Say which key signs now, and until when who may still accept the revoked one."""
    rows = [
        f"  {verifier.name:<14}{_until(policy.revocation_bound(verifier), now, 'it meets a new kid'):<38}"
        f"{_until(policy.blocked_revocation_bound(verifier), now, 'it can fetch again')}"
        for verifier in (policy.verifier, *VERIFIERS.values())
    ]
    within = f"as soon as each replica reads the file, within {policy.refresh} s"
    return "\n".join(
        [
            f"revoked  {kid}",
            f"signs    {planned.in_force.signing.kid}, {within}",
            *_removed(planned.gone),
            "",
            "A verifier may still accept the revoked key:",
            f"  {'verifier':<14}{'until':<38}until, if somebody keeps it from fetching",
            *rows,
        ]
    )


def _removed(gone: Iterable[KeyVersion]) -> list[str]:
    return [f"removed  {version.kid}: left the JWKS before" for version in gone]


def _until(bound: Sum | None, now: float, otherwise: str) -> str:
    return otherwise if bound is None else from_now(now + bound.seconds, now)
