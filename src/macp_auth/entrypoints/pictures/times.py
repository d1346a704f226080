"""Times as texts."""

from __future__ import annotations

import datetime as dt

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
"""Seconds of each unit."""


def utc(seconds: float) -> str:
    """Return a time in ISO 8601, in UTC, with whole seconds."""
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def duration(seconds: float) -> str:
    """Return a duration in its two largest units, such as ``1h 15m``."""
    left = round(abs(seconds))
    parts = []
    for unit, size in reversed(UNITS.items()):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2]) or "0s"


def from_now(seconds: float, now: float) -> str:
    """Return a time and its distance from ``now``: ``2026-12-01T06:00:00Z (in 1h 15m)``."""
    return f"{utc(seconds)} ({distance(seconds, now)})"


def distance(seconds: float, now: float) -> str:
    """Return the distance of a time from ``now``: ``in 1h 15m`` or ``2m ago``."""
    return f"in {duration(seconds - now)}" if seconds >= now else f"{duration(seconds - now)} ago"
