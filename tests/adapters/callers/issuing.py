"""Issuers of JWTs, as attackers and honest ones."""

from __future__ import annotations

import asyncio
import functools
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from joserfc import jwk

from macp_auth.adapters import jose
from macp_auth.adapters.callers.file import Issuer
from macp_auth.adapters.callers.issuer_keys import IssuerKeys
from macp_auth.domain.encoding import base64url
from tests.support import jwks

NAME, ISSUER, AUDIENCE = "cluster", "https://kubernetes.default.svc.cluster.local", "macp-auth"
SUBJECT = "system:serviceaccount:macp:playground"


def private(kid: str | None, alg: str = "ES256", copy: int = 0) -> dict[str, Any]:
    """A private JWK."""
    key = jwks.rsa(copy=copy) if alg == "RS256" else jwks.ec(copy=copy)
    return {**key, "alg": alg} if kid is None else {**key, "alg": alg, "kid": kid}


def document(*keys: Mapping[str, Any], **members: Any) -> bytes:
    """A JWK Set of the public halves."""
    return json.dumps(
        {"keys": [{**jwks.public(dict(key)), "use": "sig"} for key in keys], **members}
    ).encode()


def claims(**changed: Any) -> dict[str, Any]:
    """The claims of a Kubernetes service account, valid now. A claim that is ... is left out."""
    now = int(time.time())
    pod = {"name": "playground-7f9c", "uid": "5ad4-11"}
    every = {
        "aud": [AUDIENCE],
        "exp": now + 600,
        "iat": now,
        "iss": ISSUER,
        "jti": "c8b2d1c4",
        "kubernetes.io": {"namespace": "macp", "pod": pod, "serviceaccount": {"name": "playground"}},
        "nbf": now,
        "sub": SUBJECT,
        **changed,
    }
    return {name: value for name, value in every.items() if value is not ...}


def token(key: Mapping[str, Any], header: Any = None, body: Any = None) -> str:
    """A token with any header and claims: objects, or text as it is."""
    if header is None:
        header = {name: key[name] for name in ("alg", "kid") if name in key}
    signing_input = f"{_segment(header)}.{_segment(claims() if body is None else body)}"
    signature = jose.sign(_signing_key(json.dumps(key)), signing_input.encode())
    return f"{signing_input}.{base64url(signature)}"


@functools.cache
def _signing_key(text: str) -> jose.PrivateKey:
    key = jose.load(json.loads(text))
    assert isinstance(key, jose.PrivateKey)
    return key


def _segment(content: Any) -> str:
    if isinstance(content, str):
        content = content.encode("utf-8", "surrogatepass")
    return base64url(content if isinstance(content, bytes) else json.dumps(content).encode())


def issuer_of_file(path: Path, name: str = NAME, **changed: Any) -> Issuer:
    return Issuer(**{"name": name, "issuer": ISSUER, "audience": AUDIENCE, "jwks_file": str(path), **changed})


def keys_of(path: Path, *keys: Mapping[str, Any], name: str = NAME, **changed: Any) -> IssuerKeys:
    """The keys of an issuer, read from a file that holds them."""
    path.write_bytes(document(*keys))
    issuer_keys = IssuerKeys(issuer_of_file(path, name, **changed))
    asyncio.run(issuer_keys.refresh())
    assert not issuer_keys.failing
    return issuer_keys


def pem(key: Mapping[str, Any]) -> bytes:
    """The public half, in PEM."""
    public = jwk.import_key(jwks.public(dict(key)))
    assert isinstance(public, jwk.RSAKey | jwk.ECKey)
    return public.as_pem(private=False)
