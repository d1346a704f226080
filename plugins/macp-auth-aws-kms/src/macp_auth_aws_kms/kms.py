"""The three calls to KMS, synchronous as boto3 is, and what their answers mean."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from threading import Lock
from typing import Any

from boto3.session import Session  # type: ignore[import-untyped]  # boto3 has no types
from botocore.config import Config  # type: ignore[import-untyped]  # the same
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
"""Updating: a multi-Region key changes its primary Region, and signs meanwhile."""
_ATTEMPTS = 2


class Key(Struct, frozen=True):
    """An enabled key."""

    arn: str
    version: KeyVersion


class KMS:
    """KMS, for as long as a process lives. Every method may be called by several threads at once.

    Args:
        names: key ids, key ARNs or aliases.
        region: None for what boto3 finds.
        endpoint_url: None for what boto3 finds.
        timeout: the most that one call may take, in seconds, its second attempt included.
        connections: kept open at the most.
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
            # Two attempts and the short pause between them fit into the timeout.
            connect_timeout=timeout / 5,
            read_timeout=timeout / 4,
            retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
            max_pool_connections=connections,
            tcp_keepalive=True,
        )
        self._making = Lock()
        self._made: Any = None
        self._public: dict[str, PublicJWK] = {}

    @property
    def _client(self) -> Any:
        with self._making:  # a session of its own: the default one is not for threads
            if self._made is None:
                self._made = Session(region_name=self._region).client(
                    "kms", endpoint_url=self._endpoint_url, config=self._config
                )
        return self._made

    def keys(self) -> list[Key]:
        """Return the enabled keys, in the order of their names; two names of one key count once.

        Raises:
            SignerError: a name can't be read, is no such key, or none is enabled.
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
        if jwk is None:  # a key's public half never changes
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
            SignerError: there is none.
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
        """Close the connections that are idle."""
        if self._made is not None:
            self._made.close()
