"""Verifiers of other projects find the keys with nothing but the issuer."""

from __future__ import annotations

import json
import os
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hvac
import jwt
import pytest

from macp_auth.entrypoints.http.discovery import provider_metadata
from tools.support.bounded import HANG_SECONDS
from tools.support.openbao import OpenBao
from tools.support.programs import require_tool
from tools.support.service import Service, free_port
from tools.support.tls import Authority
from tools.support.tls_service import TLSService, tls_settings

pytestmark = pytest.mark.slow  # services of their own

DISCOVERY = "/.well-known/openid-configuration"
AUDIENCE = "macp-runtime"
ALGORITHMS = ["RS256", "ES256"]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module", params=ALGORITHMS)
def issuer(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, authority: Authority
) -> Iterator[TLSService]:
    """A service whose issuer is the address of its listener for the keys."""
    port = free_port()
    env = {
        **tls_settings(authority.issue("server")),
        "MACP_AUTH_ISSUER": f"https://localhost:{port}",
        "MACP_AUTH_JWKS_PORT": str(port),
        "MACP_AUTH_SIGNING_ALG": request.param,
    }
    with TLSService(tmp_path_factory.mktemp("service"), authority.path, env) as service:
        yield service


def post(service: TLSService, **body: Any) -> str:
    request = urllib.request.Request(
        f"{service.url}/tokens", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=HANG_SECONDS, context=service.trusting) as response:
        token: str = json.load(response)["token"]
    return token


def issuer_of(token: str) -> str:
    claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return str(claims["iss"])


def test_pyjwt(issuer: TLSService) -> None:
    """As its documentation verifies the tokens of an OpenID provider."""
    token = post(issuer, sender="agent://risk")
    with urllib.request.urlopen(
        issuer_of(token) + DISCOVERY, timeout=HANG_SECONDS, context=issuer.trusting
    ) as answer:
        found = json.load(answer)
    keys = jwt.PyJWKClient(found["jwks_uri"], ssl_context=issuer.trusting)
    claims = jwt.decode(
        token,
        keys.get_signing_key_from_jwt(token),
        algorithms=found["id_token_signing_alg_values_supported"],
        audience=AUDIENCE,
        issuer=found["issuer"],
    )
    assert claims["sub"] == "agent://risk"


def test_openbao_logs_in_with_a_token(issuer: TLSService, authority: Authority, openbao: OpenBao) -> None:
    """Its jwt method with oidc_discovery_url (go-oidc): a token of another audience is refused."""
    bao = openbao.client()
    token = post(issuer, sender="agent://risk", ttl_seconds=60)
    mount = f"macp-{issuer.port}"
    bao.sys.enable_auth_method("jwt", path=mount)
    bao.write_data(
        f"auth/{mount}/config",
        data={
            "oidc_discovery_url": issuer_of(token),
            "oidc_discovery_ca_pem": authority.path.read_text(),
        },
    )
    for role, audience in (("agents", AUDIENCE), ("others", "another")):
        bao.write_data(
            f"auth/{mount}/role/{role}",
            data={
                "role_type": "jwt",
                "user_claim": "sub",
                "bound_audiences": [audience],
                "bound_subject": "agent://risk",
                "token_policies": ["default"],
            },
        )
    login = bao.write_data(f"auth/{mount}/login", data={"role": "agents", "jwt": token})
    assert login["auth"]["client_token"]
    with pytest.raises(hvac.exceptions.InvalidRequest, match="aud"):
        bao.write_data(f"auth/{mount}/login", data={"role": "others", "jwt": token})


def test_express(issuer: TLSService, authority: Authority, node_modules: Path) -> None:
    """Auth0's middleware for Node's Express."""
    node = require_tool("node", "nodejs")
    token = post(issuer, sender="agent://risk")

    def verify(audience: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [node, "discover.mjs", token, issuer_of(token), audience],
            cwd=node_modules,
            env={**os.environ, "NODE_EXTRA_CA_CERTS": str(authority.path)},
            capture_output=True,
            text=True,
            timeout=HANG_SECONDS,
            check=False,
        )

    verified = verify(AUDIENCE)
    assert verified.returncode == 0, verified.stderr
    assert json.loads(verified.stdout)["payload"]["sub"] == "agent://risk"
    assert "aud" in verify("another").stderr


def test_the_document(issuer: TLSService) -> None:
    """It has the five members that Kubernetes serves, on both listeners, and can be cached."""
    url = issuer.url.replace(str(issuer.port), "{}").format
    keys_port = issuer_of(post(issuer, sender="a")).rpartition(":")[2]
    found = []
    for port in (issuer.port, keys_port):
        with urllib.request.urlopen(
            url(port) + DISCOVERY, timeout=HANG_SECONDS, context=issuer.trusting
        ) as answer:
            assert answer.headers["cache-control"] == "public, max-age=60"
            assert answer.headers["content-type"] == "application/json"
            found.append(json.load(answer))
    assert (
        found[0]
        == found[1]
        == {
            "issuer": f"https://localhost:{keys_port}",
            "jwks_uri": f"https://localhost:{keys_port}/.well-known/jwks.json",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ALGORITHMS,
        }
    )


@pytest.mark.parametrize(
    "name",
    [
        "macp-auth-service",
        "http://auth.example.com",
        "https://",
        "https://auth.example.com?tenant=1",
        "https://auth.example.com#",
        "https://[auth",
        "https:///keys",
        "https://auth.example.com:99999",
        "https://user:password@auth.example.com",
        "https://auth.example.com/two words",
        "https://auth.example.com\\keys",
        "https://\u00fcber.example.com",
    ],
)
def test_an_issuer_without_metadata(start_service: Callable[..., Service], name: str) -> None:
    service = start_service({"MACP_AUTH_ISSUER": name})
    with pytest.raises(urllib.error.HTTPError, match="404") as refusal:
        service.get(DISCOVERY)
    refusal.value.close()


@pytest.mark.parametrize(
    "name", ["HTTPS://Auth.Example.com:8443", "https://[2001:db8::1]", "https://example.com/~a/%2f;b=c@d"]
)
def test_an_unusual_issuer_has_metadata(name: str) -> None:
    """As it is: verifiers compare it exactly."""
    metadata = provider_metadata(name)
    assert metadata is not None
    assert (metadata.issuer, metadata.jwks_uri) == (name, f"{name}/.well-known/jwks.json")


def test_an_issuer_with_a_path(start_service: Callable[..., Service]) -> None:
    """A slash at the end is not doubled (OpenID Connect Discovery 1.0, section 4)."""
    service = start_service({"MACP_AUTH_ISSUER": "https://example.com/macp/"})
    assert service.get(DISCOVERY)[1]["jwks_uri"] == "https://example.com/macp/.well-known/jwks.json"
