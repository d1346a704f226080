"""docs/api.md has every text, member and limit that the code has."""

from __future__ import annotations

import ast
import base64
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import macp_auth
import macp_auth.entrypoints.composition
from macp_auth.application.readiness import (
    CHECK_INTERVAL_SECONDS,
    OWN_REASONS,
    PROBE_TIMEOUT_SECONDS,
    STALE_READINGS,
)
from macp_auth.domain.claims import Claims
from macp_auth.domain.errors import CallerRefused, InvalidRequest, ScopeNotGranted, SignerError
from macp_auth.domain.key_set import MAX_TOKEN_BYTES
from macp_auth.domain.keys import Algorithm
from macp_auth.domain.minting import TokenRequest
from macp_auth.domain.presets import PRESETS
from macp_auth.domain.scopes import KNOWN_SCOPES
from macp_auth.domain.sender import MAX_SENDER_CHARS
from macp_auth.entrypoints.http import discovery, jwks, probes, tokens
from macp_auth.entrypoints.http.body import MAX_BODY_BYTES
from macp_auth.entrypoints.http.errors import HTTPRefusal
from macp_auth.entrypoints.http.token_request import MAX_DEPTH, MAX_MARKS
from macp_auth.entrypoints.server import event_loop, protocol
from macp_auth.entrypoints.server import processes as server
from tests.docs.pages import plain, read, rows, section
from tests.docs.terminal import Terminal, steps
from tools.fuzz.costly import chunked
from tools.support.programs import require_tool
from tools.support.service import Service, clean_environment
from tools.support.wire import exchange, request_bytes

API = read("docs/api.md")
ERRORS = [(int(status), plain(text)) for status, text, _ in rows(section(API, "Errors"))]
# What these get, a client gets.
SENDING_FUNCTIONS = {"_refuse", "_refuse_in_turn", "_raise", "_response", "_unavailable"}


def _subclasses(cls: type) -> set[str]:
    return {cls.__name__}.union(*map(_subclasses, cls.__subclasses__()))


REFUSALS = _subclasses(InvalidRequest) | _subclasses(HTTPRefusal) | _subclasses(CallerRefused)
SENDERS = (REFUSALS | SENDING_FUNCTIONS) - {ScopeNotGranted.__name__}  # it gets the name of a field


def _template(node: ast.AST) -> str | None:
    """A literal as a regular expression, with anything where an f-string has a value."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return re.escape(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_template(part) or ".+" for part in node.values)
    return None


def _name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _literals(tree: ast.AST) -> Iterator[ast.AST]:
    """What may be sent as an error text: the literals in the places where such texts are given."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _name(node.func) in SENDERS:
            yield from node.args
        elif isinstance(node, ast.ClassDef) and node.name in REFUSALS:
            for call in ast.walk(node):
                if isinstance(call, ast.Call) and _name(call.func) == "__init__":
                    yield from call.args
        elif isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Tuple):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(_name(target) == "_refusal" for target in targets):
                yield from node.value.elts


def _sent_texts() -> list[str]:
    package = Path(macp_auth.__file__).parent
    found = set()
    for path in package.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found |= {text for literal in _literals(tree) if (text := _template(literal)) is not None}
    return sorted(found)


SENT_TEXTS = _sent_texts()


@pytest.mark.parametrize(
    "text",
    [
        "invalid JSON body",  # in a class
        "sender is required",  # in a raise
        "body is over 102400 bytes",  # in an f-string
        "malformed HTTP request",  # in the protocol's state
        "too many request headers",  # in the protocol's refusal
        "internal error",  # in the error mapping
    ],
)
def test_the_collector_finds_texts_wherever_they_are_given(text: str) -> None:
    """The tests below would pass for nothing if the collector missed one of the places."""
    assert any(re.fullmatch(sent, text) for sent in SENT_TEXTS)


@pytest.mark.parametrize("sent", SENT_TEXTS)
def test_every_error_text_is_documented(sent: str) -> None:
    """A text that the code can send is in the table of errors."""
    assert any(re.search(sent, text) for _, text in ERRORS)


@pytest.mark.parametrize("text", [text for _, text in ERRORS])
def test_every_documented_error_text_exists(text: str) -> None:
    """A text in the table of errors is one that the code can send."""
    assert any(re.fullmatch(sent, text) for sent in SENT_TEXTS)


def _post(body: bytes, *headers: tuple[str, str]) -> bytes:
    typed = headers or (("content-type", "application/json"),)
    return request_bytes("POST", "/tokens", [("host", "a"), ("content-length", str(len(body))), *typed], body)


def _mint(**request: object) -> bytes:
    return _post(json.dumps({"sender": "a", **request}).encode())


PROVOCATIONS = [
    _post(b"{"),
    _post(b"{}"),
    _mint(sender="a\x00b"),
    _mint(sender=" a"),
    _mint(scopes=None),
    _mint(scopes={"is_observer": 1}),
    _mint(scopes={"allowed_modes": "all"}),
    _mint(scopes={"max_open_sessions": 3.5}),
    _mint(scopes={"canStartSessions": True}),
    _post(b'{"sender": "a", "scopes": {"x": 1e400}}'),
    _mint(scopes={"x": "\ud800"}),
    _mint(scopes={"x" * 9000: 1}),
    _mint(ttl_seconds=0),
    _mint(scopes={"allowed_modes": ["m" * 4000]}),
    _mint(sender="a" * 1025),
    _mint(scopes={"x": "y" * 9000}),
    _mint(scopes={"x": [1] * 8200}),
    chunked(b" " * protocol.MAX_CHUNKS, 1),
    b"no HTTP\r\n\r\n",
    request_bytes("GET", "/healthz"),
    request_bytes("GET", "/", [("host", "a")]),
    request_bytes("GET", "/tokens", [("host", "a")]),
    request_bytes("GET", "/healthz", [("host", "a b")]),
    request_bytes("GET", "/healthz", [("host", "a"), ("expect", "b")]),
    request_bytes("GET", "/healthz", [("host", "a"), ("origin", "b"), ("origin", "b")]),
    _post(b" " * (MAX_BODY_BYTES + 1)),
    _post(b"{}", ("content-type", "text/plain")),
    _post(b"{}", ("content-type", "application/json; charset=latin1")),
    _post(b"{}", ("origin", "null")),
    _post(b"{}", ("content-type", "application/json"), ("content-encoding", "gzip")),
    request_bytes("GET", "/healthz", [("host", "a"), ("x", "x" * protocol.MAX_HEADER_BYTES)]),
    request_bytes("GET", "/healthz", [("host", "a"), *[("x", "x")] * protocol.MAX_HEADERS]),
]
CALLERS = {
    "a credential is required",
    "the credential is not accepted",
    "no grant for this sender",
    "audience is not granted for this sender",
    "scopes.<field> is more than is granted for this sender",
    "too many requests",
    "callers can't be checked now; try again",
}
"""They need a callers file: tests/process/test_callers.py."""
NOT_PROVOKED = CALLERS | {
    "the audit log can't be written now; try again",  # tests/process/test_audit_required.py
    "sender is not one that this service may mint for",  # needs a pattern
    "a client certificate is required",  # needs TLS
    "the client certificate has expired",  # the same
    "Host names another host with the port of this service; use localhost or an address",  # needs the port
    "the request was cut off",  # nobody is left to read it
    "the request did not arrive in time",  # takes 10 s
    "the request is too large",  # takes a body without end, which is answered for its own length first
    "bad request",  # the protocol layer refuses all that the router would
    "internal error",  # needs a fault of ours
    "the clock is not trusted now; try again",  # needs a clock that is stepped
    "tokens can't be signed now; try again",  # needs a signer that fails
    "no keys have been read yet; try again",  # the same
}


def test_the_table_of_errors_gives_statuses_as_they_are_sent(service: Service) -> None:
    """Each row that a plain request can provoke is sent with that status, and nothing else is sent."""
    sent = set()
    for request in PROVOCATIONS:
        answer = exchange(service.port, request)
        text = answer.json["error"]
        row = [(status, row) for status, row in ERRORS if re.fullmatch(_documented(row), text)]
        assert row, text
        assert row[0][0] == answer.status, text
        assert answer.headers["content-type"] == "application/json"
        sent.add(row[0][1])
    assert {text for _, text in ERRORS} - sent == NOT_PROVOKED


def _documented(text: str) -> str:
    return ".+".join(map(re.escape, re.split(r"<\w+>", text)))


def _members(title: str) -> list[str]:
    """The first column of the tables below a heading."""
    return [plain(row[0]) for row in rows(section(API, title))]


def test_request_and_answer_fields_are_documented() -> None:
    """The fields that a caller sends and gets are those of the code."""
    assert _members("POST /tokens") == list(TokenRequest.__struct_fields__)
    assert _members("The answer") == list(tokens.TokenAnswer.__struct_fields__)


def test_scopes_are_documented() -> None:
    """The table of scopes has the fields that the code knows."""
    assert _members("scopes") == list(KNOWN_SCOPES)


def test_token_members_are_documented(service: Service) -> None:
    """The tables of the token have the header and the claims of a token as minted, and no others."""
    header = json.loads(base64.urlsafe_b64decode(service.mint()["token"].split(".")[0] + "=="))
    assert _members("The token") == [*header, *Claims.__struct_fields__]


@pytest.mark.parametrize("algorithm", Algorithm)
def test_jwk_members_are_documented(start_service: Callable[..., Service], algorithm: Algorithm) -> None:
    """Every member of a published key is named."""
    published = start_service({"MACP_AUTH_SIGNING_ALG": algorithm.value}).jwks()["keys"]
    text = section(API, "GET /.well-known/jwks.json")
    assert [member for member in published[0] if f"`{member}`" not in text] == []


def test_routes_and_methods_are_documented(start_service: Callable[..., Service]) -> None:
    """The table of paths lists the paths, each with the methods that Allow names."""
    service = start_service({"MACP_AUTH_ISSUER": "https://auth.example.com"})
    documented = {plain(path): methods for path, methods, _ in rows(section(API, "API"))}
    assert documented.keys() == {
        *(tokens.PATH, jwks.PATH, discovery.PATH),
        *(probes.HEALTH_PATH, probes.READY_PATH, probes.KEYS_READY_PATH),
    }
    for path, methods in documented.items():
        answer = exchange(service.port, request_bytes("OPTIONS", path, [("host", "a")]))
        assert answer.headers["allow"] == methods


def _default_reasons(error: type[SignerError]) -> set[str]:
    own = [each for each in error.__subclasses__() if each.__module__ == error.__module__]
    return {error.default_reason}.union(*map(_default_reasons, own))


def test_reasons_are_documented() -> None:
    """The table has the reasons of readiness itself and of the domain's errors, each with its meaning."""
    documented = rows(section(API, "GET /readyz"))
    assert {plain(reason) for reason, _ in documented} == {*OWN_REASONS, *_default_reasons(SignerError)}
    assert all(meaning for _, meaning in documented)


def test_times_of_readiness_are_documented() -> None:
    """They are those of the code."""
    text = " ".join(section(API, "GET /readyz").split())
    assert ("checks every second" in text, CHECK_INTERVAL_SECONDS) == (True, 1)
    assert f"waits for {PROBE_TIMEOUT_SECONDS:g} s" in text
    assert f"no signature within {PROBE_TIMEOUT_SECONDS:g} s" in text
    assert (STALE_READINGS, "older than three times `MACP_AUTH_KEY_REFRESH_SECONDS`" in text) == (3, True)


@pytest.mark.parametrize(
    ("what", "limit"),
    [
        ("body", MAX_BODY_BYTES),
        ("nesting of the body", MAX_DEPTH),
        ("brackets, braces, commas, colons and quotes in the body", MAX_MARKS),
        ("chunks, in chunked coding", protocol.MAX_CHUNKS),
        ("sender", MAX_SENDER_CHARS),
        ("token", MAX_TOKEN_BYTES),
        ("request line and headers", protocol.MAX_HEADER_BYTES),
        ("number of headers", protocol.MAX_HEADERS),
        ("time for a complete request, from its first byte", protocol.RECEIVE_SECONDS),
        ("time for a new connection to send something", protocol.RECEIVE_SECONDS),
        ("time for a TLS handshake", event_loop.HANDSHAKE_SECONDS),
        ("requests of one connection that are served at a time", 1),
        ("idle connection between two requests", server.KEEP_ALIVE_SECONDS),
    ],
)
def test_limits_are_documented(what: str, limit: float) -> None:
    """The table of limits has the numbers of the code."""
    documented = [text for name, text in rows(section(API, "Limits")) if name == what]
    assert len(documented) == 1
    assert re.match(rf"{int(limit)}\b", documented[0])


def test_every_limit_in_the_table_is_checked() -> None:
    """No number stands in the table of limits that the test above does not compare."""
    assert len(rows(section(API, "Limits"))) == 13


def test_the_presets() -> None:
    """Each with what it is for and all its scopes."""
    modes = ["<mode>"]
    assert [[plain(cell) for cell in row] for row in rows(section(API, "Presets"))] == [
        [name, preset.summary, *(json.dumps(preset.scopes_for(modes)[scope]) for scope in KNOWN_SCOPES)]
        for name, preset in PRESETS.items()
    ]


def test_the_commands_mint(service: Service, tmp_path: Path) -> None:
    """A token from the first, the answer from the second."""
    require_tool("bash", "bash")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    terminal = Terminal(tmp_path, clean_environment({"PATH": path, "MACP_AUTH_SERVICE_URL": service.url}))
    try:
        [(commands, _)] = steps(API)
        token, answer = terminal.run(commands).split("\n", 1)
    finally:
        terminal.close()
    assert token.count(".") == 2
    assert json.loads(answer)["expires_in_seconds"] == 60
