"""What a caller's credential costs a token: ES256 tokens in this process, without a socket or a handshake."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm
from msgspec import Struct

from macp_auth.adapters.callers.secret import digest_of, new_secret
from macp_auth.domain.callers import ClientCertificate
from tools.bench.figures import Run, Spreads, spreads
from tools.bench.tables import Row
from tools.support.asgi import InProcess

ANONYMOUS, CERTIFICATE, TOKEN, SECRET = "none", "client certificate", "remembered JWT", "bearer secret"
NAMES = (ANONYMOUS, CERTIFICATE, TOKEN, SECRET)
ROWS = (Row("CPU per token, us", "cpu_us", 1), Row("beside a token without a credential", "ratio", 2))
TITLE = "A token by the credential of its caller"
EXCHANGES = 300
_SPIFFE_ID = "spiffe://example.org/ns/macp/sa/bench"
_ISSUER = "https://issuer.example"
_YEAR = 365 * 86400
_GRANT = """
  [[caller.grant]]
  senders = ["agent-*"]
  scopes = { allowed_modes = ["macp.mode.decision.v1", ""], can_start_sessions = true, max_open_sessions = 4 }
"""
_BODY = json.dumps({
    "sender": "agent-risk",
    # All five, so that the tokens are alike: a grant writes each of them into its token.
    "scopes": {
        "can_start_sessions": True, "can_manage_mode_registry": False, "is_observer": False,
        "allowed_modes": ["macp.mode.decision.v1", ""], "max_open_sessions": 4,
    },
}).encode()  # fmt: skip


class Figures(Struct, frozen=True):
    """What a token costs."""

    cpu_us: float
    ratio: float


class _Case(Struct, frozen=True):
    service: InProcess
    headers: list[tuple[str, str]]
    extensions: dict[str, Any]


def measure(runs: int) -> Mapping[str, Spreads]:
    """Measure each credential in turn, so many times."""
    done: dict[str, list[Run[Figures]]] = {}
    with _cases() as cases:
        for case in cases.values():  # the first tokens are slower
            _cpu_us(case)
        for _ in range(runs):
            found = {name: _cpu_us(case) for name, case in cases.items()}
            for name, cpu_us in found.items():
                figures = Figures(cpu_us, cpu_us / found[ANONYMOUS])
                done.setdefault(name, []).append(Run(figures, failed=0))
    return {name: spreads(each) for name, each in done.items()}


def _cpu_us(case: _Case) -> float:
    headers = [("content-type", "application/json"), ("content-length", str(len(_BODY))), *case.headers]
    begun = time.process_time()
    for _ in range(EXCHANGES):
        answer = case.service.request("POST", "/tokens", headers, [_BODY], case.extensions)
        assert answer.status == 200, answer
    return (time.process_time() - begun) / EXCHANGES * 1e6


@contextmanager
def _cases() -> Iterator[Mapping[str, _Case]]:
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        key, secret = ec.generate_private_key(ec.SECP256R1()), new_secret()
        now = int(time.time())
        claims = {"iss": _ISSUER, "aud": "macp-auth", "sub": "bench", "iat": now, "exp": now + 3600}
        token = jwt.encode(claims, key, algorithm="ES256", headers={"kid": "k"})
        settings = {"MACP_AUTH_SIGNING_ALG": "ES256", "MACP_AUTH_AUDIT_LOG": f"{directory}/audit.log"}
        file = _write_callers(directory, key, digest_of(secret).hex())
        unlimited = stack.enter_context(InProcess(settings))
        granted = stack.enter_context(InProcess({**settings, "MACP_AUTH_CALLERS_FILE": str(file)}))
        certificate = ClientCertificate((_SPIFFE_ID,), (), now + _YEAR)
        yield {
            ANONYMOUS: _Case(unlimited, [], {}),
            CERTIFICATE: _Case(granted, [], {"tls": {"client_certificate": certificate}}),
            TOKEN: _Case(granted, [("authorization", f"Bearer {token}")], {}),
            SECRET: _Case(granted, [("authorization", f"Bearer {secret}")], {}),
        }


def _write_callers(directory: Path, key: ec.EllipticCurvePrivateKey, digest: str) -> Path:
    keys = directory / "jwks.json"
    keys.write_text(json.dumps({"keys": [{**json.loads(ECAlgorithm.to_jwk(key.public_key())), "kid": "k"}]}))
    file = directory / "callers.toml"
    file.touch(mode=0o600)
    file.write_text(f"""
[[issuer]]
name = "bench"
issuer = "{_ISSUER}"
audience = "macp-auth"
jwks_file = "{keys}"

[[caller]]
name = "certificate"
spiffe_id = "{_SPIFFE_ID}"
{_GRANT}
[[caller]]
name = "jwt"
jwt = {{ issuer = "bench", subject = "bench" }}
{_GRANT}
[[caller]]
name = "secret"
secret_sha256 = "{digest}"
{_GRANT}
""")
    return file
