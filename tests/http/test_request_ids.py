"""Every answer has an id, the caller's if that is sane; the log has it, and the caller's trace."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tools.support.asgi import InProcess
from tools.support.processes import mint_bytes, send_and_read_to_end
from tools.support.service import Service
from tools.support.wire import exchange, request_bytes

MADE = re.compile(r"[0-9a-f]{32}")
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
JSON = ("content-type", "application/json")


@pytest.fixture(scope="module")
def app() -> Iterator[InProcess]:
    with InProcess({"MACP_AUTH_SIGNING_ALG": "ES256"}) as running:
        yield running


def mint(app: InProcess, *headers: tuple[str, str], body: bytes = b'{"sender":"a"}') -> str:
    """The id of the answer."""
    return app.request("POST", "/tokens", [JSON, *headers], [body]).headers["x-request-id"]


@pytest.mark.parametrize("sane", ["a", "Az09._-", "x" * 128])
def test_a_sane_id_of_the_caller_is_kept(app: InProcess, sane: str) -> None:
    """To the letter."""
    assert mint(app, ("x-request-id", sane)) == sane


@pytest.mark.parametrize("insane", ["", "x" * 129, "a b", "a,b", 'a"', "a\xe4", "a\tb", "a/b", "{}", "a\n"])
def test_an_insane_id_is_replaced(app: InProcess, insane: str) -> None:
    """What could break a log or a header is not repeated."""
    assert MADE.fullmatch(mint(app, ("x-request-id", insane)))


def test_several_ids_are_replaced(app: InProcess) -> None:
    """Also two equal ones: which hop made which is not known."""
    assert MADE.fullmatch(mint(app, ("x-request-id", "a"), ("x-request-id", "a")))


def test_made_ids_differ(app: InProcess) -> None:
    """One id, one request."""
    ids = {mint(app) for _ in range(500)}
    assert len(ids) == 500
    assert all(map(MADE.fullmatch, ids))


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/.well-known/jwks.json", 200),
        ("HEAD", "/healthz", 200),
        ("GET", "/healthz", 200),
        ("GET", "/readyz", 200),
        ("POST", "/healthz", 405),
        ("OPTIONS", "/tokens", 200),
        ("GET", "/tokens", 405),
        ("GET", "/nowhere", 404),
        ("POST", "/tokens", 415),
    ],
)
def test_every_answer_of_every_route_has_exactly_one_id(
    service: Service, method: str, path: str, status: int
) -> None:
    """Over the socket, where a doubled header would show."""
    headers = [("Host", "localhost"), ("X-Request-Id", "mine"), ("Connection", "close")]
    body = b"x" if method == "POST" else b""
    if body:
        headers.append(("Content-Length", "1"))
    received = send_and_read_to_end(service.port, request_bytes(method, path, headers, body)).received
    assert received.startswith(b"HTTP/1.1 %d " % status)
    assert re.findall(rb"(?i)^x-request-id: *(.*)\r$", received, re.MULTILINE) == [b"mine"]


def test_not_modified_has_an_id_too(app: InProcess) -> None:
    """A 304 is an answer."""
    etag = app.request("GET", "/.well-known/jwks.json").headers["etag"]
    answer = app.request("GET", "/.well-known/jwks.json", [("if-none-match", etag), ("x-request-id", "mine")])
    assert (answer.status, answer.headers["x-request-id"]) == (304, "mine")


def test_what_is_no_request_has_no_id(service: Service) -> None:
    """Nothing is logged of it that an id could lead to."""
    assert "x-request-id" not in exchange(service.port, b"nonsense\r\n\r\n").headers


@pytest.fixture(scope="module")
def out_of_order(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose signer can't be reached, so that each mint is logged."""
    env = {
        "MACP_AUTH_SIGNER": "vault-transit",
        "MACP_AUTH_VAULT_KEY": "k",
        "MACP_AUTH_VAULT_ADDR": "http://127.0.0.1:1",
        "MACP_AUTH_VAULT_TOKEN": "t",
    }
    with Service(tmp_path_factory.mktemp("ids"), env) as running:
        yield running


@pytest.mark.process
@pytest.mark.parametrize(
    ("sent", "logged"),
    [
        ([TRACEPARENT], TRACEPARENT),
        ([TRACEPARENT, TRACEPARENT], None),
        ([TRACEPARENT.replace("4bf92f3577b34da6a3ce929d0e0e4736", "0" * 32)], None),
        ([TRACEPARENT.replace("00f067aa0ba902b7", "0" * 16)], None),
        (["ff" + TRACEPARENT[2:]], None),
        ([TRACEPARENT.upper()], None),
        ([TRACEPARENT + '","event":"forged'], None),
        ([], None),
    ],
)
def test_the_log_names_the_request_and_its_trace(
    out_of_order: Service, sent: list[str], logged: str | None
) -> None:
    """What is logged while a request is served has its id, and its trace context if that is good."""
    answer = exchange(out_of_order.port, mint_bytes(*(("traceparent", value) for value in sent)))
    assert answer.status == 503
    [line] = [e for e in out_of_order.events if e.get("request_id") == answer.headers["x-request-id"]]
    assert line["event"] == "no signature"
    assert line.get("traceparent") == logged


@pytest.mark.process
def test_what_is_logged_outside_of_requests_has_no_id(out_of_order: Service) -> None:
    """The service's own work belongs to no request."""
    outside = [event for event in out_of_order.events if event["event"] != "no signature"]
    assert len(outside) > 3
    assert not [event for event in outside if "request_id" in event]
