"""docs/integration.md says of the runtime what the real one did, and of the SDK what the real one does."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
import yaml
from macp_sdk import MacpClient
from macp_sdk.errors import MacpIdentityMismatchError

from macp_auth.adapters.linear_pattern import LinearPattern
from tests.docs.pages import ROOT, blocks, plain, read, rows, section
from tools.support.service import Service
from tools.support.verifiers import verify_with_pyjwt

PAGE = read("docs/integration.md")
TEXT = " ".join(PAGE.split())
RECORD = json.loads(read("tests/data/runtime-behaviour.json"))
ANSWERS: dict[str, str] = {
    case: answer for group in RECORD["answers"].values() for case, answer in group.items()
}
REAL_SENDERS = ["macp-control-plane", "macp-playground", "risk-agent"]
[SDK_CODE] = [
    block.text for block in blocks(PAGE) if "AuthConfig" in block.text and block.language == "python"
]


def test_the_answers_are_those_of_the_runtime_that_the_page_names() -> None:
    """Each row of the table, and the version beside it."""
    table = rows(section(PAGE, "What it answers"))
    assert {plain(row[0]): plain(row[1]) for row in table}.items() <= ANSWERS.items()
    assert len(table) > 10
    assert RECORD["asked"].split(",")[0] in section(PAGE, "What it answers").replace("`", "")


@pytest.mark.parametrize(
    ("case", "answer", "said"),
    [
        ("a connection to the https URL", "none", "can't fetch an `https` URL"),
        ("a good token, the JWKS at an https URL", "status UNAUTHENTICATED", "refuses every token"),
        ("an ambient Signal, allowed_modes empty", "Ack FORBIDDEN", "An empty `allowed_modes` is none"),
        (
            "20 sessions, max_open_sessions absent",
            "accepted",
            "an absent `max_open_sessions` is no limit",
        ),
        ("WatchSessions, every scope denied", "accepted", "sees the list of all sessions"),
        ("WatchSignals, every scope denied", "accepted", "and every Signal with its data"),
        ("GetSession of others, every scope denied", "status PERMISSION_DENIED", "Only `is_observer`"),
        (
            "issuer alone, MACP_ALLOW_INSECURE unset",
            "does not start",
            "does not start without `MACP_ALLOW_INSECURE=1`",
        ),
        (
            "issuer alone, MACP_ALLOW_INSECURE=1",
            "any text is a token: accepted",
            "any text is the token of a sender",
        ),
        (
            "empty MACP_AUTH_JWKS_JSON beside a URL, MACP_ALLOW_INSECURE=1",
            "any text is a token: accepted",
            "set but empty",
        ),
        (
            "HS256 token of an oct key",
            "status UNAUTHENTICATED",
            "reads `oct` keys too, but accepts HS256 only",
        ),
        ("HS256 token of an oct key, HS256 listed", "accepted", "where its list of algorithms names it"),
    ],
)
def test_the_traps_are_the_runtime_s(case: str, answer: str, said: str) -> None:
    """What was recorded, and the words for it."""
    assert ANSWERS[case] == answer
    assert said in TEXT


def test_no_page_gives_the_runtime_an_https_jwks() -> None:
    """It would refuse every token; so would an orchestrator's agents whose ambient messages are forbidden."""
    [row] = [row for row in rows(section(PAGE, "The runtime")) if plain(row[0]) == "MACP_AUTH_JWKS_URL"]
    assert plain(row[1]).startswith("http://")


@pytest.mark.parametrize("page", ["docs/integration.md", "docs/api.md"])
def test_examples_of_modes_let_ambient_messages_through(page: str) -> None:
    """A list of modes without the empty one forbids Signal and Progress."""
    lists = re.findall(r'"allowed_modes": (\[[^\]]+\])', read(page))
    assert lists
    assert [found for found in lists if "" not in json.loads(found)] == []


def _patterns() -> Iterator[tuple[str, str]]:
    """Each sender pattern that a page or an example gives."""
    form = r"(?:\(?agent:/?/?\)?\??|\(agent://\)\?)\S*\["
    for path in [
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("deploy/helm/**/*.md"),
        *ROOT.glob("deploy/helm/**/values.yaml"),
    ]:
        for found in re.findall(rf"`({form}[^`]+)`", path.read_text()):
            yield path.name, found
    for path in (ROOT / "deploy/helm/examples").glob("*.yaml"):
        if pattern := yaml.safe_load(path.read_text()).get("config", {}).get("senderPattern"):
            yield path.name, pattern


def test_example_patterns_take_the_real_senders() -> None:
    """Those of the real control plane, playground and agents, and not anything."""
    patterns = list(_patterns())
    assert {name for name, _ in patterns} >= {"configuration.md", "values.yaml", "README.md", "jwk-file.yaml"}
    for where, pattern in patterns:
        compiled = LinearPattern(pattern)
        assert [sender for sender in REAL_SENDERS if not compiled.matches(sender)] == [], where
        assert not compiled.matches("anything else"), where


class _Runtime(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Answers every call with nothing, and keeps its name, its metadata and its bytes."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, str], bytes]] = []

    def service(self, details: Any) -> Any:
        def answer(request: bytes, _: Any) -> bytes:
            self.calls.append((details.method, dict(details.invocation_metadata), request))
            return b""

        return grpc.unary_unary_rpc_method_handler(answer)


def test_the_sdk_carries_our_token_as_the_page_says(start_service: Callable[..., Service]) -> None:
    """The page's own lines, against a gRPC server; and another sender never leaves the SDK."""
    service = start_service({"MACP_AUTH_SIGNING_ALG": "ES256"})
    runtime, server = _Runtime(), grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers((runtime,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    names: dict[str, Any] = {"token": service.mint(sender="agent://risk")["token"]}
    here = SDK_CODE.replace(
        'target="runtime.example.com:50051"', f'target="127.0.0.1:{port}", allow_insecure=True'
    )
    exec(here, names)  # noqa: S102 - our own page
    try:
        client: MacpClient = names["client"]
        client.list_sessions()
        with pytest.raises(MacpIdentityMismatchError):
            client.send_signal(signal_type="x", data=b"x", sender="agent://other")
    finally:
        names["client"].close()
        server.stop(None)
    [(method, metadata, _)] = runtime.calls
    assert method == "/macp.v1.MACPRuntimeService/ListSessions"
    scheme, token = metadata["authorization"].split(" ")
    assert scheme == "Bearer"
    assert verify_with_pyjwt(token, service.jwks())["sub"] == "agent://risk"


def test_the_emergency_restarts_the_runtime_before_the_control_plane() -> None:
    """And both after the old key has left the JWKS, with the record that shows why."""
    steps = section(read("docs/runbook.md"), "Emergency rotation")
    places = [
        steps.index(words)
        for words in ("out of the JWKS", "Restart the MACP runtime", "Restart the control plane")
    ]
    assert places == sorted(places)
    assert ANSWERS["an open stream after exp and the leeway"] == "accepted"
    assert ANSWERS["a new call with its token"] == "status UNAUTHENTICATED"
