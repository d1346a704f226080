"""The second listener, which serves only the keys, discovery and the probes."""

from __future__ import annotations

import json
import signal
import socket
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from macp_auth.entrypoints.server.protocol import RECEIVE_SECONDS
from tests.support.ipv6 import needs_ipv6
from tests.support.metrics import metrics_env, scrape
from tests.support.wire_probes import PROBES, raw_request
from tools.support.bounded import HANG_SECONDS
from tools.support.processes import all_gone, connection, family, mint_bytes, read_to_end, workers_of
from tools.support.programs import require_tool
from tools.support.service import Service, clean_environment, free_port, wait_until
from tools.support.tls import Authority
from tools.support.tls_service import TLSService, serial_of, tls_settings, trusting
from tools.support.wire import Answer, exchange, read_answer, request_bytes

pytestmark = pytest.mark.slow  # services of their own

JWKS, DISCOVERY = "/.well-known/jwks.json", "/.well-known/openid-configuration"
OF_KEYS = (JWKS, DISCOVERY, "/healthz", "/readyz", "/readyz/keys")
ISSUER = {"MACP_AUTH_ISSUER": "https://auth.example.com"}
WITHIN = 15
StartService = Callable[..., Service]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def keys_env(**more: str) -> dict[str, str]:
    return {"MACP_AUTH_JWKS_PORT": str(free_port()), **more}


def keys_port(env: dict[str, str]) -> int:
    return int(env["MACP_AUTH_JWKS_PORT"])


def get(path: str, method: str = "GET") -> bytes:
    return request_bytes(method, path, [("Host", "localhost")])


def without_date_and_id(answer: Answer) -> tuple[int, dict[str, str], bytes]:
    unlike = {"date", "x-request-id"}
    return answer.status, {name: answer.headers[name] for name in answer.headers.keys() - unlike}, answer.body


@pytest.fixture(scope="module", params=["1", "2"])
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Service, int]]:
    """A service with one worker and with two, and its port of the keys."""
    env = keys_env(**ISSUER, MACP_AUTH_OPENAPI="on", **metrics_env())
    with Service(tmp_path_factory.mktemp("served"), env, "--workers", request.param) as service:
        wait_until(
            lambda: [event["event"] for event in service.events].count("ready") == int(request.param),
            within=WITHIN,
            what="all are ready",
        )
        yield service, keys_port(env)


@pytest.mark.parametrize("path", OF_KEYS)
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST"])
def test_it_answers_as_the_main_listener(served: tuple[Service, int], path: str, method: str) -> None:
    service, port = served
    main = exchange(service.port, get(path, method), method=method)
    assert without_date_and_id(exchange(port, get(path, method), method=method)) == without_date_and_id(main)
    assert main.status == (405 if method == "POST" else 200)


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
@pytest.mark.parametrize("path", ["/tokens", "/openapi.json", "/metrics", "/", "/tokens/", JWKS + "/"])
def test_everything_else_is_not_found(served: tuple[Service, int], path: str, method: str) -> None:
    _, port = served
    answer = exchange(port, get(path, method), method=method)
    assert (answer.status, answer.json) == (404, {"error": "not found"})


def test_a_token_cannot_be_minted_there(served: tuple[Service, int]) -> None:
    service, port = served
    assert exchange(service.port, mint_bytes()).status == 200
    assert exchange(port, mint_bytes()).status == 404


@pytest.mark.parametrize(
    "probe",
    [probe for probe in PROBES if probe["request"].get("path") in OF_KEYS],
    ids=lambda probe: probe["id"],
)
def test_wire_probe(start_service: StartService, probe: dict[str, Any]) -> None:
    """The reference's answers about keys and health are those of this listener."""
    env = keys_env()
    service = start_service(env)
    method = probe["request"]["method"]
    answers = [exchange(port, raw_request(probe), method=method) for port in (service.port, keys_port(env))]
    assert without_date_and_id(answers[0]) == without_date_and_id(answers[1])


def test_a_verifier_learns_that_there_are_no_keys_yet(start_service: StartService) -> None:
    """It asked for no token; the answer is counted, and is no line in the log for each request."""
    backend = {"MACP_AUTH_SIGNER": "vault-transit", "MACP_AUTH_VAULT_KEY": "agents"}
    away = {"VAULT_ADDR": f"http://127.0.0.1:{free_port()}", "VAULT_TOKEN": "t"}
    env = keys_env(**backend, **away, **metrics_env())
    service = start_service(env)
    for port in (service.port, keys_port(env)):
        answer = exchange(port, get(JWKS), method="GET")
        assert answer.status == 503
        assert answer.json == {"error": "no keys have been read yet; try again"}
        assert (answer.headers["retry-after"], answer.headers["connection"]) == ("1", "close")
    counted = scrape(service).values("macp_auth_jwks_requests_total", "status", "listener")
    assert counted == {("503", "main"): 1, ("503", "jwks"): 1}
    assert "no signature" not in [event["event"] for event in service.events]


def test_its_requests_and_connections_are_counted_apart(served: tuple[Service, int]) -> None:
    service, port = served

    def counted(listener: str) -> float:
        return scrape(service).values("macp_auth_jwks_requests_total", "listener").get((listener,), 0)

    before = {listener: counted(listener) for listener in ("main", "jwks")}
    with connection(port) as sock:
        sock.sendall(get(JWKS))
        assert read_answer(sock).status == 200

        def open_there() -> float:
            values = scrape(service).values("macp_auth_connections", "worker", "listener")
            return sum(number for (_, listener), number in values.items() if listener == "jwks")

        wait_until(lambda: open_there() == 1, within=WITHIN, what="the connection is counted")
    assert {listener: counted(listener) - before[listener] for listener in before} == {"main": 0, "jwks": 1}


def test_a_crowd_there_ends_no_connection_of_a_caller(start_service: StartService) -> None:
    """Each listener has its own bound, and the log names it."""
    env = keys_env(MACP_AUTH_MAX_CONNECTIONS="5", **metrics_env())
    service = start_service(env)
    with ExitStack() as stack:
        caller = stack.enter_context(connection(service.port))
        caller.sendall(mint_bytes())
        assert read_answer(caller).status == 200
        crowd = [stack.enter_context(connection(keys_port(env))) for _ in range(20)]
        assert read_to_end(crowd[0]).received == b""
        [reached] = [event for event in service.events if event["event"].startswith("connection limit")]
        assert reached["listener"] == "jwks"
        caller.sendall(mint_bytes())
        assert read_answer(caller).status == 200
    assert scrape(service).values("macp_auth_connections_shed_total", "listener")[("jwks",)] == 15


def test_a_crowd_there_that_has_all_descriptors_makes_room(tmp_path: Path) -> None:
    """The limit is lowered below what the service expects, and is reached by the crowd alone."""
    prlimit = require_tool("prlimit", "util-linux")
    env = keys_env()
    with Service(tmp_path, env, prefix=[prlimit, "--nofile=256:2048"]) as service, ExitStack() as stack:
        for _ in range(60):
            stack.enter_context(connection(keys_port(env)))
        assert exchange(keys_port(env), get("/healthz")).status == 200  # so all are accepted
        subprocess.run([prlimit, "--nofile=60:2048", "--pid", str(service.process.pid)], check=True)
        assert exchange(service.port, mint_bytes(), within=RECEIVE_SECONDS / 2).status == 200


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_stop_answers_what_is_on_its_way_there(start_service: StartService, workers: str) -> None:
    """Both ports are closed, and an idle connection does not delay the end."""
    env = keys_env()
    service = start_service(env, "--workers", workers)
    processes = family(service)
    with ExitStack() as stack:
        half, idle = (stack.enter_context(connection(keys_port(env))) for _ in range(2))
        idle.sendall(get(JWKS))
        assert read_answer(idle).status == 200
        half.sendall(get(JWKS)[:-2])
        assert exchange(keys_port(env), get("/healthz")).status == 200  # so the half has been read by now
        service.process.send_signal(signal.SIGTERM)
        wait_until(lambda: refuses(keys_port(env)), within=WITHIN, what="the port is closed")
        half.sendall(get(JWKS)[-2:])
        answer = read_answer(half)
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert service.process.wait(WITHIN) == 0
    wait_until(lambda: all_gone(processes), within=WITHIN, what="no process is left")


def refuses(port: int) -> bool:
    try:
        with connection(port):
            return False
    except ConnectionRefusedError:
        return True


def test_a_worker_that_replaces_a_dead_one_serves_both(start_service: StartService) -> None:
    env = keys_env()
    service = start_service(env, "--workers", "2")
    lost, _ = workers_of(service)
    lost.kill()
    wait_until(
        lambda: len(workers_of(service)) == 2 and lost not in workers_of(service),
        within=WITHIN,
        what="a new one",
    )
    [other] = [each for each in workers_of(service) if each.pid != max(w.pid for w in workers_of(service))]
    other.suspend()
    try:
        for port in (service.port, keys_port(env)):
            assert exchange(port, get(JWKS), within=60).status == 200
    finally:
        other.resume()


@needs_ipv6
@pytest.mark.parametrize(("host", "reachable"), [("::1", ["[::1]"]), ("::", ["127.0.0.1", "[::1]"])])
def test_it_has_its_own_address(start_service: StartService, host: str, reachable: list[str]) -> None:
    env = keys_env(MACP_AUTH_JWKS_HOST=host)
    service = start_service(env)
    for address in reachable:
        url = f"http://{address}:{keys_port(env)}{JWKS}"
        with urllib.request.urlopen(url, timeout=HANG_SECONDS) as response:
            assert json.load(response) == service.jwks()


@pytest.mark.parametrize(
    ("variable", "named"),
    [("PORT", "PORT, where tokens are minted"), ("MACP_AUTH_METRICS_PORT", "MACP_AUTH_JWKS_PORT")],
)
def test_its_port_is_not_shared(variable: str, named: str) -> None:
    env = keys_env()
    ended = refused({**env, "PORT": str(free_port()), variable: env["MACP_AUTH_JWKS_PORT"]})
    assert f"must not be {named}: set another" in ended


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = refused({"PORT": str(free_port()), "MACP_AUTH_JWKS_PORT": str(port)})
    assert f"can't listen on port {port} of MACP_AUTH_JWKS_HOST" in ended
    assert "set MACP_AUTH_JWKS_PORT or MACP_AUTH_JWKS_HOST" in ended


def test_a_host_without_an_address_is_named() -> None:
    ended = refused(keys_env(PORT=str(free_port()), MACP_AUTH_JWKS_HOST="no-such-host.invalid"))
    assert "cannot resolve MACP_AUTH_JWKS_HOST" in ended


def test_the_descriptors_must_do_for_both() -> None:
    ended = refused(keys_env(MACP_AUTH_MAX_CONNECTIONS="90"), "prlimit", "--nofile=256:256")
    assert "too few for 2 times MACP_AUTH_MAX_CONNECTIONS" in ended


def refused(env: dict[str, str], *prefix: str) -> str:
    """The error of a service that does not start."""
    ended = subprocess.run(
        [*prefix, sys.executable, "-m", "macp_auth", "serve"],
        env=clean_environment(env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )
    assert ended.returncode == 2
    [line] = ended.stderr.splitlines()
    error: str = json.loads(line)["error"]
    return error


@pytest.mark.parametrize("workers", ["1", "2"])
def test_tls_there_asks_for_no_client_certificate_and_reloads(
    tmp_path: Path, authority: Authority, workers: str
) -> None:
    pair = authority.issue("server")
    env = keys_env(**tls_settings(pair), MACP_AUTH_TLS_CLIENT_CA_FILE=str(authority.path))
    with TLSService(tmp_path, authority.path, env, "--workers", workers) as service:
        port = keys_port(env)
        stranger = trusting(authority.path, Authority(tmp_path, "strangers").issue("stranger"))
        with pytest.raises((ssl.SSLError, ConnectionError)):
            service.exchange(get(JWKS), stranger)
        with over_tls(port, stranger) as sock:  # its certificate is not asked for
            sock.sendall(get(JWKS))
            assert read_answer(sock).status == 200
        with over_tls(port, service.trusting) as before:
            old = serial_of(before)
            assert old == pair.serial
            before.sendall(get(JWKS))  # so it may be idle for longer than this test waits
            assert read_answer(before).status == 200
            pair.replace(authority.issue("next"))
            wait_until(
                lambda: service.log.count(f"{pair.serial:x}") == int(workers),
                within=WITHIN,
                what="it is read",
            )
            with over_tls(port, service.trusting) as after:
                assert serial_of(after) == pair.serial != old
                after.sendall(get(JWKS))
                assert read_answer(after).json == service.jwks()
            before.settimeout(30)
            assert read_to_end(before).clean
        [url] = {event["jwks_url"] for event in service.events if event["event"] == "verification keys only"}
        assert url == f"https://127.0.0.1:{port}{JWKS}"


def over_tls(port: int, context: ssl.SSLContext) -> ssl.SSLSocket:
    plain = socket.create_connection(("127.0.0.1", port), timeout=HANG_SECONDS)
    return context.wrap_socket(plain, server_hostname="localhost")


def test_keys_without_tls_beside_tokens_with_it(tmp_path: Path, authority: Authority) -> None:
    """What the MACP runtime needs, whose HTTP client has no TLS."""
    env = keys_env(**tls_settings(authority.issue("server")), MACP_AUTH_JWKS_TLS="off")
    with TLSService(tmp_path, authority.path, env) as service:
        assert exchange(keys_port(env), get(JWKS)).json == service.jwks()
        assert exchange(keys_port(env), mint_bytes()).status == 404
        assert service.exchange(mint_bytes()).status == 200
