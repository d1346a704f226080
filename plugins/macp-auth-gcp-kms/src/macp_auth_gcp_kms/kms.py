"""The three calls to Cloud KMS, synchronous, and the meaning of their answers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from threading import Lock
from typing import Any, TypeVar

import google_crc32c
import grpc
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from google.api_core.exceptions import DataLoss, ServerError
from google.auth.transport.requests import Request
from google.cloud.kms_v1 import CryptoKeyVersion, KeyManagementServiceClient
from google.cloud.kms_v1.services.key_management_service.transports import KeyManagementServiceGrpcTransport
from msgspec import Struct

from macp_auth import (
    Algorithm,
    KeyVersion,
    PublicJWK,
    SignerMisconfigured,
    SignerRefused,
    public_jwk,
    raw_ecdsa_signature,
    thumbprint,
)
from macp_auth_gcp_kms.errors import KEY_DISABLED, translated

T = TypeVar("T")
ALGORITHMS = {
    "EC_SIGN_P256_SHA256": Algorithm.ES256,
    "RSA_SIGN_PKCS1_2048_SHA256": Algorithm.RS256,
    "RSA_SIGN_PKCS1_3072_SHA256": Algorithm.RS256,
    "RSA_SIGN_PKCS1_4096_SHA256": Algorithm.RS256,
}
_ENABLED = CryptoKeyVersion.CryptoKeyVersionState.ENABLED
_PAGE_SIZE = 1000
"""The longest page. Destroyed versions stay in the list."""
_SHARE_OF_ATTEMPT = 0.45
"""Two attempts fit into the timeout."""
_TOKEN_SECONDS = 5.0
"""Time limit of one request for an access token."""
_LOOPBACK = "http://"
_CHANNEL_OPTIONS = [
    # A backend that is back must sign within seconds. gRPC would wait up to 120 s.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # A connection that silently died is closed when a call's data is not acknowledged for this long.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 5000),
]


class Key(Struct, frozen=True):
    """An enabled key version."""

    name: str
    version: KeyVersion


class KMS:
    """Cloud KMS. Thread-safe.

    Args:
        key: the resource name of the CryptoKey.
        endpoint: URL; None for Google's default.
        timeout: time limit of one call in seconds, including its second attempt.
    """

    def __init__(self, key: str, *, endpoint: str | None, timeout: float) -> None:
        self._key = key
        self._endpoint = endpoint
        self._limits: dict[str, Any] = {"timeout": timeout * _SHARE_OF_ATTEMPT, "retry": None}
        self._lock = Lock()
        self._cached_client: Any = None
        self._public: dict[str, PublicJWK] = {}

    @property
    def _client(self) -> Any:
        with self._lock:
            if self._cached_client is None:
                self._cached_client = _connect(self._endpoint)
        return self._cached_client

    def keys(self) -> list[Key]:
        """Return the enabled versions, oldest first.

        Raises:
            SignerError: they can't be read, one is not for signing, or none is enabled.
        """
        with translated("no list of the versions of MACP_AUTH_GCP_KMS_KEY"):
            listed = sorted(_twice(self._list), key=_number)
        enabled = [version for version in listed if version.state == _ENABLED]
        if not enabled:
            raise SignerRefused(
                "no version of MACP_AUTH_GCP_KMS_KEY is enabled; enable or create one", reason=KEY_DISABLED
            )
        return [self._read(version) for version in enabled]

    def _list(self) -> list[CryptoKeyVersion]:
        request = {"parent": self._key, "page_size": _PAGE_SIZE}
        return list(self._client.list_crypto_key_versions(request, **self._limits))

    def _read(self, version: CryptoKeyVersion) -> Key:
        algorithm = getattr(version.algorithm, "name", "an unknown algorithm")  # newer than the client
        what = f"version {_number(version)} of MACP_AUTH_GCP_KMS_KEY"
        if algorithm not in ALGORITHMS:
            raise SignerMisconfigured(
                f"{what} is of {algorithm}; it must be of {', '.join(ALGORITHMS)}: disable it"
            )
        with translated(f"no public key of {what}"):
            if version.name not in self._public:  # a public key never changes
                self._public[version.name] = _twice(partial(self._public_jwk, version.name))
            jwk = self._public[version.name]
            # Until its key material exists, a version can't be published.
            times = (version.create_time, version.generate_time, version.import_time)
            created_at = max(time.timestamp() for time in times if time)
        return Key(
            version.name,
            KeyVersion(
                kid=thumbprint(jwk),
                algorithm=ALGORITHMS[algorithm],
                public_jwk=jwk,
                can_sign=True,
                created_at=created_at,
            ),
        )

    def _public_jwk(self, name: str) -> PublicJWK:
        answer = self._client.get_public_key({"name": name}, **self._limits)
        pem = answer.pem.encode()
        _require(answer.name == name and answer.pem_crc32c == _crc32c(pem))
        return public_jwk(load_pem_public_key(pem))

    def sign(self, key: Key, signing_input: bytes) -> bytes:
        """Return the raw JWS signature.

        Raises:
            SignerError: Cloud KMS did not sign.
        """
        with translated(f"no signature by {key.version.kid}"):
            signature = _twice(partial(self._sign, key.name, hashlib.sha256(signing_input).digest()))
            return signature if key.version.algorithm is Algorithm.RS256 else raw_ecdsa_signature(signature)

    def _sign(self, name: str, digest: bytes) -> bytes:
        request = {"name": name, "digest": {"sha256": digest}, "digest_crc32c": _crc32c(digest)}
        answer = self._client.asymmetric_sign(request, **self._limits)
        signature: bytes = answer.signature
        _require(
            answer.name == name
            and answer.verified_digest_crc32c
            and answer.signature_crc32c == _crc32c(signature)
        )
        return signature

    def close(self) -> None:
        """Close the connection."""
        if self._cached_client is not None:
            self._cached_client.transport.close()


def _connect(endpoint: str | None) -> KeyManagementServiceClient:
    """Return a client with Application Default Credentials; on loopback without TLS or credentials."""
    if endpoint is not None and endpoint.startswith(_LOOPBACK):
        channel = grpc.insecure_channel(endpoint.removeprefix(_LOOPBACK).rstrip("/"), _CHANNEL_OPTIONS)
        return KeyManagementServiceClient(transport=KeyManagementServiceGrpcTransport(channel=channel))
    host = endpoint.removeprefix("https://").rstrip("/") if endpoint else None
    return KeyManagementServiceClient(
        transport=partial(KeyManagementServiceGrpcTransport, channel=_channel),
        client_options={"api_endpoint": host},
    )


def _channel(
    host: str,
    *,
    credentials: Any,
    ssl_credentials: grpc.ChannelCredentials | None,
    options: list[tuple[str, int]],
    **_: Any,
) -> grpc.Channel:
    channel = grpc.secure_channel(
        host, ssl_credentials or grpc.ssl_channel_credentials(), [*options, *_CHANNEL_OPTIONS]
    )
    return grpc.intercept_channel(channel, _Authorization(credentials))


class _Authorization(grpc.UnaryUnaryClientInterceptor):  # type: ignore[misc]  # gRPC has no types
    """Adds an access token to each call.

    gRPC's own way, call credentials, refreshes tokens in threads of its core, logs what a token endpoint
    answered, and reports a failure like a server that is down.
    """

    def __init__(self, credentials: Any) -> None:
        self._credentials = credentials
        self._request = partial(Request(), timeout=_TOKEN_SECONDS)
        self._lock = Lock()

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        headers: dict[str, str] = {}
        with self._lock:  # a token that has expired is renewed by one call, not by all
            self._credentials.before_request(self._request, details.method, "", headers)
        headers.pop("x-goog-api-client", None)  # Google's client adds its own
        return continuation(details._replace(metadata=[*details.metadata, *headers.items()]), request)


def _twice(call: Callable[[], T]) -> T:
    try:
        return call()
    except ServerError:
        return call()


def _require(intact: bool) -> None:  # noqa: FBT001 - an assertion that always holds
    """Fail like a lost answer unless names and checksums agree (Cloud KMS, data integrity guidelines)."""
    if not intact:
        raise DataLoss("checksum")  # type: ignore[no-untyped-call]


def _crc32c(data: bytes) -> int:
    checksum: int = google_crc32c.value(data)
    return checksum


def _number(version: CryptoKeyVersion) -> int:
    return int(version.name.rpartition("/")[2])
