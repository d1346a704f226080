"""Client certificates: needed for a token, and for nothing else."""

from __future__ import annotations

import datetime as dt
import re
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from cryptography import x509

from tools.support.bounded import HANG_SECONDS
from tools.support.processes import mint_bytes, read_to_end
from tools.support.service import wait_until
from tools.support.tls import Authority
from tools.support.tls_service import TLSService, tls_settings, trusting
from tools.support.wire import read_answer, request_bytes

pytestmark = pytest.mark.slow  # services of their own

TAKEN_UP = 6
MINT = mint_bytes()
OPEN = ["/.well-known/jwks.json", "/healthz", "/readyz"]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mtls")


@pytest.fixture(scope="module")
def authority(directory: Path) -> Authority:
    return Authority(directory)


@pytest.fixture(scope="module")
def clients(directory: Path) -> Authority:
    """The authority that vouches for clients; another one than the server's."""
    return Authority(directory, "clients")


@pytest.fixture(scope="module", params=["1", "2"], ids=["one-worker", "two-workers"])
def service(
    request: pytest.FixtureRequest, directory: Path, authority: Authority, clients: Authority
) -> Iterator[TLSService]:
    env = {**tls_settings(authority.issue("server")), "MACP_AUTH_TLS_CLIENT_CA_FILE": str(clients.path)}
    with TLSService(directory, authority.path, env, "--workers", request.param) as running:
        wait_until(lambda: running.get("/readyz"), within=HANG_SECONDS, what="it is ready")
        yield running


def get(path: str) -> bytes:
    return request_bytes("GET", path, [("Host", "localhost")])


def test_a_client_without_a_certificate_reads_keys_and_mints_nothing(service: TLSService) -> None:
    """The refusal comes before the body is read, and leaves the connection open."""
    with service.connection() as sock:
        for path in OPEN:
            sock.sendall(get(path))
            assert read_answer(sock).status == 200
        for body in (b'{"sender":"agent://risk"}', b"no JSON"):
            sock.sendall(mint_bytes(body=body))
            answer = read_answer(sock)
            assert (answer.status, answer.json) == (403, {"error": "a client certificate is required"})
        sock.sendall(get("/tokens"))
        assert read_answer(sock).status == 405


def test_a_client_with_a_certificate_mints_and_reads_keys(
    service: TLSService, authority: Authority, clients: Authority
) -> None:
    context = trusting(authority.path, clients.issue("orchestrator", "orchestrator"))
    with service.connection(context) as sock:
        for request in (MINT, *map(get, OPEN), MINT):
            sock.sendall(request)
            assert read_answer(sock).status == 200


def test_tls_1_2_is_not_spoken_with_client_certificates(
    service: TLSService, authority: Authority, clients: Authority
) -> None:
    """A resumed session would not verify the certificate again."""
    context = trusting(authority.path, clients.issue("older"))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises((ssl.SSLError, ConnectionError)):
        service.exchange(MINT, context)


def test_a_certificate_of_another_authority_ends_the_connection(
    service: TLSService, authority: Authority, directory: Path
) -> None:
    """Even one of the authority that vouches for the server, and also where none is needed."""
    for stranger in (Authority(directory, "foreign"), authority):
        context = trusting(authority.path, stranger.issue("stranger"))
        for request in (MINT, *map(get, OPEN)):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                service.exchange(request, context)


@pytest.mark.parametrize("header", ["X-Client-Cert", "X-Forwarded-Client-Cert", "X-SSL-Client-Verify"])
def test_a_header_is_no_certificate(service: TLSService, clients: Authority, header: str) -> None:
    """Everyone can set what a proxy can set."""
    pem = re.sub(r"\s", " ", clients.issue("claimed").certificate.read_text())
    assert service.exchange(mint_bytes((header, pem))).status == 403


def test_a_client_certificate_is_looked_at_in_each_connection(
    service: TLSService, authority: Authority, clients: Authority
) -> None:
    """No session is offered that a client could resume: its certificate may have expired by then."""
    context = trusting(authority.path, clients.issue("returning"))
    with service.connection(context) as sock:
        sock.sendall(MINT)
        assert read_answer(sock).status == 200
        session = sock.session
    assert session is None or not session.has_ticket


def mints(service: TLSService, context: ssl.SSLContext) -> bool:
    try:
        return service.exchange(MINT, context).status == 200
    except OSError:
        return False


def test_an_authority_that_is_replaced_vouches_no_more(tmp_path: Path, authority: Authority) -> None:
    """Without a restart, for new connections; the file then holds other authorities."""
    before, after = Authority(tmp_path, "before"), Authority(tmp_path, "after")
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(before.path.read_bytes())
    old, new = (trusting(authority.path, each.issue(f"client-{each.path.stem}")) for each in (before, after))

    env = {**tls_settings(authority.issue("another")), "MACP_AUTH_TLS_CLIENT_CA_FILE": str(trusted)}
    with TLSService(tmp_path, authority.path, env) as running:
        assert (mints(running, old), mints(running, new)) == (True, False)
        trusted.write_bytes(after.path.read_bytes())
        wait_until(lambda: mints(running, new), within=TAKEN_UP, what="the new authority vouches")
        assert not mints(running, old)


# --- connections that are open --------------------------------------------------------------------------


def test_a_certificate_that_expires_mints_no_more(tmp_path: Path, authority: Authority) -> None:
    """On the connection that it opened: 403 or the end of it, and never a token after its end."""
    clients = Authority(tmp_path, "brief")
    env = {**tls_settings(authority.issue("served")), "MACP_AUTH_TLS_CLIENT_CA_FILE": str(clients.path)}
    with TLSService(tmp_path, authority.path, env) as running:
        pair = clients.issue("ending", lives=dt.timedelta(seconds=6))
        ends = x509.load_pem_x509_certificate(pair.certificate.read_bytes()).not_valid_after_utc.timestamp()
        with running.connection(trusting(authority.path, pair)) as sock:
            statuses = []
            while time.time() < ends + 5:
                asked_at = time.time()
                try:
                    sock.sendall(MINT)
                    answer = read_answer(sock)
                except OSError:  # it was closed
                    break
                statuses.append(answer.status)
                if asked_at >= ends:
                    assert answer.status == 403
                    assert answer.json == {"error": "the client certificate has expired"}
                    assert answer.headers["connection"] == "close"
                time.sleep(0.05)
            else:
                raise AssertionError("the connection outlives the certificate")
            assert 200 in statuses


@pytest.mark.parametrize("workers", ["1", "2"])
def test_connections_of_an_older_trust_are_closed(tmp_path: Path, authority: Authority, workers: str) -> None:
    """Within 30 s of the change: one in use with its last answer, idle ones, and one within a request."""
    before, after = Authority(tmp_path, "before"), Authority(tmp_path, "after")
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(before.path.read_bytes())
    context = trusting(authority.path, before.issue("client"))
    env = {**tls_settings(authority.issue("trusting")), "MACP_AUTH_TLS_CLIENT_CA_FILE": str(trusted)}
    with TLSService(tmp_path, authority.path, env, "--workers", workers) as running, ExitStack() as stack:
        busy, *idle = (stack.enter_context(running.connection(context)) for _ in range(6))
        idle.append(stack.enter_context(running.connection()))  # without a certificate
        for sock in (busy, *idle[:3]):
            sock.sendall(MINT)
            assert read_answer(sock).status == 200
        changed = time.monotonic()
        trusted.write_bytes(after.path.read_bytes())
        answer = None
        while answer is None or answer.headers.get("connection") != "close":
            assert time.monotonic() - changed < 30, "the connection goes on"
            busy.sendall(MINT)
            answer = read_answer(busy)
            assert answer.status == 200
            time.sleep(0.05)
        for sock in (busy, *idle):
            sock.settimeout(30)
            assert read_to_end(sock).clean
        assert time.monotonic() - changed < 30
