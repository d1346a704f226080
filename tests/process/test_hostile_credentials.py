"""Credentials of attackers, and issuers that fail, on the real service."""

from __future__ import annotations

import itertools
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from cryptography import x509

from macp_auth.adapters.callers.issuer_keys import (
    FETCH_SECONDS,
    MAX_BYTES,
    REQUEST_INTERVAL_SECONDS,
)
from tests.adapters.callers.issuing import AUDIENCE, SUBJECT, claims, document, private, token
from tests.support.fake_server import FakeServer, Reply, Request
from tools.support import callers
from tools.support.bounded import HANG_SECONDS
from tools.support.service import Service, wait_until
from tools.support.tls import Authority
from tools.support.tls_service import TLSService, tls_settings, trusting
from tools.support.wire import exchange, read_answer

pytestmark = pytest.mark.slow  # under load for seconds

ES256 = {"MACP_AUTH_SIGNING_ALG": "ES256"}
REQUEST = {"sender": "risk-agent"}
GARBAGE = 10_000
PROMPT_SECONDS = 2.0
"""For a token, on a machine with much else to do. A fetch that is waited for takes 5 s."""
KEY, OTHER = private("key"), private("other", copy=1)

Start = Callable[..., Service]


def declared(name: str, url: str) -> str:
    """An issuer, and a caller with its tokens."""
    return f"""
[[issuer]]
name = "{name}"
issuer = "https://{name}"
audience = "{AUDIENCE}"
jwks_url = "{url}"

[[caller]]
name = "{name}"
jwt = {{ issuer = "{name}", subject = "{SUBJECT}" }}
{callers.RISK}"""


def issued(name: str, key: dict[str, Any] = KEY, **changed: Any) -> str:
    return token(key, body=claims(iss=f"https://{name}", **changed))


def status(service: Service, bearer: str) -> int:
    return callers.mint(service.port, REQUEST, bearer=bearer).status


class Connection:
    """A connection that stays open."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def status(self, bearer: str) -> int:
        self._sock.sendall(callers.request(REQUEST, bearer=bearer))
        return read_answer(self._sock).status


@contextmanager
def connected(service: Service) -> Iterator[Connection]:
    with socket.create_connection(("127.0.0.1", service.port), timeout=HANG_SECONDS) as sock:
        yield Connection(sock)


def test_a_bearer_of_a_megabyte(tmp_path: Path, start_service: Start) -> None:
    """It is refused before all of it is read, and others are served."""
    with FakeServer(lambda _: Reply(200, document(KEY))) as server:
        service = start_service({**callers.write(tmp_path / "c.toml", declared("good", server.url)), **ES256})
        process = psutil.Process(service.process.pid)
        before = process.memory_info().rss
        statuses = set()
        for _ in range(20):
            with suppress(ConnectionError):  # the rest is not read
                answer = exchange(service.port, callers.request(REQUEST, bearer="a" * 2**20))
                statuses.add(answer.status)
        assert statuses == {431}
        assert process.memory_info().rss - before < 8 * 2**20
        assert status(service, issued("good")) == 200


def test_many_distinct_jwts_of_an_attacker(tmp_path: Path, start_service: Start) -> None:
    """Memory does not grow, the CPU time of each has a bound, the issuer is not asked, others are served."""
    good = issued("good")
    begins = {
        "credential-bad-signature": good.rpartition(".")[0],
        "credential-unknown-key": issued("good", OTHER).rpartition(".")[0],
        "credential-malformed": "a.b",
    }
    garbage = (f"{begin}.{number:085d}A" for number in itertools.count() for begin in begins.values())

    with FakeServer(lambda _: Reply(200, document(KEY))) as server:
        service = start_service({**callers.write(tmp_path / "c.toml", declared("good", server.url)), **ES256})
        process = psutil.Process(service.process.pid)
        with connected(service) as attacker, connected(service) as caller:
            assert {attacker.status(next(garbage)) for _ in range(1000)} == {401}
            assert {caller.status(good) for _ in range(100)} == {200}
            used = cpu_seconds(process)
            assert {caller.status(good) for _ in range(1000)} == {200}
            minted = (cpu_seconds(process) - used) / 1000
            memory, used, began = process.memory_info().rss, cpu_seconds(process), time.monotonic()
            server.requests.clear()
            for _ in range(GARBAGE // 100):
                assert {attacker.status(next(garbage)) for _ in range(100)} == {401}
                sent = time.monotonic()
                assert caller.status(good) == 200
                assert time.monotonic() - sent < PROMPT_SECONDS
            assert (cpu_seconds(process) - used) / GARBAGE < 3 * minted
            assert process.memory_info().rss - memory < 8 * 2**20
            assert len(server.requests) <= 1 + (time.monotonic() - began) / REQUEST_INTERVAL_SECONDS
        assert {line["reason"] for line in service.audit_lines if line["event"] == "refused"} == begins.keys()


def cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def test_no_mint_waits_for_an_issuer_that_fails(tmp_path: Path, start_service: Start) -> None:
    """One is down, one slow, one sends too much, one redirects, one has the keys of another.

    Each keeps its last good keys. Only swapped keys are taken over: they are what the issuer says.
    """
    failing = threading.Event()
    ended = threading.Event()

    def reply(request: Request) -> Reply:
        if failing.is_set():
            match request.path:
                case "/slow":
                    ended.wait(FETCH_SECONDS * 4)
                case "/huge":
                    return Reply(200, b" " * MAX_BYTES + document(KEY))
                case "/redirecting":
                    return Reply(307, b"", {"location": "/elsewhere"})
                case "/swapped":
                    return Reply(200, document(OTHER))
        return Reply(200, document(KEY))

    kept = ("down", "slow", "huge", "redirecting")
    with FakeServer(reply) as server:
        with FakeServer(reply) as down:
            urls = {name: f"{server.url}/{name}" for name in ("slow", "huge", "redirecting", "swapped")}
            urls["down"] = down.url
            text = "".join(declared(name, url) for name, url in urls.items())
            service = start_service({**callers.write(tmp_path / "c.toml", text), **ES256})
            fresh = time.monotonic()
            assert {status(service, issued(name)) for name in urls} == {200}
        failing.set()
        wait_until(
            lambda: time.monotonic() > fresh + REQUEST_INTERVAL_SECONDS,
            within=REQUEST_INTERVAL_SECONDS + 1,
            what="a fetch may be caused again",
        )
        for name in urls:  # an unknown key causes a fetch
            assert status(service, issued(name, private("unknown"))) == 401
        numbers = itertools.count()

        def all_failed() -> bool:
            for name in kept:
                sent = time.monotonic()
                assert status(service, issued(name, jti=str(next(numbers)))) == 200
                assert time.monotonic() - sent < PROMPT_SECONDS
            logged = [
                event for event in service.events if event["event"].endswith("keeping the last good ones")
            ]
            return {event["issuer"] for event in logged} == set(kept)

        wait_until(all_failed, within=FETCH_SECONDS * 3, what="each fetch has failed")
        assert [status(service, issued("swapped", key)) for key in (KEY, OTHER)] == [401, 200]
        assert "/elsewhere" not in {request.path for request in server.requests}
        ended.set()


def test_tls_sessions_are_not_resumed(tmp_path: Path) -> None:
    """So each connection shows its own certificate; a client that offers its last session shows it again."""
    authority, clients = Authority(tmp_path), Authority(tmp_path, "clients")
    text = f"""
[[caller]]
name = "mesh"
spiffe_id = "{callers.SPIFFE_ID}"
{callers.RISK}"""
    env = {
        **ES256,
        **callers.write(tmp_path / "c.toml", text),
        **tls_settings(authority.issue("server")),
        "MACP_AUTH_TLS_CLIENT_CA_FILE": str(clients.path),
    }
    client = clients.issue("client", names=[x509.UniformResourceIdentifier(callers.SPIFFE_ID)])
    context = trusting(authority.path, client)
    with TLSService(tmp_path, authority.path, env) as service:
        with service.connection(context) as sock:
            sock.sendall(callers.request(REQUEST))
            assert read_answer(sock).status == 200
            session = sock.session
        assert session is None or not session.has_ticket
        with (
            socket.create_connection(("127.0.0.1", service.port), timeout=HANG_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname="localhost", session=session) as sock,
        ):
            assert not sock.session_reused
            sock.sendall(callers.request(REQUEST))
            assert read_answer(sock).status == 200
        older = trusting(authority.path, client)
        older.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises((ssl.SSLError, ConnectionError)):
            service.exchange(callers.request(REQUEST), older)
