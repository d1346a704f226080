"""``GET /status``: the state of the service for people, as a page without scripts or other files.

It shows what the metrics and the JWKS show, and the heads of the audit log.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence

from macp_auth import __version__
from macp_auth.domain.service_state import Requests, ServiceState
from macp_auth.entrypoints.http.responses import RawHeaders
from macp_auth.entrypoints.pictures.drawing import STYLE as PICTURE_STYLE
from macp_auth.entrypoints.pictures.drawing import as_element
from macp_auth.entrypoints.pictures.svg import plain
from macp_auth.entrypoints.pictures.timeline import timeline_of
from macp_auth.entrypoints.pictures.times import distance, duration, utc

PATH = "/status"
_STYLE = (
    PICTURE_STYLE
    + """
  body { margin: 0 auto; max-width: 64rem; padding: 1rem; background: var(--card); color: var(--text);
    font: 15px/1.5 system-ui, sans-serif }
  header { display: flex; flex-wrap: wrap; gap: .5rem 1rem; align-items: center }
  h1 { font-size: 1.4rem; margin: 0 }
  h2 { font-size: 1.1rem; margin: 2rem 0 .5rem }
  p { margin: .5rem 0 }
  small, footer, .note { color: var(--muted); font-size: .85rem; font-weight: normal }
  svg { display: block; overflow: visible; margin: 1rem 0 }
  .badge { border: 1px solid; border-radius: 1rem; padding: 0 .8rem; font-weight: 600; margin: 0 }
  .good { color: var(--good) }
  .bad { color: var(--now) }
  .table { overflow-x: auto }
  table { border-collapse: collapse; width: 100%; font-size: .9rem }
  th, td { text-align: left; padding: .35rem .9rem .35rem 0; border-bottom: 1px solid var(--grid);
    vertical-align: top; white-space: nowrap }
  thead th { color: var(--muted); font-size: .85rem; font-weight: 600 }
  tbody th { font-weight: normal }
  .strong, tbody th.strong { font-weight: 600 }
  .number { text-align: right; font-variant-numeric: tabular-nums }
  .long, tbody th.long { white-space: normal; overflow-wrap: anywhere; min-width: 12rem;
    font: .85rem/1.7 ui-monospace, monospace }
  :root { --good: #15803d }
  @media (prefers-color-scheme: dark) { :root { --good: #4ade80 } }
"""
)
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
HEADERS: RawHeaders = [
    (b"content-type", b"text/html; charset=utf-8"),
    (
        b"content-security-policy",
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'".encode(),
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
]
"""Of the answer. The page loads nothing and runs nothing."""

_MINUTE = 60
_LEAST_RATE = 0.01
"""Tokens in a minute; a lower rate is said to be lower, so that no number needs an exponent."""
_ABSENT = "-"
Cell = str | tuple[str, str]
"""A text, or a text and its class."""


def render(state: ServiceState) -> bytes:
    """Return the page."""
    verdict, kind = _verdict(state)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>macp-auth: {plain(verdict)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<header>\n<h1>macp-auth <small>{plain(__version__)}</small></h1>\n"
        f'<p class="badge {kind}">{plain(verdict)}</p>\n</header>\n<main>\n'
        f"{_p(_facts(state))}\n{_keys(state)}\n{_readiness(state)}\n{_requests(state)}\n{_audit(state)}\n"
        f"</main>\n<footer>{_p(f'Read at {_time(state.at)}. Times are in UTC. Reload for a newer state.')}"
        "</footer>\n</body>\n</html>\n"
    ).encode()


def _verdict(state: ServiceState) -> tuple[str, str]:
    waiting, workers = state.not_ready, len(state.workers)
    if not waiting:
        return "ready", "good"
    reasons = ", ".join(sorted(set(waiting.values())))
    if len(waiting) == workers:
        return f"not ready: {reasons}", "bad"
    return f"{workers - len(waiting)} of {workers} workers ready: {reasons}", "bad"


def _facts(state: ServiceState) -> str:
    restarts = f", {state.restarts} replaced" if state.restarts else ""
    workers = "1 worker" if len(state.workers) == 1 else f"{len(state.workers)} workers"
    return (
        f"Signer {state.signer}. {workers}{restarts}. "
        f"Up {duration(state.up_seconds)}, since {_time(state.started_at)}."
    )


def _keys(state: ServiceState) -> str:
    newest = state.newest
    if newest is None or not newest.keys:
        missing = "No keys have been read from the signer yet. Requests for keys and tokens get 503."
        return f"<h2>Signing keys</h2>\n{_p(missing, 'bad')}"
    # By the clock of the key schedule: the wall clock may have been stepped.
    timeline = timeline_of(newest.keys, state.timing, state.at - newest.clock_offset, "the table")
    differ = (
        "The workers publish different keys now, as while a change spreads. These are the keys of the worker "
        "that read them last."
    )
    rows = [
        (
            (key.kid, "long"),
            key.algorithm,
            (key.state, "strong" if key.state == "active" else ""),
            _time(key.created_at),
            _time(key.signs_from),
            _time(key.signs_until),
            _time(key.leaves),
        )
        for key in newest.keys
    ]
    headings = ("Key", "Algorithm", "State", "Created", "Signs from", "Signs until", "Leaves the JWKS")
    return "\n".join(
        [
            "<h2>Signing keys</h2>",
            _p(timeline.headline),
            _p(differ, "bad") if state.keys_differ else "",
            as_element(timeline),
            _p(" ".join(timeline.footnotes), "note"),
            _table("Signing keys", headings, rows),
        ]
    )


def _readiness(state: ServiceState) -> str:
    rows: list[Sequence[Cell]] = []
    reasons = state.not_ready
    for index, worker in enumerate(state.workers):
        reason = reasons.get(index)
        ready: Cell = ("ready", "good") if reason is None else ("not ready", "bad")
        read = None if worker is None else worker.state.keys_read_at
        rows.append(
            (str(index), ready, reason or _ABSENT, _ABSENT if read is None else distance(read, state.at))
        )
    return f"<h2>Readiness</h2>\n{_table('Readiness', ('Worker', 'Now', 'Reason', 'Keys read'), rows)}"


def _requests(state: ServiceState) -> str:
    since = max(state.up_seconds, 1)
    recent = state.recent_seconds
    headings: list[Cell] = [
        "Caller",
        *((name, "number") for name in ("Tokens", "Refused", "Failed", "Tokens/min")),
    ]
    note = (
        "Since the start of the service; Tokens/min is the mean. A refused request is its caller's fault, "
        "a failed one the service's."
    )
    if recent is None:
        note += " A recent rate needs an earlier reading of this page or of the metrics."
    else:
        headings.append((f"Tokens/min, last {duration(recent)}", "number"))
    rows = [_numbers(each, since, recent) for each in state.requests]
    return (
        f"<h2>Requests for tokens</h2>\n{_table('Requests for tokens', headings, rows)}\n{_p(note, 'note')}"
    )


def _numbers(requests: Requests, since: float, recent: float | None) -> list[Cell]:
    numbers = [f"{number:,}" for number in (requests.minted, requests.refused, requests.failed)]
    numbers.append(_rate(requests.minted, since))
    if recent is not None and requests.recently_minted is not None:
        numbers.append(_rate(requests.recently_minted, recent))
    name: Cell = ("all requests", "strong") if requests.caller is None else requests.caller
    return [name, *((number, "number") for number in numbers)]


def _rate(tokens: int, seconds: float) -> str:
    per_minute = tokens / seconds * _MINUTE
    if tokens and per_minute < _LEAST_RATE:
        return f"<{_LEAST_RATE}"
    return f"{per_minute:,.0f}" if per_minute >= 10 or not tokens else f"{per_minute:.2g}"  # noqa: PLR2004


def _audit(state: ServiceState) -> str:
    heads = [head for worker in state.workers if worker and (head := worker.state.audit_head)]
    if not heads:
        return f"<h2>Audit log</h2>\n{_p('Off.')}"
    rows = [(head.writer, (f"{head.seq:,}", "number"), (head.sha256 or _ABSENT, "long")) for head in heads]
    headings = ("Writer", ("Lines", "number"), "SHA-256 of its last line")
    return f"<h2>Audit log</h2>\n{_table('Heads of the audit log', headings, rows)}"


def _table(name: str, headings: Iterable[Cell], rows: Iterable[Iterable[Cell]]) -> str:
    head = "".join(_cell(heading, "col") for heading in headings)
    body = "\n".join(map(_row, rows))
    return (
        f'<div class="table" role="region" aria-label="{plain(name)}" tabindex="0">\n<table>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>\n</div>"
    )


def _row(cells: Iterable[Cell]) -> str:
    first, *others = cells
    return f"<tr>{_cell(first, 'row')}{''.join(map(_cell, others))}</tr>"


def _cell(cell: Cell, scope: str = "") -> str:
    """Return a cell; with a scope, it is a heading."""
    text, kind = (cell, "") if isinstance(cell, str) else cell
    tag = "th" if scope else "td"
    attributes = (f' scope="{scope}"' if scope else "") + (f' class="{kind}"' if kind else "")
    return f"<{tag}{attributes}>{plain(text)}</{tag}>"


def _p(text: str, kind: str = "") -> str:
    return f'<p class="{kind}">{plain(text)}</p>' if kind else f"<p>{plain(text)}</p>"


def _time(moment: float | None) -> str:
    if moment is None:
        return _ABSENT
    try:
        return utc(moment)[:16].replace("T", " ")
    except (OverflowError, ValueError):  # a plugin may offer any number
        return _ABSENT
