"""A Google Cloud of our own: an account, and Cloud KMS as a gRPC server of the published messages."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import math
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any, Self

import google_crc32c
import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from google.cloud.kms_v1 import CryptoKeyVersion, PublicKey
from google.cloud.kms_v1.types import service

from macp_auth import Signer, SignerError
from macp_auth_gcp_kms import GCPKMSSettings, open_signer
from macp_auth_gcp_kms.kms import ALGORITHMS as SIGNING

SERVICE = "google.cloud.kms.v1.KeyManagementService"
KEY = "projects/example/locations/europe-west1/keyRings/macp/cryptoKeys/tokens"
State: Any = CryptoKeyVersion.CryptoKeyVersionState
MESSAGES: dict[str, tuple[Any, Any]] = {
    "ListCryptoKeyVersions": (service.ListCryptoKeyVersionsRequest, service.ListCryptoKeyVersionsResponse),
    "GetPublicKey": (service.GetPublicKeyRequest, PublicKey),
    "AsymmetricSign": (service.AsymmetricSignRequest, service.AsymmetricSignResponse),
}
CURVES: dict[str, Any] = {
    "EC_SIGN_P256": ec.SECP256R1,
    "EC_SIGN_P384": ec.SECP384R1,
    "EC_SIGN_SECP256K1": ec.SECP256K1,
}


class Refused(Exception):
    """An answer with this status."""

    def __init__(self, status: grpc.StatusCode, text: str = "") -> None:
        self.status, self.text = status, text


def private_key(algorithm: str) -> Any:
    if algorithm.startswith("EC_"):
        return ec.generate_private_key(ec.SECP256R1())
    return rsa.generate_private_key(65537, int(algorithm.split("_")[3]))


def _started_threads(number: int) -> ThreadPoolExecutor:
    """Return an executor that starts no thread later: the kit looks for threads that a signer left."""
    pool, all_there = ThreadPoolExecutor(number), threading.Barrier(number)
    for _ in range(number):
        pool.submit(all_there.wait)
    return pool


def _serialized(kind: Any, answer: Any) -> bytes:
    octets: bytes = answer if isinstance(answer, bytes) else kind.serialize(answer)
    return octets


class FakeKMS:
    """One CryptoKey, and the three methods as the API reference has them. Use as a context manager.

    What it holds outlives its stop. ``replace`` puts another answer in the place of a method's.
    """

    key = KEY
    max_page = 1000

    def __init__(self, tls: grpc.ServerCredentials | None = None) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self._port = probe.getsockname()[1]
        self._tls = tls
        self.url = f"https://localhost:{self._port}" if tls else f"http://127.0.0.1:{self._port}"
        self.versions: dict[str, CryptoKeyVersion] = {}
        self._private: dict[str, Any] = {}
        self._replaced: dict[str, Callable[[Any], Any]] = {}
        self.calls: list[tuple[str, Any]] = []
        self.authorizations: set[str] = set()
        self.go_on = threading.Event()
        self.go_on.set()
        self._server: grpc.Server | None = None

    def __enter__(self) -> Self:
        self._threads = _started_threads(80)
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.go_on.set()
        self.stop()
        self._threads.shutdown()

    def start(self) -> None:
        if self._server is None:
            self._server = grpc.server(self._threads)
            handlers = {
                name: grpc.unary_unary_rpc_method_handler(
                    partial(self._answer, name), request.deserialize, partial(_serialized, answer)
                )
                for name, (request, answer) in MESSAGES.items()
            }
            generic = grpc.method_handlers_generic_handler(
                "google.cloud.kms.v1.KeyManagementService", handlers
            )
            self._server.add_generic_rpc_handlers((generic,))
            if self._tls is None:
                self._server.add_insecure_port(f"127.0.0.1:{self._port}")
            else:
                self._server.add_secure_port(f"127.0.0.1:{self._port}", self._tls)
            self._server.start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop(None).wait(10)
            self._server = None

    def create(
        self, algorithm: str = "EC_SIGN_P256_SHA256", state: int = State.ENABLED, **times: float
    ) -> str:
        """Add a version, and return its name."""
        name = f"{KEY}/cryptoKeyVersions/{len(self.versions) + 1}"
        moments = {"create_time": time.time(), "generate_time": time.time(), **times}
        self._private[name] = private_key(algorithm) if algorithm in SIGNING else None
        self.versions[name] = CryptoKeyVersion(
            name=name,
            state=state,
            algorithm=getattr(CryptoKeyVersion.CryptoKeyVersionAlgorithm, algorithm),
            **{field: {"seconds": int(seconds)} for field, seconds in moments.items()},
        )
        return name

    def garble(self, method: str) -> None:
        self.replace(method, lambda _: b"\xff<html>")

    def behave(self) -> None:
        self._replaced.clear()
        self.go_on.set()
        self.start()

    def disable(self, name: str) -> None:
        self.versions[name].state = State.DISABLED

    def asked(self, method: str) -> list[Any]:
        return [request for asked, request in self.calls if asked == method]

    def replace(self, method: str, answer: Callable[[Any], Any]) -> None:
        self._replaced[method] = answer

    def refuse(
        self, method: str, status: grpc.StatusCode, text: str = "", *, times: float = math.inf
    ) -> None:
        before = len(self.asked(method))

        def answer(request: Any) -> Any:
            if len(self.asked(method)) <= before + times:
                raise Refused(status, text)
            return self.answer(method, request)

        self.replace(method, answer)

    def answer(self, method: str, request: Any) -> Any:
        """Answer as Cloud KMS does."""
        answers = {
            "ListCryptoKeyVersions": self._list,
            "GetPublicKey": self._get_public_key,
            "AsymmetricSign": self._sign,
        }
        return answers[method](request)

    def _answer(self, method: str, request: Any, context: grpc.ServicerContext) -> Any:
        self.calls.append((method, request))
        self.authorizations |= {
            str(value) for key, value in context.invocation_metadata() if key == "authorization"
        }
        self.go_on.wait(60)
        try:
            return self._replaced.get(method, partial(self.answer, method))(request)
        except Refused as refused:
            return context.abort(refused.status, refused.text)

    def _list(self, request: Any) -> Any:
        if request.parent != KEY:
            raise Refused(grpc.StatusCode.NOT_FOUND)
        begin = int(request.page_token or 0)
        end = begin + min(request.page_size, self.max_page)
        # Not in the order of their numbers: the API reference promises none.
        versions = list(self.versions.values())[::-1]
        return service.ListCryptoKeyVersionsResponse(
            crypto_key_versions=versions[begin:end],
            next_page_token=str(end) if end < len(versions) else "",
            total_size=len(versions),
        )

    def _get_public_key(self, request: Any) -> Any:
        private = self._enabled(request.name)
        pem = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return PublicKey(
            name=request.name,
            pem=pem.decode(),
            pem_crc32c=google_crc32c.value(pem),
            algorithm=self.versions[request.name].algorithm,
        )

    def _sign(self, request: Any) -> Any:
        private, digest = self._enabled(request.name), request.digest.sha256
        if request.digest_crc32c != google_crc32c.value(digest):
            raise Refused(grpc.StatusCode.INVALID_ARGUMENT)
        hashed = Prehashed(hashes.SHA256())
        rsa_key = isinstance(private, rsa.RSAPrivateKey)
        form = (padding.PKCS1v15(), hashed) if rsa_key else (ec.ECDSA(hashed),)
        signature = private.sign(digest, *form)
        return service.AsymmetricSignResponse(
            name=request.name,
            signature=signature,
            signature_crc32c=google_crc32c.value(signature),
            verified_digest_crc32c=True,
        )

    def _enabled(self, name: str) -> Any:
        if name not in self.versions:
            raise Refused(grpc.StatusCode.NOT_FOUND)
        if self.versions[name].state != State.ENABLED:
            raise Refused(grpc.StatusCode.FAILED_PRECONDITION)
        return self._private[name]


class Google:
    """A service account, and the certificate of Google's servers; the files are what ADC and gRPC read."""

    def __init__(self, directory: Path) -> None:
        self._server_key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
        now = dt.datetime.now(dt.UTC)
        certificate = (
            x509.CertificateBuilder(name, name, self._server_key.public_key(), x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self._server_key, hashes.SHA256())
        )
        self._certificate = certificate.public_bytes(Encoding.PEM)
        account = rsa.generate_private_key(65537, 2048)
        self.account_key = account.public_key()
        self.secret = _pem(account).decode()
        self.roots, self.credentials = directory / "roots.pem", directory / "account.json"
        self.roots.write_bytes(self._certificate)
        self.credentials.write_text(
            json.dumps(
                {
                    "type": "service_account",
                    "client_email": "macp-auth@example.iam.gserviceaccount.com",
                    "private_key": self.secret,
                    "private_key_id": "1",
                    "token_uri": "https://oauth2.googleapis.com/token",
                }
            )
        )

    def kms(self) -> FakeKMS:
        """A Cloud KMS with TLS."""
        return FakeKMS(grpc.ssl_server_credentials([(_pem(self._server_key), self._certificate)]))


def _pem(key: Any) -> bytes:
    text: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return text


@pytest.fixture(scope="session")
def google(tmp_path_factory: pytest.TempPathFactory) -> Google:
    return Google(tmp_path_factory.mktemp("google"))


@pytest.fixture(autouse=True)
def environment(google: Google, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the developer's own Google Cloud can be reached by accident."""
    for name in [name for name in os.environ if name.startswith(("GOOGLE_", "GCE_", "GRPC_", "CLOUDSDK_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(google.credentials))
    monkeypatch.setenv("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", str(google.roots))
    monkeypatch.setenv("CLOUDSDK_CONFIG", "/nonexistent")
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")


@pytest.fixture
def kms() -> Iterator[FakeKMS]:
    with FakeKMS() as kms:
        yield kms


@pytest.fixture
def open_kms(kms: FakeKMS) -> Callable[..., Signer]:
    """Opens a signer as a worker does, with long timeouts by default."""

    def open_(**settings: Any) -> Signer:
        return open_signer(
            GCPKMSSettings(**{"key": KEY, "endpoint": kms.url, "timeout_seconds": 20.0, **settings})
        )

    return open_


@pytest.fixture
def read_and_sign() -> Callable[[Signer], bytes]:
    """Reads the keys, signs with the first, and closes."""

    def call(signer: Signer) -> bytes:
        async def run() -> bytes:
            async with aclosing(signer):
                version, *_ = await signer.key_versions()
                return await signer.sign(version.kid, b"x")

        return asyncio.run(run())

    return call


@pytest.fixture
def failure(read_and_sign: Callable[[Signer], bytes]) -> Callable[[Signer], SignerError]:
    """The error of that."""

    def call(signer: Signer) -> SignerError:
        with pytest.raises(SignerError) as error:
            read_and_sign(signer)
        return error.value

    return call
