"""OpenBao's ways to log in, ready for a service: AppRole, JWT, certificates, and Kubernetes with none.

Each ``enable_`` may be called again, for another role. ``role`` takes what a role of that method
takes, as in ``token_policies=["signer"], token_ttl="5s", token_max_ttl="20s"``.
"""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Any, Self

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from msgspec import Struct

from tests.support.fake_server import FakeServer, Reply, Request
from tools.support.openbao import OpenBao
from tools.support.tls import Certificates


class AppRole(Struct, frozen=True):
    role_id: str
    secret_id: str
    role: str


def enable_approle(bao: OpenBao, *, mount: str = "approle", **role: Any) -> AppRole:
    """Make a role, and one secret ID for it."""
    _enable(bao, "approle", mount)
    name = _new_name()
    path = f"auth/{mount}/role/{name}"
    client = bao.client()
    client.write_data(path, data=role)
    role_id = client.read(f"{path}/role-id")["data"]["role_id"]
    secret_id = client.write_data(f"{path}/secret-id", data={})["data"]["secret_id"]
    return AppRole(role_id, secret_id, name)


class JWTIssuer:
    """Issues JWTs with an EC key of its own."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())

    @property
    def public_pem(self) -> str:
        return (
            self._key.public_key()
            .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
            .decode()
        )

    def issue(self, *, lifetime: float = 600, **claims: Any) -> str:
        """A JWT for the subject ``macp-auth`` and the audience ``vault``, unless ``claims`` say otherwise."""
        now = int(time.time())
        defaults = {"sub": "macp-auth", "aud": "vault", "iat": now, "exp": int(now + lifetime)}
        return jwt.encode({**defaults, **claims}, self._key, algorithm="ES256")


class JWTRole(Struct, frozen=True):
    role: str
    issuer: JWTIssuer


def enable_jwt(bao: OpenBao, *, mount: str = "jwt", **role: Any) -> JWTRole:
    """Make a role for JWTs of a new issuer; the former issuer of this mount is not known any more."""
    _enable(bao, "jwt", mount)
    name, issuer = _new_name(), JWTIssuer()
    client = bao.client()
    client.write_data(f"auth/{mount}/config", data={"jwt_validation_pubkeys": [issuer.public_pem]})
    settings = {"role_type": "jwt", "user_claim": "sub", "bound_audiences": ["vault"], **role}
    client.write_data(f"auth/{mount}/role/{name}", data=settings)
    return JWTRole(name, issuer)


class FakeKubernetes:
    """The one part of Kubernetes' API that OpenBao asks: whose token is this? Use as a context manager.

    A fake, as there is no cluster: it knows the tokens that it gave out.
    """

    def __init__(self, certificates: Certificates) -> None:
        self._issuer = JWTIssuer()
        self._reviews: dict[str, dict[str, Any]] = {}
        self.server = FakeServer(self._review, certificates)
        self.ca_pem = certificates.ca.read_text()

    def __enter__(self) -> Self:
        self.server.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.__exit__()

    def token(self, namespace: str = "default", account: str = "macp-auth") -> str:
        """A token of that service account, as a pod finds it in its file."""
        uid = str(uuid.uuid4())
        subject = f"system:serviceaccount:{namespace}:{account}"
        claims: dict[str, Any] = {
            "sub": subject,
            "aud": ["vault"],
            "kubernetes.io": {"namespace": namespace, "serviceaccount": {"name": account, "uid": uid}},
        }
        token = self._issuer.issue(**claims)
        self._reviews[token] = {
            "authenticated": True,
            "audiences": ["vault"],
            "user": {"username": subject, "uid": uid},
        }
        return token

    def forget(self, token: str) -> None:
        """As when the service account is deleted."""
        del self._reviews[token]

    def _review(self, request: Request) -> Reply:
        if request.path != "/apis/authentication.k8s.io/v1/tokenreviews":
            return Reply(404, {"kind": "Status", "code": 404})
        review = request.json
        status = self._reviews.get(review["spec"]["token"], {"authenticated": False})
        return Reply(201, {**review, "status": status})


def enable_kubernetes(
    bao: OpenBao, cluster: FakeKubernetes, *, mount: str = "kubernetes", **role: Any
) -> str:
    """Make a role for the service account ``macp-auth`` in ``default``; return its name."""
    _enable(bao, "kubernetes", mount)
    name = _new_name()
    client = bao.client()
    config = {
        "kubernetes_host": cluster.server.url,
        "kubernetes_ca_cert": cluster.ca_pem,
        "disable_local_ca_jwt": True,
        "token_reviewer_jwt": cluster.token(account="reviewer"),
    }
    client.write_data(f"auth/{mount}/config", data=config)
    accounts = {
        "bound_service_account_names": ["macp-auth"],
        "bound_service_account_namespaces": ["default"],
    }
    client.write_data(f"auth/{mount}/role/{name}", data={**accounts, **role})
    return name


def enable_cert(bao: OpenBao, authority: Path, common_name: str, *, mount: str = "cert", **role: Any) -> str:
    """Make a role for client certificates of that authority and name; return its name."""
    _enable(bao, "cert", mount)
    name = _new_name()
    settings = {"certificate": authority.read_text(), "allowed_common_names": [common_name], **role}
    bao.client().write_data(f"auth/{mount}/certs/{name}", data=settings)
    return name


def _enable(bao: OpenBao, method: str, mount: str) -> None:
    client = bao.client()
    if f"{mount}/" not in client.sys.list_auth_methods()["data"]:
        client.sys.enable_auth_method(method, path=mount)


def _new_name() -> str:
    return f"role-{uuid.uuid4().hex[:8]}"
