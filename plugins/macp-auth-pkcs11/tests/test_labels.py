"""What a label says of its key."""

from __future__ import annotations

import pytest

from macp_auth_pkcs11.labels import NoTime, is_version, made_at


@pytest.mark.parametrize(
    ("label", "expected"),
    [("macp", True), ("macp@2026-12-01T06:00:00Z", True), ("macp@x", True), ("macp2", False), ("", False)],
)
def test_stem_alone_or_before_an_at_sign(label: str, expected: bool) -> None:  # noqa: FBT001 - parametrised
    """A version has the stem as its label, or the stem and an at sign at its beginning."""
    assert is_version(label, "macp") is expected


def test_time_is_read_as_utc() -> None:
    """The time is in UTC whatever the zone of the host; a label that is the stem has none."""
    assert made_at("macp@1970-01-02T00:00:01Z", "macp") == 86401
    assert made_at("a@b@1970-01-02T00:00:01Z", "a@b") == 86401
    assert made_at("macp", "macp") is None


@pytest.mark.parametrize(
    "text",
    [
        *("", "tomorrow", "2026-12-01", "2026-12-01T06:00:00", "2026-12-01T06:00Z"),
        *(
            "2026-12-01T06:00:00+01:00",
            "2026-13-01T06:00:00Z",
            "2026-12-01T06:00:00Z ",
            "\uff12026-12-01T06:00:00Z",
        ),
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    """A time that could be meant otherwise, without zone or seconds, is no time."""
    with pytest.raises(NoTime, match="such as 2026-12-01T06:00:00Z"):
        made_at(f"macp@{text}", "macp")
