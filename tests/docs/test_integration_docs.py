"""docs/integration.md: its code mints, and its claims about both sides are those of our models of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from macp_auth.domain.key_set import MAX_TOKEN_BYTES
from macp_auth.domain.policy import MACP_RUNTIME
from macp_auth.domain.scopes import KNOWN_SCOPES
from macp_auth.entrypoints.environment import ECOSYSTEM, PREFIX, variables
from macp_auth.entrypoints.server.processes import KEEP_ALIVE_SECONDS
from macp_auth.entrypoints.settings import Settings
from tests.docs.pages import blocks, read, rows, section
from tools.support.callers import claims_of
from tools.support.service import Service

PAGE = read("docs/integration.md")
TEXT = " ".join(PAGE.split())


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with Service(tmp_path, {f"{PREFIX}SIGNING_ALG": "ES256"}) as service:
        yield service


def test_the_orchestrator_s_code_starts_an_agent(service: Service, tmp_path: Path) -> None:
    """As it stands, but for its address and its paths: the token is in the file that the SDK reads."""
    (code,) = (block.text for block in blocks(section(PAGE, "SDK orchestrators")))
    bearer = tmp_path / "bearer"
    bearer.write_text("macp_secret")
    code = code.replace("https://auth.example.com", service.url).replace("/run/agents", str(tmp_path))
    code = code.replace("/var/run/secrets/macp-auth/token", str(bearer))
    code = code.replace('"/etc/macp-auth/ca.pem"', "None")
    exec(code, {})  # noqa: S102 - our own page
    started = json.loads((tmp_path / "risk-agent.json").read_text())
    claims = claims_of(started["auth_token"])
    assert claims["sub"] == started["participant_id"] == "risk-agent"
    assert set(claims["macp_scopes"]) == set(KNOWN_SCOPES), "the page says: set every scope"


def test_the_page_has_each_variable_that_we_know_of_other_programs() -> None:
    """In the tables of those programs, and none that we would report as misspelt."""
    tables = [section(PAGE, title) for title in ("The runtime", "The control plane", "The playground")]
    named = [set(re.findall(r"MACP_AUTH_\w+", row[0])) for table in tables for row in rows(table)]
    assert set().union(*named) == ECOSYSTEM - {f"{PREFIX}SERVICE_IMAGE"}
    assert f"`{PREFIX}SERVICE_IMAGE`" in section(PAGE, "The Compose files of MACP")


def test_two_of_the_runtime_s_variables_are_ours_too() -> None:
    """With the meaning that both share."""
    ours = {variable.name: variable for variable in variables(Settings, PREFIX)}
    assert ECOSYSTEM & ours.keys() == {f"{PREFIX}ISSUER", f"{PREFIX}AUDIENCE"}
    assert f"`{ours[f'{PREFIX}AUDIENCE'].default}`, on both sides" in TEXT


@pytest.mark.parametrize(
    "said",
    [
        f"leave it unset: {MACP_RUNTIME.cache_ttl} ",
        f"old keys for {MACP_RUNTIME.stale_grace} s after",
        f"allows {MACP_RUNTIME.leeway} s of leeway",
        f"over {MAX_TOKEN_BYTES} bytes",
        f"closes them after {KEEP_ALIVE_SECONDS} s",
    ],
)
def test_numbers_are_the_code_s(said: str) -> None:
    """Those of the service, and of the model of the runtime."""
    assert said in TEXT


def test_the_doctor_s_command_has_the_defaults() -> None:
    """So that a reader who changed nothing can type it as it stands."""
    defaults = {variable.field: variable.default for variable in variables(Settings, PREFIX)}
    assert f"--issuer {defaults['issuer']} --audience {defaults['audience']}" in TEXT
