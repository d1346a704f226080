"""Who may mint what, on the real service: credentials, grants, and the file that says so."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from macp_auth.adapters.callers.issuer_keys import FILE_REFRESH_SECONDS, REQUEST_INTERVAL_SECONDS
from macp_auth.application.callers_refresh import POLL_INTERVAL_SECONDS
from tests.support import hung_names
from tools.support import callers
from tools.support.bounded import HANG_SECONDS
from tools.support.service import Service, wait_until
from tools.support.tls import Authority
from tools.support.tls_service import TLSService, tls_settings, trusting
from tools.support.wire import exchange, read_answer

pytestmark = pytest.mark.slow  # services of their own

SECRET = "macp_" + "x" * 43
FILE = f"""
[[caller]]
name = "playground"
secret_sha256 = "{hashlib.sha256(SECRET.encode()).hexdigest()}"
{callers.RISK}
[[caller]]
name = "mesh"
spiffe_id = "{callers.SPIFFE_ID}"
{callers.RISK}
[[caller]]
name = "control-plane"
dns_name = "{callers.DNS_NAME}"

  [[caller.grant]]
  senders = ["macp-control-plane"]
  audiences = ["macp-runtime", "other"]
"""
REQUEST = {"sender": "risk-agent"}
TAKEN_UP = POLL_INTERVAL_SECONDS + 8
STOP_SECONDS = 10


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("callers")


@pytest.fixture(scope="module")
def service(directory: Path) -> Iterator[Service]:
    env = callers.write(directory / "callers.toml", FILE)
    with Service(directory, {**env, "MACP_AUTH_SIGNING_ALG": "ES256"}) as running:
        yield running


def test_a_known_caller_gets_what_its_grant_allows(service: Service) -> None:
    """Every scope is in the token, what was not asked for at the ceiling; the lifetime is cut."""
    answer = callers.mint(service.port, {**REQUEST, "ttl_seconds": 3600}, bearer=SECRET)
    assert (answer.status, answer.json["expires_in_seconds"]) == (200, 900)
    claims = callers.claims_of(answer.json["token"])
    assert (claims["sub"], claims["aud"]) == ("risk-agent", "macp-runtime")
    assert claims["macp_scopes"] == {
        "can_start_sessions": True,
        "can_manage_mode_registry": False,
        "is_observer": False,
        "max_open_sessions": 4,
        "allowed_modes": ["macp.mode.decision.v1", ""],
    }


def test_no_credential(service: Service) -> None:
    """401 with a challenge, before the body is read."""
    for body in (REQUEST, b"no JSON"):
        answer = callers.mint(service.port, body)
        assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert answer.json == {"error": "a credential is required"}


@pytest.mark.parametrize("bearer", [SECRET[:-1] + "y", "macp_", "a.b.c", "x" * 3000, ""])
def test_a_bad_credential(service: Service, bearer: str) -> None:
    """All look the same: nothing says which callers there are, or what was wrong."""
    answer = callers.mint(service.port, REQUEST, bearer=bearer)
    assert (answer.status, answer.json) == (401, {"error": "the credential is not accepted"})
    assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'


def test_two_authorization_headers(service: Service) -> None:
    """Which of them to believe is not known."""
    raw = callers.request(REQUEST, bearer=SECRET)
    twice = raw.replace(b"content-type", b"authorization: Bearer x\r\ncontent-type", 1)
    assert exchange(service.port, twice).status == 400


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        ({"sender": "other"}, 403, "no grant for this sender"),
        ({**REQUEST, "scopes": {"is_observer": True}}, 403, "scopes.is_observer is more than is granted"),
        (
            {**REQUEST, "scopes": {"allowed_modes": ["x"]}},
            403,
            "scopes.allowed_modes is more",
        ),
        ({**REQUEST, "audience": "other"}, 403, "audience is not granted for this sender"),
        ({**REQUEST, "ttl_seconds": -1}, 400, "ttl_seconds must be a positive number"),
        ({"sender": " "}, 400, "sender is required"),
    ],
)
def test_refusals(service: Service, body: dict[str, object], status: int, error: str) -> None:
    """403 for what is not granted, after the checks that are a 400 without callers, too."""
    answer = callers.mint(service.port, body, bearer=SECRET)
    assert answer.status == status
    assert answer.json["error"].startswith(error)


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{", {"content_type": "text/plain", "bearer": None}, 401),
        (b"{", {"content_type": "text/plain"}, 415),
        (b"{", {}, 400),
        ({"sender": " ", "audience": "x"}, {}, "sender is required"),
        ({"sender": "other", "audience": "x"}, {}, "no grant for this sender"),
        ({**REQUEST, "audience": "x", "scopes": 1}, {}, "audience is not granted for this sender"),
        ({**REQUEST, "scopes": {"is_observer": 1}, "ttl_seconds": -1}, {}, "scopes.is_observer must be"),
        ({**REQUEST, "scopes": {"is_observer": True}, "ttl_seconds": -1}, {}, "scopes.is_observer is more"),
        ({**REQUEST, "ttl_seconds": -1}, {}, "ttl_seconds must be a positive number"),
    ],
)
def test_the_first_fault_is_the_answer(
    service: Service, body: dict[str, object] | bytes, headers: dict[str, Any], status: int | str
) -> None:
    """In the order that docs/api.md gives: each request has a later fault, too, but for the last."""
    answer = callers.mint(service.port, body, **{"bearer": SECRET, **headers})
    if isinstance(status, int):
        assert answer.status == status
    else:
        assert answer.json["error"].startswith(status)


def test_a_forwarded_certificate_is_nothing_without_a_proxy_in_the_file(service: Service) -> None:
    header = f"By=x;URI={callers.SPIFFE_ID}"
    answer = callers.mint(service.port, REQUEST, x_forwarded_client_cert=header)
    assert (answer.status, answer.json["error"]) == (401, "a credential is required")


def test_the_audit_log_names_caller_method_and_grant(service: Service) -> None:
    """Of minted tokens and of refusals; the reason of a bad credential stands only here."""
    sent = {}
    for name, bearer, body in (
        ("minted", SECRET, REQUEST),
        ("scope", SECRET, {**REQUEST, "scopes": {"is_observer": True}}),
        ("bad", "macp_" + "z" * 43, REQUEST),
    ):
        sent[name] = callers.mint(service.port, body, bearer=bearer).headers["x-request-id"]

    def lines() -> dict[str, dict[str, object]]:
        by_id = {line.get("request_id"): line for line in service.audit_lines}
        return {name: by_id[request_id] for name, request_id in sent.items() if request_id in by_id}

    wait_until(lambda: lines().keys() == sent.keys(), within=HANG_SECONDS, what="all three lines")
    known = {"caller": "playground", "method": "secret", "grant": "playground/1"}
    assert lines()["minted"].items() >= {**known, "event": "minted"}.items()
    assert lines()["scope"].items() >= {**known, "reason": "scope-not-granted"}.items()
    assert lines()["bad"]["reason"] == "credential-unknown-caller"
    assert lines()["bad"]["caller"] == "127.0.0.1"


def test_the_file_is_followed(directory: Path, start_service: Callable[..., Service]) -> None:
    """A new caller is known soon, a broken file changes nothing, a removed caller is refused."""
    path = directory / "followed.toml"
    service = start_service(callers.write(path, FILE))
    other = "macp_" + "o" * 43
    more = (
        FILE
        + f"""
[[caller]]
name = "other"
secret_sha256 = "{hashlib.sha256(other.encode()).hexdigest()}"
{callers.RISK}
"""
    )

    def status(bearer: str) -> int:
        return callers.mint(service.port, REQUEST, bearer=bearer).status

    assert (status(SECRET), status(other)) == (200, 401)
    callers.write(path, more)
    wait_until(lambda: status(other) == 200, within=TAKEN_UP, what="the new caller is known")
    callers.write(path, more.replace("secret_sha256", "secret", 1))
    wait_until(
        lambda: "cannot use the callers file" in service.log, within=TAKEN_UP, what="the fault is logged"
    )
    assert "caller[0]" in service.log
    assert (status(SECRET), status(other)) == (200, 200)
    callers.write(path, FILE)
    wait_until(lambda: status(other) == 401, within=TAKEN_UP, what="the removed caller is refused")
    assert status(SECRET) == 200


def test_a_reload_drops_no_request(directory: Path, start_service: Callable[..., Service]) -> None:
    """While the file changes three times, each request gets its token."""
    path = directory / "reloaded.toml"
    service = start_service({**callers.write(path, FILE), "MACP_AUTH_SIGNING_ALG": "ES256"})

    def mints_until_reloaded(times: int) -> bool:
        assert callers.mint(service.port, REQUEST, bearer=SECRET).status == 200
        return service.log.count('"event":"callers file"') > times

    for times in range(1, 4):
        callers.write(path, f"{FILE}\n# {times}\n")
        wait_until(lambda seen=times: mints_until_reloaded(seen), within=TAKEN_UP, what="the reload")


def test_a_rate_is_kept(directory: Path, start_service: Callable[..., Service]) -> None:
    """The token after the last one of the minute is a 429 that says when to come back."""
    limited = FILE.replace(
        'senders = ["risk-agent", "fraud-*"]', 'senders = ["risk-agent"]\n  per_minute = 2', 1
    )
    service = start_service(callers.write(directory / "limited.toml", limited))
    answers = [callers.mint(service.port, REQUEST, bearer=SECRET) for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 30
    assert answers[-1].json == {"error": "too many requests"}


def test_a_credential_that_is_revoked_while_its_request_arrives(
    directory: Path, start_service: Callable[..., Service]
) -> None:
    """It mints nothing, and above all not what the next holder of its caller's name may."""
    path = directory / "revoked.toml"
    service = start_service(callers.write(path, FILE))
    other = hashlib.sha256(b"macp_" + b"o" * 43).hexdigest()
    wide = '[[caller.grant]]\nsenders = ["*"]\nscopes = { can_manage_mode_registry = true }'
    request = callers.request(
        {"sender": "anyone", "scopes": {"can_manage_mode_registry": True}}, bearer=SECRET
    )
    with socket.create_connection(("127.0.0.1", service.port), timeout=HANG_SECONDS) as connection:
        connection.sendall(request[:-1])
        time.sleep(0.2)  # its caller is authenticated before its body is read
        callers.write(path, f'[[caller]]\nname = "playground"\nsecret_sha256 = "{other}"\n{wide}')
        wait_until(
            lambda: [event["event"] for event in service.events].count("callers file") == 2,
            within=TAKEN_UP,
            what="the file is read again",
        )
        connection.sendall(request[-1:])
        assert read_answer(connection).status == 401


def test_report_mode_refuses_nothing(directory: Path, start_service: Callable[..., Service]) -> None:
    """It mints as without a callers file, and logs what that would refuse."""
    env = callers.write(directory / "reported.toml", FILE)
    service = start_service({**env, "MACP_AUTH_CALLERS_MODE": "report"})
    wide = {"sender": "anyone", "scopes": {"can_manage_mode_registry": True}}
    answer = callers.mint(service.port, wide)
    assert answer.status == 200
    assert callers.claims_of(answer.json["token"])["macp_scopes"] == wide["scopes"]
    assert callers.mint(service.port, wide, bearer=SECRET).status == 200
    assert callers.mint(service.port, REQUEST, bearer=SECRET).status == 200
    reports = [event for event in service.events if event["event"] == "callers file would refuse"]
    assert [(event["reason"], event["caller"], event["sender"]) for event in reports] == [
        ("no-credential", None, None),
        ("no-grant", "playground", "anyone"),
    ]


@pytest.fixture(scope="module")
def authority(directory: Path) -> Authority:
    return Authority(directory)


@pytest.fixture(scope="module")
def clients(directory: Path) -> Authority:
    return Authority(directory, "clients")


@pytest.fixture(scope="module")
def tls(directory: Path, authority: Authority, clients: Authority) -> Iterator[TLSService]:
    env = {
        **callers.write(directory / "tls.toml", FILE),
        **tls_settings(authority.issue("server")),
        "MACP_AUTH_TLS_CLIENT_CA_FILE": str(clients.path),
    }
    with TLSService(directory, authority.path, env) as running:
        wait_until(lambda: running.get("/readyz"), within=HANG_SECONDS, what="it is ready")
        yield running


@pytest.mark.parametrize(
    ("names", "sender", "status"),
    [
        ([x509.UniformResourceIdentifier(callers.SPIFFE_ID)], "risk-agent", 200),
        ([x509.UniformResourceIdentifier(callers.SPIFFE_ID)], "macp-control-plane", 403),
        ([x509.UniformResourceIdentifier(callers.SPIFFE_ID + "2")], "risk-agent", 401),
        ([x509.DNSName(callers.DNS_NAME)], "macp-control-plane", 200),
        ([x509.DNSName(callers.DNS_NAME)], "risk-agent", 403),
        ([x509.DNSName("*.macp.svc")], "macp-control-plane", 401),
        ([x509.DNSName("a.example"), x509.DNSName(callers.DNS_NAME)], "macp-control-plane", 200),
        (
            [x509.UniformResourceIdentifier(f"{callers.SPIFFE_ID}{n}") for n in ("", "2")],
            "risk-agent",
            401,
        ),
    ],
)
def test_names(
    tls: TLSService,
    authority: Authority,
    clients: Authority,
    *,
    names: list[x509.GeneralName],
    sender: str,
    status: int,
) -> None:
    """A SPIFFE ID or a DNS name decides, never the common name."""
    client = clients.issue("client", callers.DNS_NAME, names=names)
    answer = tls.exchange(callers.request({"sender": sender}), trusting(authority.path, client))
    assert answer.status == status


def test_a_name_that_does_not_resolve_delays_no_exit(
    tmp_path: Path, start_service: Callable[..., Service]
) -> None:
    """The C library waits up to a minute for name servers that do not answer."""
    env = callers.write(
        tmp_path / "callers.toml",
        f"""
[[issuer]]
name = "cluster"
issuer = "https://kubernetes.default.svc.cluster.local"
audience = "macp-auth"
jwks_url = "https://{hung_names.NAME}/jwks"

[[caller]]
name = "playground"
jwt = {{ issuer = "cluster", subject = "x" }}
{callers.RISK}""",
    )
    service = start_service({**env, **hung_names.environment(tmp_path)})
    wait_until(lambda: "no complete answer" in service.log, within=HANG_SECONDS, what="the fetch has failed")
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(STOP_SECONDS) == 0


def test_a_certificate_is_not_demanded(tls: TLSService) -> None:
    """It is one credential among others."""
    assert tls.exchange(callers.request(REQUEST)).status == 401
    assert tls.exchange(callers.request(REQUEST, bearer=SECRET)).status == 200


def test_an_expired_certificate_on_a_live_connection(
    tls: TLSService, authority: Authority, clients: Authority
) -> None:
    """No token after its end: the request is refused, or the connection is closed."""
    client = clients.issue(
        "short",
        names=[x509.UniformResourceIdentifier(callers.SPIFFE_ID)],
        lives=dt.timedelta(seconds=3),
    )
    with tls.connection(trusting(authority.path, client)) as sock:
        sock.sendall(callers.request(REQUEST))
        assert read_answer(sock).status == 200
        ended = time.time() + 3  # at the latest
        wait_until(lambda: time.time() > ended, within=5, what="the certificate has ended")
        try:
            sock.sendall(callers.request(REQUEST))
            answer = read_answer(sock)
        except (OSError, AssertionError):
            return
        assert answer.status == 401


class Issuer:
    """Issues JWTs as Kubernetes does for service accounts, and publishes its keys in a file."""

    SUBJECT = "system:serviceaccount:macp:playground"

    def __init__(self, path: Path) -> None:
        self._path = path
        self._keys: dict[str, ec.EllipticCurvePrivateKey] = {}

    @property
    def declaration(self) -> str:
        return f"""
[[issuer]]
name = "cluster"
issuer = "https://kubernetes.default.svc.cluster.local"
audience = "macp-auth"
jwks_file = "{self._path}"

[[caller]]
name = "playground"
jwt = {{ issuer = "cluster", subject = "{self.SUBJECT}" }}
{callers.RISK}"""

    def publish(self, *kids: str) -> None:
        """Publish exactly these keys, by renaming the file."""
        for kid in kids:
            self._keys.setdefault(kid, ec.generate_private_key(ec.SECP256R1()))
        jwks = [
            {**json.loads(ECAlgorithm.to_jwk(self._keys[kid].public_key())), "kid": kid, "use": "sig"}
            for kid in kids
        ]
        fresh = self._path.with_suffix(".new")
        fresh.write_text(json.dumps({"keys": jwks}))
        fresh.replace(self._path)

    def issue(self, kid: str) -> str:
        now = int(time.time())
        claims = {
            "iss": "https://kubernetes.default.svc.cluster.local",
            "aud": ["macp-auth"],
            "sub": self.SUBJECT,
            "iat": now,
            "nbf": now,
            "exp": now + 600,
            "kubernetes.io": {"namespace": "macp", "serviceaccount": {"name": "playground"}},
        }
        return jwt.encode(claims, self._keys[kid], algorithm="ES256", headers={"kid": kid})


@pytest.mark.parametrize("workers", ["1", "2"])
def test_service_account_tokens_while_their_issuer_rotates(
    directory: Path, start_service: Callable[..., Service], workers: str
) -> None:
    """None is refused while a key is replaced by another; none is accepted long after its key was removed."""
    issuer = Issuer(directory / f"issuer-{workers}.json")
    issuer.publish("old")
    env = callers.write(directory / f"jwt-{workers}.toml", issuer.declaration)
    service = start_service({**env, "MACP_AUTH_SIGNING_ALG": "ES256"}, "--workers", workers)

    def status(token: str) -> int:
        return callers.mint(service.port, REQUEST, bearer=token).status

    def all_accepted(token: str) -> bool:
        return all(status(token) == 200 for _ in range(10))

    old = issuer.issue("old")
    assert all_accepted(old)
    issuer.publish("old", "new")
    new = issuer.issue("new")
    published = time.monotonic()
    while time.monotonic() < published + FILE_REFRESH_SECONDS + REQUEST_INTERVAL_SECONDS:
        assert status(old) == 200
        if status(new) == 200:
            break
    wait_until(lambda: all_accepted(new), within=TAKEN_UP, what="each worker knows the new key")
    issuer.publish("new")
    wait_until(
        lambda: all(status(old) == 401 for _ in range(10)), within=TAKEN_UP, what="the old key is gone"
    )
    assert all_accepted(new)
