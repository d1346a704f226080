"""The README says what is true."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import get_type_hints

import msgspec

import macp_auth_aws_kms
from macp_auth_aws_kms import AWSKMSSettings, errors, kms

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_policy_is_the_least() -> None:
    """It parses, allows the three actions and no other, on keys by ARN, and signing only as we sign."""
    (text,) = re.findall(r"^```json\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    reading, signing = json.loads(text)["Statement"]
    assert set(reading["Action"]) == {"kms:DescribeKey", "kms:GetPublicKey"}
    assert signing["Action"] == "kms:Sign"
    assert reading["Effect"] == signing["Effect"] == "Allow"
    assert reading["Resource"] == signing["Resource"]
    assert all(re.fullmatch(r"arn:aws:kms:[\w-]+:\d{12}:key/[\w-]{36}", arn) for arn in signing["Resource"])
    assert set(signing["Condition"]) == {"StringEquals"}
    only = signing["Condition"]["StringEquals"]
    assert set(only["kms:SigningAlgorithm"]) == set(kms._SIGNING_ALGORITHMS.values())
    assert set(only["kms:MessageType"]) == {"RAW", "DIGEST"}


def test_every_variable_has_its_row() -> None:
    """With the default and the words that its error message has."""
    hints = get_type_hints(AWSKMSSettings, include_extras=True)
    for field in msgspec.structs.fields(AWSKMSSettings):
        extra = hints[field.name].__metadata__[0].extra
        name = extra.get("variable", f"MACP_AUTH_AWS_KMS_{field.name.upper()}")
        default = "required" if field.required else "unset" if field.default is None else str(field.default)
        (row,) = re.findall(rf"^\| `{name}` \|.*\|$", README, re.MULTILINE)
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert cells[2] == default
        assert cells[4] == extra["expects"]
        assert f"``{name}``" in str(macp_auth_aws_kms.__doc__)


def test_every_reason_has_its_row() -> None:
    """Every reason in the log is in the README."""
    rows = "".join(re.findall(r"^\| `.*`.*\|$", README, re.MULTILINE))
    own = {"throttled", "no-credentials", "timeout", "unreachable", "bad-answer", "busy"}
    for reason in {*errors._REFUSED.values(), *own, "unavailable", "misconfigured", "unknown-kid"}:
        assert f"`{reason}`" in rows


def test_links_lead_to_headings() -> None:
    """Every link within the page has its heading."""
    titles = re.findall(r"^#+ (.+)$", README, re.MULTILINE)
    headings = {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}
    assert set(re.findall(r"\]\(#([^)]+)\)", README)) <= headings
