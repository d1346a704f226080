"""A Vault, or a proxy in front of it, that repeats requests in its errors."""

from __future__ import annotations

import base64
import json
import secrets
import subprocess
import sys
import urllib.error
import uuid
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.support.fake_server import FakeServer, Reply, Request
from tools.support.bounded import HANG_SECONDS
from tools.support.service import Service, clean_environment, wait_until

pytestmark = pytest.mark.slow  # a service for each way to log in

KEY = ec.generate_private_key(ec.SECP256R1())
PEM = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
LONGEST_PIECE = 15
"""Characters of a secret that may be seen, as SECURITY.md says."""
LONGEST_DETAIL = 500

Spelling = Callable[[str], str]
SPELLINGS: dict[str, Spelling] = {
    "raw": str,
    "cut off": lambda text: text[: len(text) * 2 // 3],
    "upper case": str.upper,
    "URL": lambda text: "".join(f"%{byte:02X}" for byte in text.encode()),
    "JSON": lambda text: "".join(f"\\u{ord(character):04x}" for character in text),
    "HTML": lambda text: "".join(f"&#{ord(character)};" for character in text),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64 of a header": lambda text: base64.b64encode(b"X-Vault-Token: " + text.encode()).decode(),
    "hexadecimal": lambda text: text.encode().hex(),
}


class Parrot:
    """A Vault that signs well, until a kind of call is to fail: then its error repeats the request."""

    def __init__(self) -> None:
        self.failing: set[str] = set()
        self.failed: set[str] = set()
        self.spelling: Spelling = str
        self.status = 403
        self.padding = 0
        self.given: list[str] = []
        """The tokens that logins got."""

    def __call__(self, request: Request) -> Reply:
        kind = _kind(request)
        if kind in self.failing:
            self.failed.add(kind)
            return self._failure(kind, request)
        return Reply(200, self._answer(kind, request))

    def _failure(self, kind: str, request: Request) -> Reply:
        text = self._echo(request)
        if self.status != 200:
            return Reply(self.status, {"errors": [text]})
        return Reply(200, WRONG[kind](text) if kind in WRONG else {"data": text, "auth": text})

    def _echo(self, request: Request) -> str:
        sent = [request.headers.get("x-vault-token", "")]
        body = json.loads(request.body) if request.body else {}
        sent += [body[name] for name in ("secret_id", "jwt", "role_id") if name in body]
        padding = "\x1b[31mlong\n" * (self.padding // 10)
        return f"denied: {' '.join(map(self.spelling, [*sent, *self.given[-1:]]))} {padding}"

    def _answer(self, kind: str, request: Request) -> Any:
        if kind == "login":
            self.given.append(f"hvs.{secrets.token_urlsafe(60)}")
        if kind in ("login", "renew"):
            token = request.headers.get("x-vault-token", self.given[-1] if self.given else "")
            return {"auth": {"client_token": token, "lease_duration": 1, "renewable": True}}
        if kind == "sign":
            items = request.json["batch_input"]
            return {"data": {"batch_results": [{"signature": _signature(each)} for each in items]}}
        if kind == "capabilities":
            return {"data": {path: ["read", "update"] for path in request.json["paths"]}}
        return GOOD[kind]


HEALTHY = {"initialized": True, "sealed": False, "standby": False, "server_time_utc": 1}
GOOD: Mapping[str, Any] = {
    "look-up": {"data": {"ttl": 1, "renewable": True, "policies": ["macp"], "expire_time": "x"}},
    "read": {
        "data": {
            "type": "ecdsa-p256",
            "keys": {"1": {"public_key": PEM, "creation_time": "2026-01-01T00:00:00Z"}},
        }
    },
    "health": HEALTHY,
}
WRONG: Mapping[str, Callable[[str], Any]] = {
    "read": lambda text: {"data": {"type": text, "keys": {}}},
    "sign": lambda text: {"data": {"batch_results": [{"error": text}]}},
    "health": lambda text: {**HEALTHY, "version": text},
}
"""Answers of status 200 that are not good."""


def _kind(request: Request) -> str:
    for end, kind in {
        "/login": "login",
        "/renew-self": "renew",
        "/lookup-self": "look-up",
        "/sys/capabilities-self": "capabilities",
    }.items():
        if request.path.endswith(end):
            return kind
    if "/sys/health" in request.path:
        return "health"
    return "sign" if "/sign/" in request.path else "read"


def _signature(item: Any) -> str:
    der = KEY.sign(base64.b64decode(item["input"]), ec.ECDSA(Prehashed(hashes.SHA256())))
    raw = b"".join(number.to_bytes(32, "big") for number in decode_dss_signature(der))
    return f"vault:v1:{base64.urlsafe_b64encode(raw).decode().rstrip('=')}"


@pytest.fixture
def parrot() -> Parrot:
    return Parrot()


@pytest.fixture
def vault(parrot: Parrot) -> Iterator[FakeServer]:
    with FakeServer(parrot) as server:
        yield server


class Credentials:
    """Those of one method of login."""

    def __init__(self, method: str, directory: Path) -> None:
        self.method = method
        self.secrets: list[str] = []
        self.env = {"MACP_AUTH_VAULT_AUTH": method}
        match method:
            case "token":
                self.env["VAULT_TOKEN"] = self._made(f"hvs.{secrets.token_urlsafe(60)}")
            case "approle":
                self.env["MACP_AUTH_VAULT_ROLE_ID"] = self._made(str(uuid.uuid4()))
                self.env["MACP_AUTH_VAULT_SECRET_ID"] = self._made(secrets.token_hex(18))
            case _:
                file = directory / "jwt"
                file.write_text(self._made(".".join(secrets.token_urlsafe(300) for _ in range(3))))
                self.env |= {"MACP_AUTH_VAULT_ROLE": "r", "MACP_AUTH_VAULT_JWT_FILE": str(file)}

    def _made(self, secret: str) -> str:
        self.secrets.append(secret)
        return secret


@pytest.fixture(params=["token", "approle", "kubernetes", "jwt"])
def credentials(request: pytest.FixtureRequest, tmp_path: Path) -> Credentials:
    return Credentials(request.param, tmp_path)


def environment(vault: FakeServer, credentials: Credentials) -> dict[str, str]:
    return {
        "MACP_AUTH_SIGNER": "vault-transit",
        "MACP_AUTH_VAULT_ADDR": vault.url,
        "MACP_AUTH_VAULT_KEY": "k",
        "MACP_AUTH_KEY_REFRESH_SECONDS": "1",
        **credentials.env,
    }


def leaks(text: str, credentials: list[str]) -> list[str]:
    """The pieces of a secret that ``text`` shows, in any of the spellings."""
    shown = text.casefold()
    found = []
    for secret in filter(None, credentials):
        for name, spelling in SPELLINGS.items():
            spelled = spelling(secret).casefold()
            length = LONGEST_PIECE * len(spelling("a" * 30)) // 30 + 1
            pieces = (spelled[at : at + length] for at in range(len(spelled) - length + 1))
            found += [f"{name}: {piece}" for piece in pieces if piece in shown][:1]
    return found


def ask_for_token(service: Service) -> str:
    """The response of the service, of any kind."""
    try:
        return json.dumps({**service.mint(), "token": "a token"})
    except urllib.error.HTTPError as error:
        with error:
            return error.read().decode()


def everything_said(service: Service) -> str:
    """All output of the service; the JSON of its lines is decoded."""
    texts = [str(event) for event in service.events]
    texts.append(service.audit_path.read_text())
    for path in ("/readyz", "/.well-known/jwks.json"):
        try:
            texts.append(json.dumps(service.get(path)[1]))
        except urllib.error.HTTPError as error:
            with error:
                texts.append(error.read().decode())
    return "\n".join(texts)


def failure_of(parrot: Parrot, service: Service, kind: str) -> str:
    """Have the calls of one kind fail; return what the service answered meanwhile, and end it."""
    parrot.failed.clear()
    parrot.failing = {kind}
    answers: list[str] = []

    def failed_and_logged() -> bool:
        answers.append(ask_for_token(service))
        return kind in parrot.failed and bool(service.log)

    wait_until(failed_and_logged, within=HANG_SECONDS, what=f"a failure of {kind}")
    answers.append(ask_for_token(service))
    parrot.failing = set()
    return "\n".join(answers)


def test_a_service_repeats_no_credential(
    parrot: Parrot, vault: FakeServer, credentials: Credentials, start_service: Callable[..., Service]
) -> None:
    """For every call and status."""
    parrot.failing = {"login", "look-up"}
    service = start_service(environment(vault, credentials))
    wait_until(
        lambda: bool(parrot.failed) and "cannot read keys" in service.log,
        within=HANG_SECONDS,
        what="a refused login",
    )
    parrot.failing = set()
    if credentials.method == "approle":  # a refused secret id is not tried again soon
        service = start_service(environment(vault, credentials))
    wait_until(lambda: '"token"' in ask_for_token(service), within=HANG_SECONDS, what="a token")
    answers = []
    for status in (200, 400, 403, 404, 429, 500, 503):
        parrot.status = status
        answers += [failure_of(parrot, service, kind) for kind in ("renew", "read", "sign")]
    said = "\n".join([everything_said(service), *answers])
    assert said.count("denied") > 10
    assert leaks(said, [*credentials.secrets, *parrot.given]) == []


def test_a_credential_is_known_in_other_spellings(
    parrot: Parrot, vault: FakeServer, tmp_path: Path, start_service: Callable[..., Service]
) -> None:
    """And by a piece of it: a proxy may cut it off."""
    credentials = Credentials("token", tmp_path)
    service = start_service(environment(vault, credentials))
    wait_until(lambda: '"token"' in ask_for_token(service), within=HANG_SECONDS, what="a token")
    for spelling in SPELLINGS.values():
        parrot.spelling = spelling
        failure_of(parrot, service, "sign")
    said = everything_said(service)
    assert said.count("denied") >= len(SPELLINGS)
    assert leaks(said, credentials.secrets) == []


@pytest.mark.parametrize("status", [200, 400])
def test_long_words_of_vault_are_cut(
    parrot: Parrot, vault: FakeServer, tmp_path: Path, start_service: Callable[..., Service], status: int
) -> None:
    """They fill no disk, and nothing of them reaches a terminal as a control character."""
    service = start_service(environment(vault, Credentials("token", tmp_path)))
    wait_until(lambda: '"token"' in ask_for_token(service), within=HANG_SECONDS, what="a token")
    parrot.padding, parrot.status = 3_000_000, status
    failure_of(parrot, service, "sign")
    parrot.failing = {"sign"}
    before = len(service.log)
    for _ in range(20):
        ask_for_token(service)
    details = [str(event.get("detail", "")) for event in service.events]
    assert len(service.log) - before < 100 * 2 * LONGEST_DETAIL
    assert max(map(len, details)) <= LONGEST_DETAIL
    assert all(detail.isprintable() for detail in details)


@pytest.mark.parametrize(
    "fault", [*product(["health", "login", "look-up", "capabilities", "read", "sign"], [200, 403])], ids=str
)
@pytest.mark.parametrize("method", ["token", "approle"])
def test_the_doctor_repeats_no_credential(
    parrot: Parrot, vault: FakeServer, tmp_path: Path, method: str, fault: tuple[str, int]
) -> None:
    """For every failing call."""
    credentials = Credentials(method, tmp_path)
    kind, parrot.status = fault
    parrot.failing = {kind}
    run = subprocess.run(
        [sys.executable, "-m", "macp_auth", "doctor"],
        env=clean_environment(environment(vault, credentials)),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert "vault" in run.stdout
    assert leaks(run.stdout + run.stderr, [*credentials.secrets, *parrot.given]) == []
