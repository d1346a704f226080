"""Options by which a command is told a time."""

from __future__ import annotations

import rich_click as click


def moment(text: str | None, option: str, now: float) -> float | None:
    """Return the time that was given to ``option``, in seconds since the epoch; None if there was none.

    Raises:
        click.BadParameter: it is no time, or over a century from ``now``.
    """
    from macp_auth.entrypoints.cli.times import parse_time  # noqa: PLC0415 - `--help` should not wait

    if text is None:
        return None
    try:
        return parse_time(text, now)
    except ValueError:
        raise click.BadParameter(
            "must be a time with its zone, like 2026-12-01T06:00Z, or a distance from now, like +90m or -90m "
            "(s, m, h, d), of at most a century",
            param_hint=option,
        ) from None
