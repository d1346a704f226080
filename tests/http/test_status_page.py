"""The status page: what it says, and that nothing on it is markup of somebody else."""

from __future__ import annotations

import base64
import hashlib
import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence

import msgspec

from macp_auth.domain.rotation import Timing
from macp_auth.domain.service_state import Requests, ServiceState, Worker
from macp_auth.domain.worker_state import AuditHead, PublishedKey, WorkerState
from macp_auth.entrypoints.http.status_page import HEADERS, render

NOW = 1_795_996_800.0 + 1234  # 30 November 2026, 00:20 UTC
SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "<img src=x onerror=alert(1)>&\"'"
KEYS = [
    PublishedKey("old", "ES256", "active", NOW - 86400, NOW + 3000, NOW - 80000, NOW + 3000, NOW + 6720),
    PublishedKey("new", "RS256", "pre-activation", NOW - 1500, NOW + 3000, NOW + 3000),
]
READY = WorkerState(at=0, not_ready=None, clock_offset=0, keys=KEYS, keys_read_at=NOW - 12, signer={})
ALL = Requests(caller=None, minted=1200, refused=3, failed=1, recently_minted=30)
STATE = ServiceState(
    at=NOW,
    started_at=NOW - 3600,
    up_seconds=3600,
    signer="jwk-file",
    timing=Timing(4500, 3720),
    restarts=0,
    workers=[Worker(READY, None)],
    requests=[ALL],
    recent_seconds=300,
)


def page(**changes: object) -> ET.Element:
    """The page as XML: it is well-formed, but for what HTML has no end of."""
    text = render(msgspec.structs.replace(STATE, **changes)).decode()
    body = re.sub(r"<(meta [^>]*[^/])>", r"<\1/>", text.removeprefix("<!doctype html>\n"))
    return ET.fromstring(body)  # noqa: S314 - our own


def words(element: ET.Element) -> str:
    return " ".join(" ".join(element.itertext()).split())


def rows(found: ET.Element, name: str) -> list[list[str]]:
    """The table of this name, with its headings."""
    (region,) = (each for each in found.iter("div") if each.get("aria-label") == name)
    return [["".join(cell.itertext()) for cell in row] for row in region.iter("tr")]


def badge(found: ET.Element) -> str:
    return next("".join(each.itertext()) for each in found.iter("p") if "badge" in (each.get("class") or ""))


def test_the_page_says_how_the_service_is() -> None:
    """Keys with their times, readiness, requests and their rates; in UTC."""
    found = page()
    assert badge(found) == "ready"
    assert "old signs. new takes over in 50m." in words(found)
    assert "Signer jwk-file. 1 worker. Up 1h, since 2026-11-29 23:20." in words(found)
    assert rows(found, "Signing keys")[1:] == [
        [
            *("old", "ES256", "active"),
            *("2026-11-29 00:20", "2026-11-29 02:07", "2026-11-30 01:10", "2026-11-30 02:12"),
        ],
        ["new", "RS256", "pre-activation", "2026-11-29 23:55", "2026-11-30 01:10", "-", "-"],
    ]
    assert rows(found, "Readiness")[1:] == [["0", "ready", "-", "12s ago"]]
    headings, numbers = rows(found, "Requests for tokens")
    assert headings[-2:] == ["Tokens/min", "Tokens/min, last 5m"]
    assert numbers == ["all requests", "1,200", "3", "1", "20", "6"]
    assert "Audit log Off." in words(found)
    scopes = [cell.get("scope") for cell in found.iter("th")]
    assert (scopes.count("col"), scopes.count("row"), len(scopes)) == (17, 4, 21)
    assert next(found.iter(f"{SVG}svg")).get("role") == "img"


def test_reasons_are_those_of_each_worker() -> None:
    """One that has not reported is starting; the page is bad news if one worker can't mint."""
    sealed = Worker(msgspec.structs.replace(READY, not_ready="sealed"), "sealed")
    one = page(workers=[Worker(READY, None), sealed, None])
    assert badge(one) == "1 of 3 workers ready: sealed, starting"
    assert [row[1:3] for row in rows(one, "Readiness")[1:]] == [
        ["ready", "-"],
        ["not ready", "sealed"],
        ["not ready", "starting"],
    ]
    assert badge(page(workers=[sealed])) == "not ready: sealed"


def test_without_keys_there_is_no_picture() -> None:
    """As while Vault can't be reached since the start."""
    unread = msgspec.structs.replace(READY, keys=[], keys_read_at=None, not_ready="unreachable")
    found = page(workers=[Worker(unread, "unreachable")])
    assert badge(found) == "not ready: unreachable"
    assert "No keys have been read" in words(found)
    assert not list(found.iter(f"{SVG}svg"))


def test_keys_that_differ_are_said_to() -> None:
    """And those of the worker that read last are shown."""
    later = msgspec.structs.replace(READY, keys=KEYS[:1], keys_read_at=NOW - 1)
    found = page(workers=[Worker(READY, None), Worker(later, None)])
    assert "publish different keys" in words(found)
    assert [row[0] for row in rows(found, "Signing keys")[1:]] == ["old"]
    assert "publish different keys" not in words(page(workers=[Worker(READY, None)] * 2))
    unread = msgspec.structs.replace(READY, keys=[], keys_read_at=None)
    assert "publish different keys" not in words(page(workers=[Worker(READY, None), Worker(unread, None)]))


def test_a_stepped_wall_clock_changes_no_rate_and_no_time_of_a_key() -> None:
    """The mean is of the time that passed, and now is where the key schedule has it."""
    day = 86400
    stepped = msgspec.structs.replace(READY, clock_offset=day, not_ready="clock-step")
    found = page(at=NOW + day, workers=[Worker(stepped, "clock-step")])
    assert "old signs. new takes over in 50m." in words(found)
    assert rows(found, "Requests for tokens")[1][4] == "20"


def test_a_low_rate_has_no_exponent() -> None:
    """As of one token in a week."""
    assert (
        rows(
            page(up_seconds=7 * 86400, requests=[msgspec.structs.replace(ALL, minted=1)]),
            "Requests for tokens",
        )[1][4]
        == "<0.01"
    )


def test_callers_and_heads_have_a_row_each() -> None:
    """A rate needs an earlier reading; without one, the page says so in the place of a number."""
    requests: Sequence[Requests] = [
        Requests(caller=caller, minted=minted, refused=0, failed=0, recently_minted=None)
        for caller, minted in ((None, 5), ("playground", 2), (HOSTILE, 0))
    ]
    head = AuditHead("a1b2c3", 1234, "f" * 64)
    worker = Worker(msgspec.structs.replace(READY, audit_head=head), None)
    found = page(requests=requests, recent_seconds=None, workers=[worker])
    assert rows(found, "Requests for tokens")[1:] == [
        ["all requests", "5", "0", "0", "0.083"],
        ["playground", "2", "0", "0", "0.033"],
        [HOSTILE, "0", "0", "0", "0"],
    ]
    assert "A recent rate needs an earlier reading" in words(found)
    assert rows(found, "Heads of the audit log")[1:] == [["a1b2c3", "1,234", "f" * 64]]


def test_nothing_on_the_page_is_markup_of_others() -> None:
    """Of a kid, a signer, a reason and a caller; a plugin's time out of all calendars is no error."""
    key = PublishedKey(HOSTILE, HOSTILE, "active", 1e300, None, -1e300)
    worker = Worker(msgspec.structs.replace(READY, keys=[key], not_ready=HOSTILE), HOSTILE)
    found = page(workers=[worker], signer=HOSTILE)
    tags = {element.tag.rpartition("}")[2] for element in found.iter()}
    assert tags.isdisjoint({"img", "script", "link", "a", "form", "iframe"})
    assert rows(found, "Signing keys")[1][0] == HOSTILE
    assert not any(
        name.startswith("on") or name in {"style", "src", "href"} for e in found.iter() for name in e.attrib
    )


def test_the_policy_allows_this_style_and_nothing_else() -> None:
    """The hash in the header is that of the page's one style."""
    headers = dict(HEADERS)
    (style,) = page().iter("style")
    digest = base64.b64encode(hashlib.sha256((style.text or "").encode()).digest()).decode()
    assert headers[b"content-security-policy"].decode().split("; ") == [
        "default-src 'none'",
        f"style-src 'sha256-{digest}'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
