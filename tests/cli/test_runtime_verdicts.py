"""``macp-auth verify`` says what the real MACP runtime says: its verdicts were recorded.

``python -m tools.macp_runtime`` asks it again.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from macp_auth.entrypoints.cli.runtime_keys import PublishedKey, read_jwks
from macp_auth.entrypoints.cli.verification import Expected, judge, runtime_accepts
from tools.macp_runtime.__main__ import RECORDED
from tools.macp_runtime.cases import AUDIENCE, ISSUER, Case, all_cases

NOW = 1_800_000_000
EXPECTED = Expected(issuer=ISSUER, audience=AUDIENCE, leeway=60)
RECORDS: dict[str, dict[str, Any]] = {row["id"]: row for row in json.loads(RECORDED.read_bytes())["cases"]}
CASES = {case.id: case for case in all_cases()}
REFUSED_BY_OURS_ALONE = {
    "header as a list",  # serde takes a list for a struct; no other verifier does
    'header alg {"ES256":null}',  # and this for an enum
    *(name for name in CASES if name.startswith("header jwk {")),  # a token that brings its own key
}


def published(case: Case) -> list[PublishedKey]:
    """The keys that the verifier has; none if it refuses the set."""
    try:
        return list(read_jwks(case.document().encode()))
    except ValueError:
        return []


def test_the_record_is_of_these_cases() -> None:
    """A case that changed, or is new, has to be asked again."""
    assert {
        name: {member: value for member, value in row.items() if member not in {"accepted", "refused"}}
        for name, row in RECORDS.items()
    } == {name: msgspec.to_builtins(case) for name, case in CASES.items()}


@pytest.mark.parametrize("name", CASES)
def test_verdict(name: str) -> None:
    """What the runtime refuses is refused, and what it takes is either good or named as lenience of it."""
    case = CASES[name]
    keys = published(case)
    findings = judge(case.token(NOW), keys, EXPECTED, NOW) if keys else []
    accepted = bool(findings) and runtime_accepts(findings)
    wrong = [(finding.check, finding.found) for finding in findings if not finding.good]
    assert accepted == ("accepted" in RECORDS[name] and name not in REFUSED_BY_OURS_ALONE), wrong
    if not wrong:
        assert not findings or "accepted" in RECORDS[name]
