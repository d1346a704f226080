"""The picture of keys over time: states by class and by word, the named times, and no kid that breaks it."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence

import pytest

from macp_auth.domain.keys import Algorithm, ECPublicJWK, KeyVersion
from macp_auth.domain.rotation import Timing, lifetimes
from macp_auth.domain.worker_state import PublishedKey
from macp_auth.entrypoints.pictures.drawing import STYLE, as_element, as_file
from macp_auth.entrypoints.pictures.text import as_text
from macp_auth.entrypoints.pictures.timeline import Timeline, timeline_of

TIMING = Timing(publish_lead=4500, retire_lag=3720)
NOW = 1_795_996_800.0 + 1234  # 30 November 2026, 00:20 UTC
DAY = 86400.0
SVG = "{http://www.w3.org/2000/svg}"
PRE, ACTIVE, OLD = "pre-activation", "active", "deactivated"
HOSTILE = "</title><script>alert('1')</script>&\"]]>"


def key(kid: str, age: float | None, *, can_sign: bool = True, not_after: float | None = None) -> KeyVersion:
    """A version that was created ``age`` seconds ago."""
    jwk = ECPublicJWK(crv="P-256", x="", y="")
    created = None if age is None else NOW - age
    return KeyVersion(
        kid=kid,
        algorithm=Algorithm.ES256,
        public_jwk=jwk,
        can_sign=can_sign,
        created_at=created,
        not_after=not_after,
    )


def timeline(*versions: KeyVersion) -> Timeline:
    found = lifetimes(versions, TIMING, NOW)
    return timeline_of([PublishedKey.of(each) for each in found], TIMING, NOW, "the table")


def periods(drawn: Timeline) -> list[list[str]]:
    return [[period.name for period in row.periods] for row in drawn.rows]


def texts(svg: str) -> list[str]:
    root = ET.fromstring(svg)  # noqa: S314 - our own
    return ["".join(element.itertext()) for element in root.iter(f"{SVG}text")]


THREE = (key("old", 40 * DAY), key("now", 6000), key("new", 500))


@pytest.mark.parametrize(
    ("versions", "states", "headline"),
    [
        ([key("a", 40 * DAY)], [[PRE, ACTIVE]], "a signs. No change of the signing key is planned."),
        ([key("a", 20)], [[ACTIVE]], "a signs. No change of the signing key is planned."),
        ([key("dev-key-1", None)], [[ACTIVE]], "dev-key-1 signs. No change of the signing key is planned."),
        ([key("b", 1500)], [[ACTIVE]], "b signs. No change of the signing key is planned."),
        (
            [key("a", 40 * DAY), key("b", 1500)],
            [[PRE, ACTIVE, OLD], [PRE, ACTIVE]],
            "a signs. b takes over in 50m.",
        ),
        (
            THREE,
            [[PRE, ACTIVE, OLD], [PRE, ACTIVE, OLD], [PRE, ACTIVE]],
            "now signs. new takes over in 1h 6m.",
        ),
        ([key("public", None, can_sign=False), key("a", None)], [[OLD], [ACTIVE]], None),
        (
            [key("a", None, not_after=NOW + 3720 + 60), key("b", None, not_after=NOW + DAY)],
            [[ACTIVE, OLD], [OLD]],
            "a signs. Another key takes over in 1m.",
        ),
    ],
    ids=["one", "new", "ephemeral", "after-a-withdrawal", "lead", "three", "can't-sign", "expires"],
)
def test_each_key_has_its_states_in_order(
    versions: Sequence[KeyVersion], states: list[list[str]], headline: str | None
) -> None:
    """And one sentence says who signs, and who will."""
    drawn = timeline(*versions)
    assert periods(drawn) == states
    assert headline in {None, drawn.headline}


def test_a_picture_says_all_in_words() -> None:
    """The states in the bars, the legend and the labels; the lead, the lag, now, and round times."""
    svg = as_file(timeline(*THREE))
    said = texts(svg)
    for expected in (
        "Signing keys",
        "now signs. new takes over in 1h 6m.",
        "pre-activation: published, signs later",
        "active: signs",
        "deactivated: signs no more",
        "old · ES256 · deactivated, leaves the JWKS in 37m",
        "now · ES256 · active, stops signing in 1h 6m",
        "new · ES256 · pre-activation, starts signing in 1h 6m",
        "publish lead 1h 15m",
        "retire lag 1h 2m",
        "now",
        "00:00",
        "29 Nov 2026",
        "30 Nov",
    ):
        assert expected in said
    assert (said.count(PRE), said.count(ACTIVE), said.count(OLD)) == (2, 3, 2)  # in the bars
    classes = [element.get("class") for element in ET.fromstring(svg).iter(f"{SVG}rect")]  # noqa: S314
    assert (classes.count(PRE), classes.count(ACTIVE), classes.count(OLD)) == (3, 4, 3)  # and the legend


def test_a_picture_is_for_the_dark_and_for_the_ear() -> None:
    """It has a dark look, and a title and a description that a screen reader reads in the place of it."""
    svg = as_file(timeline(*THREE))
    root = ET.fromstring(svg)  # noqa: S314 - our own
    assert (root.get("role"), root.get("aria-labelledby")) == ("img", "title description")
    assert {element.get("id"): element.tag for element in root[:2]} == {
        "title": f"{SVG}title",
        "description": f"{SVG}desc",
    }
    described = root[1].text or ""
    assert "Key new: ES256, pre-activation, starts signing in 1h 6m." in described
    assert "(publish lead)" in described
    assert "prefers-color-scheme: dark" in svg


@pytest.mark.parametrize("draw", [as_file, as_element])
def test_a_hostile_kid_stays_text(draw: object) -> None:
    """No markup of its own comes into the document."""
    assert callable(draw)
    svg = draw(timeline(key(HOSTILE, 40 * DAY), key("x" * 256, 1500)))
    root = ET.fromstring(svg)  # noqa: S314 - our own
    assert "script" not in {element.tag.removeprefix(SVG) for element in root.iter()}
    assert HOSTILE in (root[1].text or "")
    assert "x" * 25 not in "".join(texts(svg))


def test_versions_of_a_key_with_a_long_name_have_names_of_their_own() -> None:
    """As of Vault, where the name comes first: a sentence of two equal names says nothing."""
    long = "macp-auth-production-signing"
    drawn = timeline(key(f"{long}-v1-umqr3dHRa1Sx", 40 * DAY), key(f"{long}-v2-aKJ1HBXG8J4s", 1500))
    assert drawn.headline == "macp-auth-produ…3dHRa1Sx signs. macp-auth-produ…HBXG8J4s takes over in 50m."
    assert [row.label for row in drawn.rows] == ["macp-auth-produ…3dHRa1Sx", "macp-auth-produ…HBXG8J4s"]


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: str, other: str) -> float:
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_colours_differ_enough(scheme: int) -> None:
    """By WCAG 2.2: 4.5 for a text on its background, 3 for the edge of a bar."""
    pairs = re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", STYLE)
    half = len(pairs) // 2
    colours = dict(pairs[scheme * half : (scheme + 1) * half])
    texts = [("text", "card"), ("muted", "card"), ("now", "card"), ("on-active", "active")]
    texts += [("text", "pre"), ("text", "old"), ("text", "revoked")]
    edges = [(edge, "card") for edge in ("active", "pre-edge", "old-edge", "now")]
    found = {pair: _contrast(colours[pair[0]], colours[pair[1]]) for pair in texts + edges}
    assert {pair: ratio for pair, ratio in found.items() if ratio < (4.5 if pair in texts else 3)} == {}


def test_bars_are_where_their_times_are() -> None:
    """The new key starts where the old one stops, and a key from before the picture has an open end."""
    root = ET.fromstring(as_file(timeline(key("a", 40 * DAY), key("b", 1500))))  # noqa: S314 - our own
    bars = [
        (element.get("class"), float((element.get("x") or "").rstrip("%")), element.get("width") or "")
        for element in root.iter(f"{SVG}rect")
        if (element.get("x") or "").endswith("%")
    ]
    ends = {(kind, round(x, 1)): round(x + float(width.rstrip("%")), 1) for kind, x, width in bars}
    (switch,) = {end for (kind, _), end in ends.items() if kind == PRE}
    assert ends[ACTIVE, 0.0] == switch
    assert ends[ACTIVE, switch] == 100
    assert (OLD, switch) in ends
    arrows = [element.get("class") for element in root.iter(f"{SVG}path")]
    assert arrows == ["active", "active"]


def test_an_old_key_does_not_shrink_a_rotation() -> None:
    """The picture is of hours, not of the ten years since the key was made."""
    drawn = timeline(key("a", 3650 * DAY), key("b", 1500))
    assert drawn.end - drawn.begin < 6 * 3600


def test_of_many_keys_those_that_matter_are_drawn() -> None:
    """Who signs, who will, and who stopped last, in their order; the picture says that there are more."""
    stopped = [key(f"old-{number:03}", 4500 + 3600 - 18 * number) for number in range(196)]
    waiting = [key("soon", 3000), key("later", 10)]
    drawn = timeline(key("public", None, can_sign=False), *waiting, *stopped, key("signs", 4500))
    assert [row.name for row in drawn.rows] == [
        *("soon", "later"),
        *(f"old-{number:03}" for number in range(179, 196)),
        "signs",
    ]
    assert "20 of 200 published keys are drawn; the table shows all of them." in drawn.description
    root = ET.fromstring(as_file(drawn))  # noqa: S314 - our own
    assert float(root.get("height") or "inf") < 1600
    notes = [float(each.get("y") or "") for each in root.iter(f"{SVG}text") if each.get("class") == "note"]
    assert notes[-3:] == sorted(notes)[-3:]


def test_a_terminal_shows_the_same() -> None:
    """Who signs when, by three marks, with states in words and round times."""
    lines = as_text(timeline(*THREE), 120).splitlines()
    assert lines[0] == "now signs. new takes over in 1h 6m."
    rows = [line.split() for line in lines[3:6]]
    assert [row[:3] for row in rows] == [
        ["old", "ES256", OLD],
        ["now", "ES256", ACTIVE],
        ["new", "ES256", PRE],
    ]
    assert lines[3].index("█") < lines[3].index("▓")
    assert lines[4].index("░") < lines[4].index("█") < lines[4].index("▓")
    assert lines[5].index("█") == lines[4].index("▓")
    assert lines[5].index("░") > lines[4].index("█")
    pointer = lines[2].index("now")
    assert (lines[3][pointer], lines[4][pointer], lines[5][pointer]) == ("▓", "█", "░")
    assert lines[7].split() == ["23:00", "00:00", "01:00", "02:00"]
    assert lines[8].split() == ["29", "Nov", "2026", "30", "Nov"]
    legend = ["░ pre-activation: published, signs later", "█ active: signs"]
    assert lines[10] == "  ".join([*legend, "▓ deactivated: signs no more"])


def test_the_bars_fit_into_the_terminal() -> None:
    """With kids as long as thumbprints: bars that are wrapped are no picture."""
    drawn = timeline(key("x" * 43, 40 * DAY), key("y" * 43, 1500))
    for width, columns in ((120, 50), (80, 31), (40, 20)):
        first, second = as_text(drawn, width).splitlines()[3:5]
        assert len(second) - first.index("\N{FULL BLOCK}") == columns


@pytest.mark.parametrize("width", range(60, 110))
def test_a_narrow_picture_can_be_read(width: int) -> None:
    """The column of now shows who signs now, and the days of the axis do not touch."""
    lines = as_text(timeline(key("x" * 30, 10), key("y" * 30, 4501)), width).splitlines()
    pointer = lines[2].index("now")
    assert (lines[3][pointer], lines[4][pointer]) == ("░", "█")
    assert re.search(r"2026\d", lines[7]) is None
