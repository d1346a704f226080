"""What the recorded probes leave open: body limits, content types, caching, exact routes."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from macp_auth.entrypoints.http.body import MAX_BODY_BYTES
from macp_auth.entrypoints.http.token_request import MAX_DEPTH
from tools.support.asgi import InProcess

BODY = b'{"sender":"a"}'


@pytest.fixture(scope="module")
def service() -> Iterator[InProcess]:
    with InProcess({"MACP_AUTH_SIGNING_ALG": "ES256", "MACP_AUTH_JWKS_MAX_AGE_SECONDS": "7"}) as running:
        yield running


def padded(size: int) -> bytes:
    return BODY[:-1] + b" " * (size - len(BODY)) + b"}"


def test_body_limit_is_exact(service: InProcess) -> None:
    """100 KiB pass, one byte more does not, whether announced or only sent."""
    assert service.post(padded(MAX_BODY_BYTES)).status == 200
    assert service.post(padded(MAX_BODY_BYTES + 1)).status == 413


def test_announced_length_is_judged_before_reading(service: InProcess) -> None:
    headers = [("content-type", "application/json"), ("content-length", str(MAX_BODY_BYTES + 1))]
    assert service.request("POST", "/tokens", headers, []).status == 413


def test_streamed_length_is_judged_while_reading(service: InProcess) -> None:
    """Without a length, reading ends with the chunk that is too much."""
    endless = [b" " * 65536] * 1000
    answer = service.request(
        "POST", "/tokens", [("content-type", "application/json"), ("transfer-encoding", "chunked")], endless
    )
    assert answer.status == 413


def test_body_in_pieces(service: InProcess) -> None:
    pieces = [BODY[index : index + 1] for index in range(len(BODY))]
    headers = [("content-type", "application/json"), ("transfer-encoding", "chunked")]
    assert service.request("POST", "/tokens", headers, pieces).status == 200


@pytest.mark.parametrize("depth", [MAX_DEPTH - 2, MAX_DEPTH - 1])
def test_depth_limit_is_exact(service: InProcess, depth: int) -> None:
    """The request's own object and ``scopes`` count."""
    body = b'{"sender":"a","scopes":{"x":' + b"[" * depth + b"]" * depth + b"}}"
    assert service.post(body).status == (200 if depth + 2 <= MAX_DEPTH else 400)


def test_many_brackets_need_not_be_deep(service: InProcess) -> None:
    """Breadth, and brackets in strings, are no depth."""
    scopes = {"x": [[] for _ in range(100)], "y": "[" * 100, "z": '\\"' + "{" * 100}
    body = json.dumps({"sender": "a", "scopes": scopes}).encode()
    assert service.post(body).status == 200


def test_unclosed_string_full_of_brackets(service: InProcess) -> None:
    """A body that never closes its string costs no more than another of its length."""
    assert service.post(b'{"sender":"' + b"[" * 50_000).status == 400
    assert service.post(b'{"sender":"' + b'\\"[' * 30_000).status == 400


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 200),
        ("Application/JSON", 200),
        ('application/json; charset="utf-8"', 200),
        ("application/json ; charset=UTF-8", 200),
        ("application/json; profile=x", 200),
        ("application/json;", 415),
        ("application/json; foo", 415),
        ("application/json; charset = utf-16", 415),
        ('application/json; x="a;charset=utf-16"', 200),
        ("\xa0application/json", 415),
        ("application/json; charset=utf8", 200),
        ('application/json; charset="UTF8"', 200),
        ("application/json; charset=utf-16", 415),
        ("application/jsonx", 415),
        ("text/json", 415),
        ("", 415),
        ("\xe9", 415),
    ],
)
def test_content_types(service: InProcess, content_type: str, status: int) -> None:
    assert service.post(BODY, content_type).status == status


def test_another_charset_is_named(service: InProcess) -> None:
    """Who sends application/json in another one need not hear to send application/json."""
    refused = service.post(BODY, "application/json; charset=latin1")
    assert refused.json == {"error": "the charset of application/json must be utf-8"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([], 400),
        ([("content-length", "0")], 400),
        ([("content-length", "14")], 415),
        ([("transfer-encoding", "chunked")], 415),
    ],
)
def test_no_content_type(service: InProcess, headers: list[tuple[str, str]], status: int) -> None:
    """No body lacks a sender; a body without a type could be anything."""
    assert service.request("POST", "/tokens", headers).status == status


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "gzip, identity", "x"])
def test_encoded_bodies(service: InProcess, encoding: str) -> None:
    headers = [("content-type", "application/json"), ("content-length", "14")]
    for encodings in ([encoding], ["identity", encoding], [encoding, "identity"]):
        sent = [*headers, *(("content-encoding", value) for value in encodings)]
        assert service.request("POST", "/tokens", sent, [BODY]).status == 415


@pytest.mark.parametrize("encoding", ["", "identity", "IDENTITY"])
def test_plain_bodies(service: InProcess, encoding: str) -> None:
    headers = [("content-type", "application/json"), ("content-encoding", encoding), ("content-length", "14")]
    assert service.request("POST", "/tokens", headers, [BODY]).status == 200


def test_client_that_goes_away(service: InProcess) -> None:
    """A truncated body is answered, if the client still reads, and mints nothing."""
    headers = [("content-type", "application/json"), ("content-length", "14")]
    answer = service.request("POST", "/tokens", headers, [])
    assert (answer.status, answer.json) == (400, {"error": "the request was cut off"})


def test_tokens_are_not_cached(service: InProcess) -> None:
    assert service.post(BODY).headers["cache-control"] == "no-store"


def test_jwks_caching(service: InProcess) -> None:
    """The age is the configured one; a known tag is answered without the keys."""
    answer = service.request("GET", "/.well-known/jwks.json")
    assert answer.headers["cache-control"] == "public, max-age=7"
    tag = answer.headers["etag"]
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        unchanged = service.request("GET", "/.well-known/jwks.json", [("if-none-match", known)])
        assert (unchanged.status, unchanged.body, unchanged.headers["etag"]) == (304, b"", tag)
    assert service.request("GET", "/.well-known/jwks.json", [("if-none-match", '"other"')]).status == 200


@pytest.mark.parametrize("path", ["/tokens", "/.well-known/jwks.json", "/healthz", "/readyz", "/readyz/keys"])
@pytest.mark.parametrize("spoil", ["{}/", "/{}", "{}%20", "{}.json", "{}?", "{};x", "{}\\"])
def test_paths_are_exact(service: InProcess, path: str, spoil: str) -> None:
    """A path has one spelling."""
    for method in ("GET", "POST", "OPTIONS"):
        answer = service.request(method, spoil.format(path), [("content-type", "application/json")], [BODY])
        assert (answer.status, answer.json) == (404, {"error": "not found"})


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/tokens", "POST"),
        ("/.well-known/jwks.json", "GET, HEAD"),
        ("/healthz", "GET, HEAD"),
        ("/readyz", "GET, HEAD"),
        ("/readyz/keys", "GET, HEAD"),
    ],
)
def test_methods(service: InProcess, path: str, allowed: str) -> None:
    """What is not allowed is a 405 that says what is; OPTIONS says it too."""
    for method in {"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "TRACE", "QUERY"} - set(
        allowed.split(", ")
    ):
        answer = service.request(method, path)
        assert (answer.status, answer.headers["allow"]) == (405, allowed)
        assert answer.json == {"error": "method not allowed"}
    answer = service.request("OPTIONS", path)
    assert (answer.status, answer.headers["allow"]) == (200, allowed)
    assert "access-control-allow-origin" not in answer.headers
