"""TLS served by the service itself: certificates that change, clients that dawdle, and the end."""

from __future__ import annotations

import itertools
import json
import signal
import socket
import ssl
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tools.support.bounded import HANG_SECONDS
from tools.support.processes import (
    all_gone,
    connection,
    family,
    mint_bytes,
    read_to_end,
    wait_for_draining,
    workers_of,
)
from tools.support.programs import require_tool
from tools.support.service import Service, wait_until
from tools.support.tls import Authority, Pair
from tools.support.tls_service import TLSService, serial_of, tls_settings, trusting
from tools.support.verifiers import verify_with_pyjwt
from tools.support.wire import read_answer, request_bytes

pytestmark = pytest.mark.slow  # each waits for connections to be closed

TAKEN_UP = 6  # seconds: a check every two, on a loaded machine
HANDSHAKE, SLACK = 10, 5
STOP_SECONDS = 10
BROKEN = "cannot use TLS files; keeping the last good ones"
BROKEN_AT_START = "cannot use TLS files; no handshake of this worker succeeds until it can"
MINT = mint_bytes()
HEALTH = request_bytes("GET", "/healthz", [("Host", "localhost")])
StartService = Callable[..., TLSService]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def pair(authority: Authority) -> Pair:
    return authority.issue("server")


@pytest.fixture
def start(tmp_path: Path, authority: Authority, pair: Pair) -> Iterator[StartService]:
    """Starts services with the pair, an environment and arguments of the test's own; stops them all."""
    with ExitStack() as stack:

        def start(env: dict[str, str] | None = None, *args: str) -> TLSService:
            return stack.enter_context(
                TLSService(tmp_path, authority.path, {**tls_settings(pair), **(env or {})}, *args)
            )

        yield start


def put(path: Path, content: bytes) -> None:
    """At once: a check must not find half of it."""
    fresh = path.with_suffix(".fresh")
    fresh.touch(0o600)
    fresh.write_bytes(content)
    fresh.rename(path)


def is_served(service: TLSService, pair: Pair) -> Callable[[], bool]:
    def served() -> bool:
        with service.connection() as sock:
            return serial_of(sock) == pair.serial

    return served


def test_it_mints_over_tls(start: StartService, authority: Authority) -> None:
    """Both versions of TLS, HTTP/1.1 by ALPN also for who would rather speak HTTP/2; https in the log."""
    service = start()
    for version, offered in itertools.product(
        (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3), (["h2", "http/1.1"], [])
    ):
        context = trusting(authority.path)
        context.minimum_version = context.maximum_version = version
        if offered:
            context.set_alpn_protocols(offered)
        with service.connection(context) as sock:
            assert sock.selected_alpn_protocol() == ("http/1.1" if offered else None)
            for _ in range(2):
                sock.sendall(MINT)
                answer = read_answer(sock)
                assert verify_with_pyjwt(answer.json["token"], service.jwks())["sub"] == "agent://risk"
    urls = [event[name] for event in service.events for name in ("jwks_url", "mint_url") if name in event]
    assert [url.partition("https://127.0.0.1:")[0] for url in urls] == ["", "POST "]


def test_older_versions_of_tls_are_refused(start: StartService, authority: Authority) -> None:
    service = start()
    context = trusting(authority.path)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings(action="ignore"):  # that it is old is the point
        context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError), service.connection(context):
        pass


def test_curl_mints(start: StartService, authority: Authority) -> None:
    """And refuses an authority that it does not know."""
    curl = require_tool("curl", "curl")
    service = start()
    ask = [
        curl,
        "-sS",
        "-d",
        '{"sender":"a"}',
        "-H",
        "content-type: application/json",
        f"{service.url}/tokens",
    ]
    trusted = subprocess.run(
        [*ask, "--cacert", authority.path], capture_output=True, timeout=HANG_SECONDS, check=True
    )
    assert json.loads(trusted.stdout)["token"]
    assert subprocess.run(ask, capture_output=True, timeout=HANG_SECONDS, check=False).returncode == 60


def test_a_client_of_another_authority_and_one_without_tls_are_cut(
    start: StartService, tmp_path: Path
) -> None:
    """Plain text gets no answer, and no log line."""
    service = start()
    elsewhere = Authority(tmp_path, "elsewhere")
    with pytest.raises(ssl.SSLCertVerificationError), service.connection(trusting(elsewhere.path)):
        pass
    with connection(service.port) as sock:
        sock.sendall(HEALTH)
        assert b"HTTP" not in read_to_end(sock).received
    assert {event["level"] for event in service.events} <= {"info", "warning"}


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_new_certificate_is_taken_up_and_old_connections_are_closed(
    start: StartService, authority: Authority, pair: Pair, workers: str
) -> None:
    """In every worker: one after the other is asked, while the others stand still."""
    service = start({}, "--workers", workers)
    with ExitStack() as stack:
        before = [stack.enter_context(service.connection()) for _ in range(4)]
        for sock in before:  # so it may be idle for longer than this test waits
            sock.sendall(HEALTH)
            assert read_answer(sock).status == 200
        old = pair.serial
        pair.replace(authority.issue("next"))
        wait_until(
            lambda: service.log.count(f"{pair.serial:x}") == int(workers),
            within=TAKEN_UP,
            what="the new certificate is in use",
        )
        for standing_still in workers_of(service):
            standing_still.suspend()
            try:
                assert is_served(service, pair)()
            finally:
                standing_still.resume()
        assert is_served(service, pair)()
        for sock in before:
            assert serial_of(sock) == old
            sock.settimeout(30)
            assert read_to_end(sock).clean


def test_a_kubernetes_secret_is_followed(tmp_path: Path, authority: Authority) -> None:
    """The kubelet swaps a symbolic link to a directory."""
    mount = tmp_path / "mount"
    for version, name in (("..1", "first"), ("..2", "second")):
        made = authority.issue(name)
        (mount / version).mkdir(parents=True)
        made.certificate.rename(mount / version / "tls.crt")
        made.key.rename(mount / version / "tls.key")
    (mount / "..data").symlink_to("..1")
    mounted = Pair(mount / "..data" / "tls.crt", mount / "..data" / "tls.key")
    with TLSService(tmp_path, authority.path, tls_settings(mounted)) as service:
        assert is_served(service, mounted)()
        (mount / "..tmp").symlink_to("..2")
        (mount / "..tmp").rename(mount / "..data")
        wait_until(is_served(service, mounted), within=TAKEN_UP, what="the new certificate is served")


def test_a_broken_replacement_keeps_the_old_pair_until_it_is_corrected(
    start: StartService, authority: Authority, pair: Pair
) -> None:
    """Said once for each change, and never what is in the files."""
    service = start()
    old = pair.serial
    faults: list[Callable[[], object]] = [
        lambda: put(pair.certificate, authority.issue("foreign").certificate.read_bytes()),
        lambda: put(pair.key, b"SECRET"),
        lambda: pair.key.chmod(0o644),
        pair.key.unlink,
    ]

    def complaints() -> list[str]:
        return [event["detail"] for event in service.events if event["event"] == BROKEN]

    for number, fault in enumerate(faults, 1):
        fault()
        wait_until(lambda: len(complaints()) >= number, within=TAKEN_UP, what=f"complaint {number}")  # noqa: B023
        with service.connection() as sock:
            assert serial_of(sock) == old
            sock.sendall(MINT)
            assert read_answer(sock).status == 200
    time.sleep(2.5)  # one more check
    words = ["not the key of", "a private key", "mode 0644", "No such file"]
    assert [word in complaint for word, complaint in zip(words, complaints(), strict=True)] == [True] * 4
    assert all("MACP_AUTH_TLS_KEY_FILE" in complaint for complaint in complaints())
    assert "SECRET" not in service.log
    fixed = authority.issue("fixed")
    pair.replace(fixed)
    wait_until(is_served(service, fixed), within=TAKEN_UP, what="the fixed pair is served")


def test_a_worker_that_comes_while_the_files_are_broken_waits_for_them(
    start: StartService, pair: Pair
) -> None:
    """It stops no other worker, and serves when the files are corrected."""
    service = start({}, "--workers", "2")
    wait_until(
        lambda: service.log.count(f"{pair.serial:x}") == 2, within=HANG_SECONDS, what="both workers have it"
    )
    good = pair.certificate.read_bytes()
    lost, survivor = workers_of(service)
    lost.kill()  # its successor takes a second to come
    put(pair.certificate, b"broken")
    for said in (BROKEN, BROKEN_AT_START):
        wait_until(lambda s=said: s in service.log, within=HANG_SECONDS, what=f"a worker says: {said}")
    put(pair.certificate, good)
    wait_until(lambda: service.log.count(f"{pair.serial:x}") >= 4, within=TAKEN_UP, what="both have it again")
    survivor.suspend()
    try:
        assert is_served(service, pair)()
    finally:
        survivor.resume()


def test_slow_handshakes_and_silent_clients_are_cut_in_time(start: StartService) -> None:
    """No word, half a greeting, half a greeting a byte a second, and silence after the handshake."""
    service = start()
    greeting = client_hello()
    with ExitStack() as stack:
        began = time.monotonic()
        silent, half, drip = (stack.enter_context(connection(service.port)) for _ in range(3))
        after = stack.enter_context(service.connection())
        half.sendall(greeting[:50])
        while time.monotonic() - began < HANDSHAKE - 1:
            drip.sendall(greeting[:1])
            greeting = greeting[1:]
            assert service.exchange(MINT).status == 200
            time.sleep(1)
        for sock in (silent, half, drip, after):
            sock.settimeout(HANDSHAKE)
            ended = read_to_end(sock).at - began
            assert HANDSHAKE - 0.5 <= ended <= HANDSHAKE + SLACK
    assert {event["level"] for event in service.events} <= {"info", "warning"}


def client_hello() -> bytes:
    outgoing = ssl.MemoryBIO()
    context = ssl.create_default_context()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost").do_handshake()
    return outgoing.read()


def test_a_refused_request_is_answered_and_the_connection_closed(start: StartService) -> None:
    """The answer is not lost, though more of the request is on its way."""
    service = start()
    with service.connection() as sock:
        sock.sendall(request_bytes("POST", "/tokens", [("Host", "a b")], b"x" * 100_000))
        began = time.monotonic()
        ending = read_to_end(sock)
        assert ending.statuses == [400]
        assert ending.clean
        assert ending.at - began < HANG_SECONDS


def test_a_client_that_ends_its_side_at_once_leaves_no_trace(start: StartService) -> None:
    """TLS as it is here has no half of a connection: the answer is not waited for, and nothing is logged."""
    service = start()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = service.trusting.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with connection(service.port) as sock:
        with pytest.raises(ssl.SSLWantReadError):
            session.do_handshake()
        sock.sendall(outgoing.read())
        incoming.write(sock.recv(65536))
        session.do_handshake()
        session.write(MINT)
        with pytest.raises(ssl.SSLWantReadError):
            session.unwrap()
        sock.sendall(outgoing.read())
        assert read_to_end(sock).clean
    assert "eof_received" not in service.log
    assert service.exchange(MINT).status == 200


@pytest.mark.parametrize("workers", ["1", "2"])
def test_open_connections_do_not_hold_up_the_end(start: StartService, workers: str) -> None:
    """Before the handshake, within it, after it, idle, and in the middle of a request; nobody closes."""
    service = start({}, "--workers", workers)
    processes = family(service)
    with ExitStack() as stack:
        stack.enter_context(connection(service.port))
        stack.enter_context(connection(service.port)).sendall(client_hello()[:50])
        for sent in (b"", MINT, MINT[:30], MINT[:-5], MINT + MINT[:-5]):
            stack.enter_context(service.connection()).sendall(sent)
        assert service.exchange(HEALTH).status == 200
        began = time.monotonic()
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(STOP_SECONDS) == 0
        assert time.monotonic() - began < STOP_SECONDS
    wait_until(lambda: all_gone(processes), within=HANG_SECONDS, what="no process is left")
    assert {event["level"] for event in service.events} <= {"info", "warning"}


def test_what_is_on_its_way_when_the_end_begins_is_answered(start: StartService) -> None:
    """A request of which the half has come, and a connection that is within its handshake."""
    service = start()
    with service.connection() as begun, connection(service.port) as plain:
        begun.sendall(MINT[:-5])
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        session = service.trusting.wrap_bio(incoming, outgoing, server_hostname="localhost")
        with pytest.raises(ssl.SSLWantReadError):
            session.do_handshake()
        plain.sendall(outgoing.read())
        incoming.write(plain.recv(65536))
        assert service.exchange(HEALTH).status == 200
        service.process.send_signal(signal.SIGTERM)
        wait_for_draining(service)
        session.do_handshake()
        session.write(MINT)
        plain.sendall(outgoing.read())
        incoming.write(receive_all(plain))
        answer = session.read(65536)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"connection: close" in answer
        begun.sendall(MINT[-5:])
        assert read_to_end(begun).statuses == [200]
    assert service.process.wait(STOP_SECONDS) == 0


def receive_all(sock: socket.socket) -> bytes:
    return read_to_end(sock).received


def test_a_service_without_tls_is_as_before(start_service: Callable[..., Service]) -> None:
    service = start_service()
    assert service.mint()["token"]
    assert "https://" not in service.log
