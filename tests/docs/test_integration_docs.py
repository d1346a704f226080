"""docs/integration.md: its code mints, and its claims about both sides are those of our models of them."""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, Self

import pytest

from macp_auth.domain.key_set import MAX_TOKEN_BYTES
from macp_auth.domain.policy import MACP_RUNTIME
from macp_auth.domain.scopes import KNOWN_SCOPES
from macp_auth.entrypoints.environment import ECOSYSTEM, PREFIX, variables
from macp_auth.entrypoints.server.processes import KEEP_ALIVE_SECONDS
from macp_auth.entrypoints.settings import Settings
from tests.docs.pages import blocks, read, rows, section
from tools.support.service import Service

PAGE = read("docs/integration.md")
TEXT = " ".join(PAGE.split())
DEFINITION, CALL = (
    block.text for block in blocks(section(PAGE, "SDK orchestrators")) if block.language == "python"
)


@pytest.fixture
def page() -> dict[str, Any]:
    """What the page's code defines."""
    names: dict[str, Any] = {}
    exec(DEFINITION, names)  # noqa: S102 - our own page
    return names


class Proxy(HTTPServer):
    """Answers with the given statuses first, and then with what was sent to it."""

    def __init__(self, *statuses: int) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.statuses = list(statuses)
        self.seen: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class _Answer(BaseHTTPRequestHandler):
    server: Proxy

    def do_POST(self) -> None:
        sent = self.rfile.read(int(self.headers["content-length"]))
        self.server.seen.append(self.headers["authorization"])
        self.send_response(self.server.statuses.pop(0) if self.server.statuses else 200)
        self.send_header("retry-after", "0")
        self.send_header("content-length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with Service(tmp_path, {f"{PREFIX}SIGNING_ALG": "ES256"}) as service:
        yield service


def test_the_orchestrator_s_code_mints(page: dict[str, Any], service: Service) -> None:
    """Both blocks as they stand, but for the address."""
    page["password"] = "unused"
    exec(CALL.replace("https://auth.example.com", service.url), page)  # noqa: S102 - our own page
    minted = page["minted"]
    assert (minted["sender"], minted["expires_in_seconds"]) == ("agent://risk", 600)
    payload = minted["token"].split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    assert set(claims["macp_scopes"]) == set(KNOWN_SCOPES), "the page says: set every scope"


def test_a_refusal_names_its_reason_and_is_not_repeated(page: dict[str, Any], service: Service) -> None:
    """A 4xx of the service."""
    with pytest.raises(RuntimeError, match="400 .*sender is required"):
        page["mint"](service.url, "a", "b", " ", {}, 60)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_what_passes_is_tried_again(page: dict[str, Any], status: int) -> None:
    """With the caller's credential each time."""
    with Proxy(status) as proxy:
        assert page["mint"](proxy.url, "a", "b", "agent://risk", {}, 60)["sender"] == "agent://risk"
    assert proxy.seen == ["Basic " + base64.b64encode(b"a:b").decode()] * 2


@pytest.mark.parametrize(("status", "times"), [(503, 4), (401, 1), (403, 1), (415, 1)])
def test_what_does_not_pass_is_given_up(page: dict[str, Any], status: int, times: int) -> None:
    """At once, or after the last attempt."""
    with Proxy(*[status] * 9) as proxy, pytest.raises(RuntimeError, match=f"agent://risk: {status} "):
        page["mint"](proxy.url, "a", "b", "agent://risk", {}, 60)
    assert len(proxy.seen) == times


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
