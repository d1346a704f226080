"""The keys of issuers: where they come from, which are used, and what happens while they can't be read."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
import random
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from macp_auth.adapters.callers import issuer_keys as module
from macp_auth.adapters.callers.file import Issuer
from macp_auth.adapters.callers.issuer_keys import (
    CONNECT_SECONDS,
    FETCH_SECONDS,
    MAX_AGE_SECONDS,
    MAX_BYTES,
    REFRESH_SECONDS,
    REQUEST_INTERVAL_SECONDS,
    IssuerKeys,
    Issuers,
    fault_of,
)
from macp_auth.adapters.callers.jwt import JWTMethod
from macp_auth.domain.callers import Credentials
from macp_auth.domain.errors import BadCredential, CredentialFault
from macp_auth.domain.keys import Algorithm
from tests.adapters.callers.issuing import (
    AUDIENCE,
    ISSUER,
    NAME,
    SUBJECT,
    claims,
    document,
    issuer_of_file,
    private,
    token,
)
from tests.support import jwks
from tests.support.fake_server import FakeServer, Reply, Request
from tools.support.tls import Authority, make_certificates

EC, RSA = private("ec-1"), private("rsa-1", "RS256")
GOOD = Reply(200, document(EC, RSA))
KEPT = "cannot read issuer keys; keeping the last good ones"
NONE = "cannot read issuer keys; refusing its tokens"


def issuer_of_url(url: str, **changed: Any) -> Issuer:
    return Issuer(**{"name": NAME, "issuer": ISSUER, "audience": AUDIENCE, "jwks_url": url, **changed})


def has(keys: IssuerKeys, kid: str = "ec-1", algorithm: Algorithm = Algorithm.ES256) -> bool:
    return keys.find(kid, algorithm) is not None


def refreshed(issuer: Issuer) -> IssuerKeys:
    keys = IssuerKeys(issuer)
    asyncio.run(keys.refresh())
    return keys


def failure_of(issuer: Issuer) -> str:
    """What the log says of the first attempt."""
    with capture_logs() as logs:
        keys = refreshed(issuer)
    assert keys.failing
    assert keys.age is None
    assert not has(keys)
    assert [(line["event"], line["log_level"], line["issuer"]) for line in logs] == [(NONE, "error", NAME)]
    assert not logs[0]["exc_info"]
    text: str = logs[0]["detail"]
    return text


@pytest.mark.parametrize(
    ("reply", "fault"),
    [
        (GOOD, None),
        (Reply(404, b""), "jwks_url answers with status 404"),
        (Reply(200, b"{}"), "not a JWK Set"),
    ],
)
def test_fault(reply: Reply, fault: str | None) -> None:
    """For a diagnosis: it is returned, and the log has nothing of it."""
    with FakeServer(lambda _: reply) as server, capture_logs() as logs:
        assert asyncio.run(fault_of(issuer_of_url(server.url))) == fault
    assert logs == []


# --- from a URL ---------------------------------------------------------------------------------


def test_http() -> None:
    """A plain request, to loopback only (the callers file sees to it)."""
    with FakeServer(lambda _: GOOD) as server, capture_logs() as logs:
        keys = refreshed(issuer_of_url(f"{server.url}/openid/v1/jwks?a=b"))
    assert not keys.failing
    assert keys.age is not None
    assert 0 <= keys.age < 5
    assert has(keys)
    assert has(keys, "rsa-1", Algorithm.RS256)
    (request,) = server.requests
    assert (request.method, request.path) == ("GET", "/openid/v1/jwks?a=b")
    assert set(request.headers) == {"host"}
    assert logs == [{"event": "issuer keys", "log_level": "info", "issuer": NAME, "kids": ["ec-1", "rsa-1"]}]


def test_https_with_ca_file_and_token(tmp_path: Path) -> None:
    """As a Kubernetes API server wants it. The token file is read at each fetch."""
    certificates = make_certificates(tmp_path)
    bearer = tmp_path / "token"
    bearer.write_text("first-bearer-token\n")
    bearer.chmod(0o644)
    with FakeServer(lambda _: GOOD, certificates) as server:
        issuer = issuer_of_url(server.url, ca_file=str(certificates.ca), bearer_token_file=str(bearer))
        keys = refreshed(issuer)
        assert has(keys)
        bearer.write_text("second-bearer-token")
        asyncio.run(keys.refresh())
        assert not keys.failing
        assert [request.headers["authorization"] for request in server.requests] == [
            "Bearer first-bearer-token",
            "Bearer second-bearer-token",
        ]


@pytest.mark.parametrize("content", [b"", b" \n", b"two words", b"a\r\nX-Injected: 1", b"\xff\xfe", b"a\0b"])
def test_malformed_token_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "token"
    path.write_bytes(content)
    with FakeServer(lambda _: GOOD) as server:
        issuer = issuer_of_url(server.url, bearer_token_file=str(path))
        assert failure_of(issuer) == "bearer_token_file holds no token"
        assert not server.requests
        path.chmod(0o666)
        assert failure_of(issuer).startswith("bearer_token_file holds a credential, and it is writable by")
        path.unlink()
        assert failure_of(issuer) == "bearer_token_file can't be read: No such file or directory"


def test_other_authority(tmp_path: Path) -> None:
    """A server that another authority vouches for, the system's authorities, and no TLS at all."""
    certificates = make_certificates(tmp_path)
    other = Authority(tmp_path, "other")
    with FakeServer(lambda _: GOOD, certificates) as server:
        text = failure_of(issuer_of_url(server.url, ca_file=str(other.path)))
        assert text.startswith("jwks_url: its certificate is not accepted: ")
        text = failure_of(issuer_of_url(server.url))
        assert text.startswith("jwks_url: its certificate is not accepted: ")
        url = f"https://localhost.localdomain:{server.port}"
        assert failure_of(issuer_of_url(url, ca_file=str(certificates.ca))).startswith("jwks_url: its ")
        (tmp_path / "empty.pem").touch()
        issuer = issuer_of_url(server.url, ca_file=str(tmp_path / "empty.pem"))
        assert failure_of(issuer) == "ca_file is no PEM file of certificates"
        issuer = issuer_of_url(server.url, ca_file=str(tmp_path / "absent.pem"))
        assert failure_of(issuer) == "ca_file can't be read: No such file or directory"
        assert not server.requests
    with FakeServer(lambda _: GOOD) as plain:
        issuer = issuer_of_url(f"https://127.0.0.1:{plain.port}", ca_file=str(other.path))
        assert failure_of(issuer) == "jwks_url: TLS fails"


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy and no password comes from the environment."""
    with FakeServer(lambda _: GOOD) as server, FakeServer(lambda _: GOOD) as proxy:
        for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(variable, proxy.url)
        monkeypatch.setenv("NETRC", "/dev/null")
        assert has(refreshed(issuer_of_url(server.url)))
        assert not proxy.requests


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect(status: int) -> None:
    """It is not followed: neither the token nor the trust goes to another host."""
    with FakeServer(lambda _: GOOD) as other:
        redirect = Reply(status, b"", {"location": f"{other.url}/jwks"})
        with FakeServer(lambda _: redirect) as server:
            assert failure_of(issuer_of_url(server.url)) == f"jwks_url answers with status {status}"
        assert not other.requests


@pytest.mark.parametrize("status", [201, 204, 206, 400, 401, 403, 404, 500, 503])
def test_status(status: int) -> None:
    """Keys come with status 200 only."""
    with FakeServer(lambda _: Reply(status, b"" if status == 204 else GOOD.body)) as server:
        assert failure_of(issuer_of_url(server.url)) == f"jwks_url answers with status {status}"


def test_down() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{reserved.getsockname()[1]}"
        assert failure_of(issuer_of_url(url)) == "jwks_url: Connection refused"
    assert failure_of(issuer_of_url("http://nobody.invalid")) == "jwks_url: its name can't be resolved"


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def raw_server(handler: Handler) -> AsyncIterator[str]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        try:
            await handler(reader, writer)
        except OSError:
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


def failure_with(handler: Handler) -> str:
    async def fetch() -> str:
        async with raw_server(handler) as url:
            keys = IssuerKeys(issuer_of_url(url))
            with capture_logs() as logs:
                await keys.refresh()
        assert keys.failing
        detail: str = logs[0]["detail"]
        return detail

    return asyncio.run(fetch())


@pytest.mark.parametrize("begin", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n{"])
def test_slow(begin: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that sends nothing, or a byte now and then, is given up after 5 s in all."""
    assert (CONNECT_SECONDS, FETCH_SECONDS) == (3, 5)
    monkeypatch.setattr(module, "FETCH_SECONDS", 0.3)

    async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for byte in itertools.chain([begin], itertools.repeat(b" " if begin else b"")):
            writer.write(byte)
            await writer.drain()
            await asyncio.sleep(0.02)

    began = time.monotonic()
    assert failure_with(drip) == "jwks_url: no complete answer within 5 s"
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    "length", ["content-length: 1000000000", "transfer-encoding: chunked", "connection: close"]
)
def test_huge(length: str) -> None:
    """No more than 256 KiB are read."""
    sent = 0

    async def pour(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(f"HTTP/1.1 200 OK\r\n{length}\r\n\r\n".encode())
        chunk = b" " * 2**16
        while sent < 2**28:
            writer.write(b"10000\r\n" + chunk + b"\r\n" if "chunked" in length else chunk)
            await writer.drain()
            sent += len(chunk)

    assert failure_with(pour) == f"jwks_url answers with more than {MAX_BYTES} bytes"
    assert sent < 2**25


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\x16\x03\x01\x02\x00",
        b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nx: " + b"a" * 100_000,
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
    ],
    ids=range(7),
)
def test_broken_http(answer: bytes) -> None:
    """What it is does not matter, and the log does not quote it."""

    async def send(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()

    text = failure_with(send)
    assert text.startswith("jwks_url")
    assert "127.0.0.1" not in text


# --- which keys are used ------------------------------------------------------------------------


def failure_of_set(body: Any) -> str:
    with FakeServer(lambda _: Reply(200, body)) as server:
        return failure_of(issuer_of_url(server.url))


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "not JSON with unique names"),
        (b"<html>", "not JSON with unique names"),
        (b"\xff", "not JSON with unique names"),
        (b"[" * 200_000, "not JSON with unique names"),
        (b'{"keys":[],"keys":[]}', "not JSON with unique names"),
        (document(EC)[:-2] + b',{"kty":"EC","kty":"EC"}]}', "not JSON with unique names"),
        (gzip.compress(document(EC)), "not JSON with unique names"),
        ([], "not a JWK Set"),
        ({}, "not a JWK Set"),
        ({"keys": {}}, "not a JWK Set"),
        ({"keys": None}, "not a JWK Set"),
        (jwks.public(EC), "not a JWK Set"),
        ({"keys": [{}] * 101}, "more than 100 keys"),
        ({"keys": []}, "no public key for RS256 of at least 2048 bits or for ES256"),
        (
            document(EC, {**RSA, "kid": "ec-1"}, private("ec-1", copy=1)),
            "two keys of one algorithm have the same kid",
        ),
    ],
    ids=range(15),
)
def test_unusable_set(body: Any, text: str) -> None:
    assert failure_of_set(body) == text


_PUBLIC = jwks.public(EC)
_RSA = jwks.public(RSA)


@pytest.mark.parametrize(
    "jwk",
    [
        None,
        1,
        "key",
        [],
        {},
        EC,  # private
        RSA,
        {**_PUBLIC, "use": "enc"},
        {**_PUBLIC, "use": "x509-svid"},
        {**_PUBLIC, "use": None},
        {**_PUBLIC, "use": ["sig"]},
        {**_PUBLIC, "key_ops": ["sign"]},
        {**_PUBLIC, "key_ops": []},
        {**_PUBLIC, "key_ops": "verify"},
        {**_PUBLIC, "key_ops": None},
        {**_PUBLIC, "alg": "ES384"},
        {**_PUBLIC, "alg": "RS256"},
        {**_PUBLIC, "alg": None},
        {**_PUBLIC, "kid": 1},
        {**_PUBLIC, "kid": ""},
        {**_PUBLIC, "kid": "a\0"},
        {**_PUBLIC, "kid": "a" * 257},
        {**_PUBLIC, "x": _PUBLIC["y"]},  # no point of the curve
        {**_PUBLIC, "x": _PUBLIC["x"] + "="},
        {**_PUBLIC, "crv": "secp256k1"},
        {**_PUBLIC, "kty": "oct", "k": "AAAA"},
        {**jwks.public(jwks.ec("P-384")), "kid": "p384"},
        {**_RSA, "alg": "PS256"},
        {**_RSA, "alg": "HS256"},
        {**_RSA, "e": "Aw"},
        {**jwks.public(jwks.rsa(1024)), "kid": "short"},
        {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "kid": "ed"},
        {"kty": "oct", "k": "AAAA", "kid": "secret"},
    ],
    ids=range(33),
)
def test_ignored_keys(jwk: Any) -> None:
    """A key that verifies neither algorithm, or must not, is as if it were not there."""
    assert failure_of_set({"keys": [jwk]}).startswith("no public key")
    beside = {**jwks.public(private("good", copy=1)), "use": "sig"}
    with FakeServer(lambda _: Reply(200, {"keys": [jwk, beside]})) as server:
        keys = refreshed(issuer_of_url(server.url))
    assert {kid for kid, _ in keys._keys} == {"good", None}


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"use": "sig"},
        {"use": "jwt-svid"},
        {"key_ops": ["verify"]},
        {"key_ops": ["verify", "encrypt"]},
        {"x5c": ["?"], "x5t": 1, "unknown": {"a": 1}, "exp": 1},
    ],
)
def test_used_keys(members: dict[str, Any]) -> None:
    """Members that are absent, allow it, or have no meaning here."""
    with FakeServer(lambda _: Reply(200, {"keys": [{**_PUBLIC, **members}], "spiffe_sequence": 7})) as server:
        assert has(refreshed(issuer_of_url(server.url)))


def test_spiffe_bundle() -> None:
    """Its keys for X.509-SVIDs verify no JWT, whatever they are called."""
    bundle = {
        "keys": [
            {**_PUBLIC, "use": "x509-svid", "x5c": ["?"]},
            {**jwks.public(private("ec-2", copy=1)), "use": "jwt-svid"},
        ]
    }
    with FakeServer(lambda _: Reply(200, bundle)) as server:
        keys = refreshed(issuer_of_url(server.url))
    assert has(keys, "ec-2")
    assert not has(keys, "ec-1")


def test_hundred_keys() -> None:
    """The most that are read, of the usual size, fit."""
    many = [private(f"rsa-{n:064}", "RS256", n % 3) for n in range(100)]
    assert 40_000 < len(document(*many)) < MAX_BYTES / 2
    with FakeServer(lambda _: Reply(200, document(*many))) as server:
        keys = refreshed(issuer_of_url(server.url))
    assert has(keys, many[99]["kid"], Algorithm.RS256)
    assert keys.find(None, Algorithm.RS256) is None


# --- from a file --------------------------------------------------------------------------------


def test_file(tmp_path: Path) -> None:
    """It may be readable by all, and writable by nobody else: who writes it can be anybody."""
    path = tmp_path / "jwks.json"
    path.write_bytes(document(EC))
    path.chmod(0o644)
    assert has(refreshed(issuer_of_file(path)))
    path.chmod(0o664)
    assert failure_of(issuer_of_file(path)).startswith(
        "jwks_file holds keys that decide whom to trust, and it is writable by group or others (mode 0664)"
    )
    path.chmod(0o644)
    path.write_bytes(b" " * (MAX_BYTES + 1))
    assert failure_of(issuer_of_file(path)) == f"jwks_file can't be used: it is over {MAX_BYTES} bytes"
    path.unlink()
    assert failure_of(issuer_of_file(path)) == "jwks_file can't be read: No such file or directory"


def test_changed_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is followed; a broken one is logged once, and the last good one stays."""
    monkeypatch.setattr(module, "FILE_REFRESH_SECONDS", 0.05)
    monkeypatch.setattr(module, "_FIRST_PAUSE", 0.05)
    path = tmp_path / "jwks.json"
    path.write_bytes(document(EC))

    async def follow() -> None:
        keys = IssuerKeys(issuer_of_file(path))
        running = asyncio.create_task(keys.run())
        await until(lambda: has(keys))
        path.write_bytes(document(private("ec-2", copy=1)))
        await until(lambda: has(keys, "ec-2") and not has(keys))
        path.write_bytes(b"{")
        await until(lambda: keys.failing)
        await asyncio.sleep(0.3)
        assert has(keys, "ec-2")
        path.write_bytes(document(EC))
        await until(lambda: has(keys) and not keys.failing)
        running.cancel()

    with capture_logs() as logs:
        asyncio.run(follow())
    assert [line["event"] for line in logs] == [
        "issuer keys",
        "issuer keys",
        KEPT,
        "issuer keys",
        "issuer keys read again",
    ]


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - conditions of other threads, too
            await asyncio.sleep(0.005)


# --- while they can't be read -------------------------------------------------------------------


def test_outage() -> None:
    """The last good keys stay for an hour. The log has each reason once, their end, and the recovery."""
    now = 1000.0
    with FakeServer(lambda _: GOOD) as server, capture_logs() as logs:

        def failed(*replies: Reply) -> None:
            for reply in replies:
                server.reply = lambda _: reply  # noqa: B023 - used at once
                asyncio.run(keys.refresh())
                assert keys.failing

        keys = IssuerKeys(issuer_of_url(server.url), lambda: now)
        asyncio.run(keys.refresh())
        first = keys.find("ec-1", Algorithm.ES256)
        now += 100
        failed(Reply(503, b""), Reply(503, b""), Reply(200, {"keys": []}), Reply(200, {"keys": []}))
        assert keys.age == 100
        now += MAX_AGE_SECONDS - 100
        failed(Reply(200, {"keys": []}))
        assert keys.find("ec-1", Algorithm.ES256) is first
        now += 1
        assert not has(keys)  # whether an attempt failed since then or not
        failed(Reply(200, {"keys": []}), Reply(200, {"keys": []}))
        server.reply = lambda _: GOOD
        asyncio.run(keys.refresh())
        assert has(keys)
        assert not keys.failing
        assert keys.age == 0
    no_key = "no public key for RS256 of at least 2048 bits or for ES256"
    assert [(line["event"], line.get("detail")) for line in logs] == [
        ("issuer keys", None),
        (KEPT, "jwks_url answers with status 503"),
        (KEPT, no_key),
        (NONE, no_key),
        ("issuer keys", None),
        ("issuer keys read again", None),
    ]


def test_age_counts_from_the_begin_of_the_fetch() -> None:
    """What the issuer removes during a fetch may not be seen by it."""
    now = 1000.0

    def reply(_: Request) -> Reply:
        nonlocal now
        now += 4
        return GOOD

    with FakeServer(reply) as server:
        keys = IssuerKeys(issuer_of_url(server.url), lambda: now)
        asyncio.run(keys.refresh())
    assert keys.age == 4


def test_unexpected_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is logged with its traceback, and the keys are read again later."""
    with FakeServer(lambda _: GOOD) as server, capture_logs() as logs:
        keys = IssuerKeys(issuer_of_url(server.url))
        monkeypatch.setattr(module, "_keys_of", lambda _: 1 / 0)
        asyncio.run(keys.refresh())
        asyncio.run(keys.refresh())
        monkeypatch.undo()
        asyncio.run(keys.refresh())
        assert has(keys)
    assert [line["event"] for line in logs] == [NONE, "issuer keys", "issuer keys read again"]
    assert logs[0]["detail"] == "ZeroDivisionError"
    assert isinstance(logs[0]["exc_info"], ZeroDivisionError)


def test_back_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """It doubles from 1 s to 60 s, less up to a fifth, and begins again after a success."""
    pauses: list[float] = []
    monkeypatch.setattr(random, "uniform", lambda _least, most: most)

    async def follow() -> None:
        for _ in range(8):
            await keys.refresh()
            pauses.append(await pause_of(keys))
        server.reply = lambda _: GOOD
        await keys.refresh()
        pauses.append(await pause_of(keys))
        server.reply = lambda _: Reply(500, b"")
        await keys.refresh()
        pauses.append(await pause_of(keys))

    with FakeServer(lambda _: Reply(500, b"")) as server:
        keys = IssuerKeys(issuer_of_url(server.url))
        asyncio.run(follow())
    assert pauses == pytest.approx([1, 2, 4, 8, 16, 32, 60, 60, REFRESH_SECONDS, 1], abs=0.1)


async def pause_of(keys: IssuerKeys) -> float:
    """How long it would pause, in seconds."""
    loop = asyncio.get_running_loop()
    slept = 0.0
    real = loop.time

    with pytest.MonkeyPatch.context() as patch:

        async def sleep(seconds: float) -> None:
            nonlocal slept
            slept += seconds

        def timeout(seconds: float) -> asyncio.Timeout:
            nonlocal slept
            slept += seconds
            return asyncio.Timeout(real())

        patch.setattr(asyncio, "sleep", sleep)
        patch.setattr(asyncio, "timeout", timeout)
        await keys._pause()
    return slept


def test_unknown_key_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """It causes a fetch at once, and then no other for 10 s, however many there are."""
    assert REQUEST_INTERVAL_SECONDS == 10
    monkeypatch.setattr(module, "REQUEST_INTERVAL_SECONDS", 0.5)

    async def ask() -> None:
        keys = IssuerKeys(issuer_of_url(server.url))
        running = asyncio.create_task(keys.run())
        await until(lambda: has(keys))
        await asyncio.sleep(1.2)
        assert len(server.requests) <= 2  # has() may have asked before the first fetch
        server.requests.clear()
        server.reply = lambda _: Reply(200, document(EC, private("ec-2", copy=1)))
        assert not has(keys, "ec-2")
        await until(lambda: has(keys, "ec-2"), 0.4)
        began = time.monotonic()
        while time.monotonic() - began < 1.6:
            for n in range(100):
                assert not has(keys, f"unknown-{n}")
            await asyncio.sleep(0.01)
        assert 3 <= len(server.requests) <= 5
        running.cancel()

    with FakeServer(lambda _: GOOD) as server:
        asyncio.run(ask())


# --- rotation -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_rotation_at_the_issuer(monkeypatch: pytest.MonkeyPatch) -> None:
    """With keys published before they sign, no token is refused; none is accepted after its key has gone.

    The time that it takes has a bound: a refresh, and two fetches.
    """
    assert REFRESH_SECONDS + 2 * FETCH_SECONDS == 310
    refresh, fetch = 0.2, 0.5
    monkeypatch.setattr(module, "REFRESH_SECONDS", refresh)
    monkeypatch.setattr(module, "FETCH_SECONDS", fetch)
    bound = refresh + 2 * fetch
    keys = [private(f"ec-{n}", copy=n) for n in range(5)]
    remembered = {key["kid"]: token(key) for key in keys}
    removed: dict[str, float] = {}
    numbers = itertools.count()

    def accepts(method: JWTMethod, bearer: str) -> bool:
        with suppress(BadCredential):
            return method.authenticate(Credentials(bearer=bearer)) is not None
        return False

    async def traffic(method: JWTMethod, signing: dict[str, Any], seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert accepts(method, token(signing, body=claims(jti=f"{next(numbers)}")))
            assert accepts(method, remembered[signing["kid"]])
            for kid, at in removed.items():
                asked_at = time.monotonic()
                assert not accepts(method, remembered[kid]) or asked_at <= at + bound
            await asyncio.sleep(0.005)

    async def live() -> None:
        issuers = Issuers()
        own = issuers.use([issuer_of_url(server.url)])
        method = JWTMethod({(NAME, SUBJECT): "playground"}, own, time.time)
        running = asyncio.create_task(issuers.run())
        await issuers.attempted()
        for old, new in itertools.pairwise(keys):
            published.append(new)
            await traffic(method, old, bound)
            published.remove(old)
            removed[old["kid"]] = time.monotonic()
            await traffic(method, new, 0.3)
        await traffic(method, keys[-1], bound)
        assert len(removed) == 4
        assert not any(accepts(method, remembered[kid]) for kid in removed)
        running.cancel()

    published = [keys[0]]
    with FakeServer(lambda _: Reply(200, document(*published))) as server:
        asyncio.run(live())
    assert next(numbers) > 100


def test_swapped_keys() -> None:
    """A set with the keys of another issuer replaces the old one, whose tokens are then refused."""

    async def swap() -> None:
        issuers = Issuers()
        own, other = issuers.use(
            [
                issuer_of_url(f"{server.url}/own"),
                issuer_of_url(f"{server.url}/other", name="o", issuer="https://o"),
            ]
        )
        method = JWTMethod({(NAME, SUBJECT): "playground"}, issuers.in_use, time.time)
        for keys in (own, other):
            await keys.refresh()
        assert method.authenticate(Credentials(bearer=token(EC))) is not None
        sets.reverse()
        for keys in (own, other):
            await keys.refresh()
        for key in (EC, private("ec-1", copy=1)):
            with pytest.raises(BadCredential) as raised:
                method.authenticate(Credentials(bearer=token(key, body=claims(iss="https://nobody"))))
            assert raised.value.fault is CredentialFault.UNKNOWN_ISSUER
        with pytest.raises(BadCredential) as raised:
            method.authenticate(Credentials(bearer=token(EC)))
        assert raised.value.fault is CredentialFault.BAD_SIGNATURE

    sets = [document(EC), document(private("ec-1", copy=1))]
    with FakeServer(lambda request: Reply(200, sets[0 if request.path == "/own" else 1])) as server:
        asyncio.run(swap())


# --- all of them --------------------------------------------------------------------------------


def test_issuers() -> None:
    """An unchanged declaration keeps its keys; a removed issuer is no longer asked."""

    async def live() -> None:
        issuers = Issuers()
        one, two = (issuer_of_url(f"{server.url}/{n}", name=f"n{n}", issuer=f"https://{n}") for n in "12")
        running = asyncio.create_task(issuers.run())
        (first,) = issuers.use([one])
        await issuers.attempted()
        assert has(first)
        again, second = issuers.use([one, two])
        assert again is first
        assert issuers.in_use == (again, second)
        await issuers.attempted()
        assert has(second)
        (changed,) = issuers.use([issuer_of_url(f"{server.url}/3", name="n1", issuer="https://1")])
        assert changed is not first
        await issuers.attempted()
        assert has(changed)
        first.find("unknown", Algorithm.ES256)
        await asyncio.sleep(0.1)
        assert [request.path for request in server.requests] == ["/1", "/2", "/3"]
        assert issuers.use([]) == ()
        await issuers.attempted()
        running.cancel()
        await asyncio.wait([running])
        assert running.cancelled()
        assert len(asyncio.all_tasks()) == 1

    with FakeServer(lambda _: GOOD) as server:
        asyncio.run(live())


def test_no_request_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the issuer hangs, tokens are judged by the keys that there are."""
    monkeypatch.setattr(module, "REFRESH_SECONDS", 0.05)

    async def hang(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        hanging.set()
        await asyncio.sleep(60)

    async def live() -> None:
        async with raw_server(hang) as url:
            keys = IssuerKeys(issuer_of_url(url))
            keys._keys = good._keys
            keys._read_at = time.monotonic()
            running = asyncio.create_task(keys.run())
            await hanging.wait()
            method = JWTMethod({(NAME, SUBJECT): "playground"}, [keys], time.time)
            began = time.monotonic()
            assert method.authenticate(Credentials(bearer=token(EC))) is not None
            with pytest.raises(BadCredential):
                method.authenticate(Credentials(bearer=token(private("ec-9"))))
            assert time.monotonic() - began < 30
            running.cancel()
            await asyncio.wait([running])

    hanging = asyncio.Event()
    with FakeServer(lambda _: GOOD) as server:
        good = refreshed(issuer_of_url(server.url))
    asyncio.run(live())


def test_secrets_stay_out_of_the_log(tmp_path: Path) -> None:
    """Neither the URL nor the bearer token is logged, whatever the server answers."""
    secret = "s3cr3t-bearer-token-of-the-issuer"
    path = tmp_path / "token"
    path.write_text(secret)

    def reply(request: Request) -> Reply:
        return Reply(200, {"keys": [{**_PUBLIC, "kid": request.headers["authorization"].split()[1], "x": 1}]})

    with FakeServer(reply) as server, capture_logs() as logs:
        refreshed(issuer_of_url(f"{server.url}/{secret}", bearer_token_file=str(path)))
    assert logs
    assert secret not in json.dumps(logs, default=str)
