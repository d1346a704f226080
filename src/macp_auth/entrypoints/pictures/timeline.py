"""What a picture of keys over time shows; ``drawing`` and ``text`` say how.

One row per key, with a period for each of its states. The drawn time is around now: a key that was made a
year ago must not shrink an hour's rotation to a line.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from msgspec import Struct

from macp_auth.domain.rotation import State, Timing
from macp_auth.domain.worker_state import PublishedKey
from macp_auth.entrypoints.pictures.axis import Ticks, dates
from macp_auth.entrypoints.pictures.times import distance, duration

MEANINGS: dict[str, str] = {
    State.PRE_ACTIVATION: "published, signs later",
    State.ACTIVE: "signs",
    State.DEACTIVATED: "signs no more",
}
"""What each state is, in a few words."""
MAX_ROWS = 20
"""So a picture is at most about two screens high."""
_PUBLISH_LEAD, _RETIRE_LAG = "publish lead", "retire lag"
_MAX_NAME_CHARS, _END_CHARS, _ELLIPSIS = 24, 8, "\N{HORIZONTAL ELLIPSIS}"
_SHORTEST_REACH = 600.0  # seconds
_LONGEST_REACH = 50 * 366 * 86400.0
"""Seconds. A key file may have any time, and dates end."""
_PAST = 1.5  # of the time that is drawn after now
_LEAST_PAST = 0.25
_MARGIN = 0.04  # of the drawn time, at each side
_NEXT: dict[str, str] = {
    State.PRE_ACTIVATION: "starts signing",
    State.ACTIVE: "stops signing",
    State.DEACTIVATED: "leaves the JWKS",
}
_LAST: dict[str, str] = {
    State.PRE_ACTIVATION: "",
    State.ACTIVE: "signs until it is replaced",
    State.DEACTIVATED: "stays until it is removed",
}


class Period(Struct, frozen=True):
    """How long a key is in a state, or a named time; None if an end is unknown."""

    name: str
    begin: float | None
    end: float | None


class Row(Struct, frozen=True, kw_only=True):
    """One key."""

    name: str
    detail: str = ""
    """Its algorithm."""
    state: str = ""
    """What it is now."""
    note: str = ""
    """What happens next."""
    periods: Sequence[Period]
    spans: Sequence[Period] = ()
    """The publish lead and the retire lag, where they are shown."""

    @property
    def label(self) -> str:
        """The name, shortened."""
        return _shortened(self.name)


class Timeline(Struct, frozen=True, kw_only=True):
    """A picture of keys over time. All times have the same unit and start."""

    title: str
    headline: str
    """The one thing that it says."""
    footnotes: Sequence[str]
    """What the times on it are."""
    rows: Sequence[Row]
    begin: float
    end: float
    ticks: Ticks
    meanings: dict[str, str]
    """Of each state in the legend."""
    now: float | None = None
    outages: Sequence[Period] = ()

    @property
    def description(self) -> str:
        """All that it shows, in sentences."""
        return " ".join([self.headline, *map(self._sentence, self.rows), *self.footnotes])

    def position(self, moment: float | None, otherwise: float) -> float:
        """Return where a time is between the left and the right edge, from 0 to 1."""
        if moment is None:
            return otherwise
        return (min(max(moment, self.begin), self.end) - self.begin) / (self.end - self.begin)

    def _sentence(self, row: Row) -> str:
        what = ", ".join(part for part in (row.detail, row.state, row.note) if part)
        return f"Key {row.name}: {what or ', '.join(period.name for period in row.periods)}."


def _shortened(name: str) -> str:
    """Return a kid without its middle if it is long: versions of a key differ at the end."""
    if len(name) <= _MAX_NAME_CHARS:
        return name
    return name[: _MAX_NAME_CHARS - _END_CHARS - 1] + _ELLIPSIS + name[-_END_CHARS:]


def timeline_of(keys: Sequence[PublishedKey], timing: Timing, now: float, full_list: str) -> Timeline:
    """Return the timeline of at most :data:`MAX_ROWS` keys; times in seconds since the epoch.

    Args:
        keys: all that are published.
        timing: the publish lead and the retire lag.
        now: the time that is drawn as now.
        full_list: what shows all keys, if the timeline does not: ``the table``.
    """
    drawn = _foremost(keys, now)
    begin, end = _window(drawn, timing, now)
    more = f"{len(drawn)} of {len(keys):,} published keys are drawn; {full_list} shows all of them."
    return Timeline(
        title="Signing keys",
        headline=_headline(keys, now),
        footnotes=[
            *([more] if len(drawn) < len(keys) else []),
            lead_and_lag(timing),
            "Times are in UTC.",
        ],
        rows=list(_rows(drawn, timing, now)),
        begin=begin,
        end=end,
        ticks=dates,
        meanings=MEANINGS,
        now=now,
    )


def lead_and_lag(timing: Timing) -> str:
    """Return what the two times are."""
    lead, lag = duration(timing.publish_lead), duration(timing.retire_lag)
    return (
        f"A new key is published {lead} before it signs ({_PUBLISH_LEAD}), and {lag} after its last "
        f"signature ({_RETIRE_LAG})."
    )


def publish_lead(created: float, timing: Timing) -> Period:
    """Return the span of the publish lead, with its length in its name."""
    name = f"{_PUBLISH_LEAD} {duration(timing.publish_lead)}"
    return Period(name, created, created + timing.publish_lead)


def retire_lag(stopped: float, timing: Timing) -> Period:
    """Return the span of the retire lag, with its length in its name."""
    return Period(f"{_RETIRE_LAG} {duration(timing.retire_lag)}", stopped, stopped + timing.retire_lag)


def _headline(keys: Sequence[PublishedKey], now: float) -> str:
    signing = " and ".join(_shortened(key.kid) for key in keys if key.state == State.ACTIVE)
    coming = [
        (key.signs_from, _shortened(key.kid))
        for key in keys
        if key.state == State.PRE_ACTIVATION and key.signs_from is not None
    ]
    # A key that expires gives way to one of the same age, which is no longer before its activation.
    stops = [
        (key.signs_until, "Another key")
        for key in keys
        if key.state == State.ACTIVE and key.signs_until is not None
    ]
    changes = [*coming, *stops]
    if not changes:
        return f"{signing} signs. No change of the signing key is planned."
    at, kid = min(changes, key=lambda change: change[0])
    return f"{signing} signs. {kid} takes over {distance(at, now)}."


def _foremost(keys: Sequence[PublishedKey], now: float) -> list[PublishedKey]:
    """Return the keys that matter most, in their order: who signs, who will soonest, who stopped last."""
    order = [State.ACTIVE, State.PRE_ACTIVATION, State.DEACTIVATED]

    def rank(key: PublishedKey) -> tuple[int, float]:
        changed = key.signs_until if key.state == State.DEACTIVATED else key.signs_from
        at = key.created_at if changed is None else changed
        return order.index(State(key.state)), math.inf if at is None else abs(at - now)

    drawn = {key.kid for key in sorted(keys, key=rank)[:MAX_ROWS]}
    return [key for key in keys if key.kid in drawn]


def _rows(keys: Sequence[PublishedKey], timing: Timing, now: float) -> Iterator[Row]:
    with_lead = [key.kid for key in keys if _lead(key, timing)][-1:]
    with_lag = [key.kid for key in keys if _lag(key, timing)][-1:]
    for key in keys:
        spans = [
            *(_lead(key, timing) if key.kid in with_lead else ()),
            *(_lag(key, timing) if key.kid in with_lag else ()),
        ]
        yield Row(
            name=key.kid,
            detail=key.algorithm,
            state=key.state,
            note=_note(key, now),
            periods=list(_periods(key)),
            spans=spans,
        )


def _note(key: PublishedKey, now: float) -> str:
    if key.next_change is None:
        return _LAST[key.state]
    return f"{_NEXT[key.state]} {distance(key.next_change, now)}"


def _periods(key: PublishedKey) -> Iterator[Period]:
    """Yield the states of ``key``, in order of time."""
    if key.state == State.DEACTIVATED and key.signs_until is None:  # it can't sign, or nobody knows when
        yield Period(State.DEACTIVATED, key.created_at, key.leaves)
        return
    if None not in {key.created_at, key.signs_from} and key.created_at != key.signs_from:
        yield Period(State.PRE_ACTIVATION, key.created_at, key.signs_from)
    yield Period(State.ACTIVE, key.signs_from, key.signs_until)
    if key.signs_until is not None:
        yield Period(State.DEACTIVATED, key.signs_until, key.leaves)


def _lead(key: PublishedKey, timing: Timing) -> list[Period]:
    if key.created_at is None or key.signs_from is None:
        return []
    found = publish_lead(key.created_at, timing)
    return [found] if found.end is not None and found.end <= key.signs_from else []


def _lag(key: PublishedKey, timing: Timing) -> list[Period]:
    return [] if key.signs_until is None else [retire_lag(key.signs_until, timing)]


def _window(keys: Sequence[PublishedKey], timing: Timing, now: float) -> tuple[float, float]:
    known = [
        moment
        for key in keys
        for moment in (key.created_at, key.signs_from, key.signs_until, key.leaves)
        if moment is not None
    ]
    span = max(timing.publish_lead + timing.retire_lag, _SHORTEST_REACH)
    reach = max([span / 2, *(moment - now for moment in known)])
    reach = min(reach, _LONGEST_REACH)
    past = max(reach, span) * _PAST
    oldest = min([moment for moment in known if now - past <= moment <= now], default=now)
    begin, end = min(oldest, now - reach * _LEAST_PAST), now + reach
    margin = (end - begin) * _MARGIN
    return begin - margin, end + margin
