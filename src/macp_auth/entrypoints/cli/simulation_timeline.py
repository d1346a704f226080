"""The timeline of a simulation's keys, as a replica with the correct time publishes them."""

from __future__ import annotations

import math
from collections.abc import Iterator

from macp_auth.domain.rotation import schedule
from macp_auth.entrypoints.pictures.axis import elapsed
from macp_auth.entrypoints.pictures.timeline import (
    MEANINGS,
    Period,
    Row,
    Timeline,
    lead_and_lag,
    publish_lead,
    retire_lag,
)
from macp_auth.simulation.rotations import Report, World

_REVOKED = "revoked"


def timeline_of(report: Report, world: World) -> Timeline:
    """Return the timeline; times in seconds since the start of the simulation."""
    withdrawn = {_REVOKED: "removed by its owner"} if world.backend.withdrawn else {}
    rotations = len(world.new_keys)
    return Timeline(
        title="Simulated rotations" if rotations > 1 else "A simulated rotation",
        headline=f"{report.verifiers:,} verifiers checked {report.tokens:,} tokens. "
        f"Wrongly rejected: {report.wrongly_rejected:,}.",
        footnotes=[lead_and_lag(world.setup.timing), "Times are since the start."],
        rows=list(_rows(world)),
        begin=0,
        end=world.end,
        ticks=elapsed,
        meanings=MEANINGS | withdrawn,
        outages=[Period("outage", span.begin, span.end) for span in world.outages],
    )


def _rows(world: World) -> Iterator[Row]:
    timing = world.setup.timing
    periods: dict[str, list[Period]] = {version.kid: [] for version in world.backend.versions}
    for kid, name, begin, end in _states(world):
        so_far = periods[kid]
        since = so_far.pop().begin if so_far and so_far[-1].name == name else begin
        so_far.append(Period(name, since, end))
    rotated, stopped = world.new_keys[0].created_at or 0.0, world.starts(world.new_keys[0])
    old, new, *_ = periods
    spans = {
        old: [retire_lag(stopped, timing)],
        new: [publish_lead(rotated, timing)],
    }  # the others have the same
    for kid, found in periods.items():
        yield Row(name=kid, periods=found, spans=spans.get(kid, ()))


def _states(world: World) -> Iterator[tuple[str, str, float | None, float | None]]:
    """Yield each key's state between two changes: its kid, the state, from when, until when.

    None is before the start, or after the end.
    """
    now = 0.0
    while now < world.end:
        due = schedule(world.backend.versions_at(now), world.setup.timing, now)
        changes = (due.next_change or math.inf, world.backend.next_change(now))
        until = min(change for change in changes if change > now)
        end = until if until < world.end else None
        for key in due.keys:
            is_older = now == 0 and (key.version.created_at or 0.0) < now
            yield key.version.kid, key.state.value, None if is_older else now, end
        for kid, since in world.backend.withdrawn.items():
            if since <= now:
                yield kid, _REVOKED, now, end
        now = until
