"""The three calls to KMS, synchronous like boto3, and the meaning of their answers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from threading import Lock
from typing import Any

from boto3.session import Session  # type: ignore[import-untyped]  # boto3 has no types
from botocore.config import Config  # type: ignore[import-untyped]
from cryptography.hazmat.primitives.serialization import load_der_public_key
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
from macp_auth_aws_kms.errors import translated

MAX_RAW_BYTES = 4096
"""The longest message that KMS hashes itself (API reference, Sign). A longer one is hashed here."""
_ALGORITHMS = {
    "RSA_2048": Algorithm.RS256,
    "RSA_3072": Algorithm.RS256,
    "RSA_4096": Algorithm.RS256,
    "ECC_NIST_P256": Algorithm.ES256,
}
_SIGNING_ALGORITHMS = {
    Algorithm.RS256: "RSASSA_PKCS1_V1_5_SHA_256",
    Algorithm.ES256: "ECDSA_SHA_256",
}
_USABLE = {"Enabled", "Updating"}
"""Updating: a multi-Region key is changing its primary Region, and still signs."""
_ATTEMPTS = 2


class Key(Struct, frozen=True):
    """An enabled key."""

    arn: str
    version: KeyVersion


class KMS:
    """KMS. Thread-safe.

    Args:
        names: key ids, key ARNs or aliases.
        region: None for boto3's default.
        endpoint_url: None for boto3's default.
        timeout: time limit of one call in seconds, including its second attempt.
        connections: maximum number of open connections.
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        region: str | None,
        endpoint_url: str | None,
        timeout: float,
        connections: int,
    ) -> None:
        self._names = names
        self._region = region
        self._endpoint_url = endpoint_url
        self._config = Config(
            # Two attempts, and the short pause between them, fit into the timeout.
            connect_timeout=timeout / 5,
            read_timeout=timeout / 4,
            retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
            max_pool_connections=connections,
            tcp_keepalive=True,
        )
        self._lock = Lock()
        self._cached_client: Any = None
        self._public: dict[str, PublicJWK] = {}

    @property
    def _client(self) -> Any:
        with self._lock:  # boto3's default session is not thread-safe
            if self._cached_client is None:
                self._cached_client = Session(region_name=self._region).client(
                    "kms", endpoint_url=self._endpoint_url, config=self._config
                )
        return self._cached_client

    def keys(self) -> list[Key]:
        """Return the enabled keys, in the order of their names; a key with two names is returned once.

        Raises:
            SignerError: a name can't be read, is not a signing key, or no key is enabled.
        """
        keys: dict[str, Key] = {}
        for number, name in enumerate(self._names, 1):
            what = f"name {number} in MACP_AUTH_AWS_KMS_KEYS"
            with translated(what):
                metadata = self._client.describe_key(KeyId=name)["KeyMetadata"]
                if metadata["KeyState"] in _USABLE and metadata["Arn"] not in keys:
                    keys[metadata["Arn"]] = self._key(metadata, what)
        if not keys:
            raise SignerRefused(
                "no key in MACP_AUTH_AWS_KMS_KEYS is enabled; enable one, or point an alias at one that is",
                reason="key-disabled",
            )
        return list(keys.values())

    def _key(self, metadata: dict[str, Any], what: str) -> Key:
        arn, spec, usage = metadata["Arn"], metadata["KeySpec"], metadata["KeyUsage"]
        if spec not in _ALGORITHMS or usage != "SIGN_VERIFY":
            raise SignerMisconfigured(
                f"{what} is a key of {spec} for {usage}; it must be for SIGN_VERIFY, "
                f"of {', '.join(_ALGORITHMS)}"
            )
        jwk = self._public.get(arn)
        if jwk is None:  # a public key never changes
            answer = self._client.get_public_key(KeyId=arn)
            jwk = self._public[arn] = public_jwk(load_der_public_key(answer["PublicKey"]))
        version = KeyVersion(
            kid=thumbprint(jwk),
            algorithm=_ALGORITHMS[spec],
            public_jwk=jwk,
            can_sign=True,
            created_at=metadata["CreationDate"].timestamp(),
        )
        return Key(arn, version)

    def sign(self, key: Key, signing_input: bytes) -> bytes:
        """Return the raw JWS signature.

        Raises:
            SignerError: KMS did not sign.
        """
        algorithm = key.version.algorithm
        raw = len(signing_input) <= MAX_RAW_BYTES
        with translated(f"no signature by {key.version.kid}"):
            signature: bytes = self._client.sign(
                KeyId=key.arn,
                Message=signing_input if raw else hashlib.sha256(signing_input).digest(),
                MessageType="RAW" if raw else "DIGEST",
                SigningAlgorithm=_SIGNING_ALGORITHMS[algorithm],
            )["Signature"]
            return signature if algorithm is Algorithm.RS256 else raw_ecdsa_signature(signature)

    def close(self) -> None:
        """Close the idle connections."""
        if self._cached_client is not None:
            self._cached_client.close()
