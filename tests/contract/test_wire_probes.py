"""Replays what the reference service was asked, over a raw socket, and compares the answers.

``tests/data/wire-probes.json`` holds recorded facts: a request, and what the reference answered.
Where an entry has a ``deviation``, ours is the better answer in ``ours``, and
docs/compatibility.md gives the reason under that name; everywhere else the two must be equal.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.wire_probes import PROBES, raw_request
from tools.support.runtime import claims_at_runtime
from tools.support.service import Service
from tools.support.verifiers import verify_minted
from tools.support.wire import Answer, exchange

ROOT = Path(__file__).parents[2]
NO_CONTENT = {304}


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe["id"])
def test_wire_probe(probe: dict[str, Any], service: Service) -> None:
    """The answer is the reference's, or the better one that is documented."""
    asked_at = time.time()
    answer = exchange(service.port, raw_request(probe), method=probe["request"].get("method", "POST"))
    expected = {**probe["reference"], **probe["ours"]} if "deviation" in probe else probe["reference"]

    assert answer.status == expected["status"], answer.body
    if answer.status == 200 and "claims" in expected:
        _assert_minted(answer, service, expected, asked_at)
    elif answer.status >= 400 and probe["request"].get("method") != "HEAD":
        _assert_refused(answer, None if "deviation" in probe else expected.get("error"))
        if "error" in probe.get("ours", {}):
            assert answer.json["error"] == probe["ours"]["error"]
    if "allow" in expected:
        assert answer.headers["allow"] == expected["allow"]
    assert answer.status in NO_CONTENT or answer.headers["content-type"] == "application/json"


def _assert_minted(answer: Answer, service: Service, expected: dict[str, Any], asked_at: float) -> None:
    minted = answer.json
    assert set(minted) == {"token", "sender", "expires_in_seconds"}
    claims = verify_minted(minted["token"], service.jwks(), asked_at)
    claims_at_runtime(minted["token"])
    lifetime = claims.pop("exp") - claims.pop("iat")
    assert claims == expected["claims"]
    assert minted["sender"] == claims["sub"]
    assert lifetime == minted["expires_in_seconds"] == expected.get("ttl", expected["expires_in_seconds"])


def _assert_refused(answer: Answer, error: str | None) -> None:
    assert set(answer.json) == {"error"}
    assert isinstance(answer.json["error"], str)
    if error is not None:
        assert answer.json["error"] == error


def test_every_deviation_is_documented() -> None:
    """docs/compatibility.md has a heading for each deviation, and none that is not tested."""
    used = {probe["deviation"] for probe in PROBES if "deviation" in probe}
    page = (ROOT / "docs/compatibility.md").read_text()
    documented = {line.split("`")[1] for line in page.splitlines() if line.startswith("### `")}
    assert documented == used
