"""The README says what is true."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_type_hints

import msgspec

import macp_auth_gcp_kms
from macp_auth_gcp_kms import GCPKMSSettings, errors, kms, macp_auth_signer

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_role_is_the_least() -> None:
    """It has the three permissions and no other, in the module's docstring, too."""
    (role,) = re.findall(r"--permissions=(\S+)", README)
    permissions = [f"cloudkms.cryptoKeyVersions.{name}" for name in ("list", "useToSign", "viewPublicKey")]
    assert role.split(",") == permissions
    assert all(f".{name.rpartition('.')[2]}" in str(macp_auth_gcp_kms.__doc__) for name in permissions)


def test_every_variable_has_its_row() -> None:
    """With the default and the words that its error message has."""
    hints = get_type_hints(GCPKMSSettings, include_extras=True)
    for field in msgspec.structs.fields(GCPKMSSettings):
        name = f"MACP_AUTH_GCP_KMS_{field.name.upper()}"
        default = "required" if field.required else "unset" if field.default is None else str(field.default)
        (row,) = re.findall(rf"^\| `{name}` \|.*\|$", README, re.MULTILINE)
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert cells[2] == default
        assert cells[4] == hints[field.name].__metadata__[0].extra["expects"]
        assert f"``{name}``" in str(macp_auth_gcp_kms.__doc__)


def test_everything_that_can_be_seen_has_its_row() -> None:
    """Every algorithm, and every reason in the log."""
    rows = "".join(re.findall(r"^\| `.*`.*\|$", README, re.MULTILINE))
    reasons = {reason for reason, _ in errors._REFUSED.values()} | set(errors._UNAVAILABLE.values())
    own = {"no-credentials", "bad-answer", "busy", "misconfigured", "unknown-kid"}
    for word in reasons | own | set(kms.ALGORITHMS):
        assert f"`{word}`" in rows


def test_variables_of_google_are_named() -> None:
    """Each that the plugin's process gets, but the lower case of proxies."""
    for name in macp_auth_signer().environment:
        assert name.islower() or f"`{name}`" in README


def test_links_lead_to_headings() -> None:
    """Every link within the page has its heading."""
    titles = re.findall(r"^#+ (.+)$", README, re.MULTILINE)
    headings = {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}
    assert set(re.findall(r"\]\(#([^)]+)\)", README)) <= headings
