"""The keys that are published, as a table or as JSON."""

from __future__ import annotations

import msgspec

from macp_auth.domain.rotation import KeyStatus, Schedule
from macp_auth.entrypoints.cli.times import from_now, utc

_HEADINGS = ("KID", "ALG", "STATE", "SINCE", "NEXT CHANGE", "WHY")


def as_text(in_force: Schedule, now: float) -> str:
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
