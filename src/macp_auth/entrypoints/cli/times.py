"""Times on the command line."""

from __future__ import annotations

import datetime as dt
import re

import click

from macp_auth.entrypoints.pictures.times import UNITS

_DISTANCE = re.compile(r"([+-]\d+)([smhd])")
_FARTHEST = 100 * 365 * 86400
"""Seconds. A time farther away is a mistake, and datetime's range ends: sums with it must be dates too."""


def moment(text: str | None, option: str, now: float) -> float | None:
    """Return the value of ``option`` in seconds since the epoch; None if it was not given.

    ``+90m`` or ``-90m`` (s, m, h or d from now), or ISO 8601 with a time zone: ``2026-12-01T06:00Z``.

    Raises:
        click.BadParameter: it is not a time, or more than a century from ``now``.
    """
    try:
        return None if text is None else _parse(text, now)
    except (ValueError, OverflowError):
        raise click.BadParameter(
            "must be a time with a zone, like 2026-12-01T06:00Z, or relative to now, like +90m or -90m "
            "(s, m, h, d), within a century",
            param_hint=option,
        ) from None


def _parse(text: str, now: float) -> float:
    if distance := _DISTANCE.fullmatch(text):
        seconds = now + int(distance[1]) * UNITS[distance[2]]
    else:
        time = dt.datetime.fromisoformat(text)
        if time.tzinfo is None:
            raise ValueError("no time zone")
        seconds = time.timestamp()
    if abs(seconds - now) > _FARTHEST:
        raise ValueError("more than a century away")
    return seconds
