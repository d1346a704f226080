"""The requests to the transit engine, and the meaning of its answers.

No verifier accepts tokens that are signed with Transit's defaults (PSS, DER, the latest version), so every
call sets these parameters.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import hvac
import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from msgspec import Struct, structs

from macp_auth.adapters import jose
from macp_auth.adapters.signers.vault_transit.transport import call
from macp_auth.domain.errors import (
    SignerError,
    SignerMisconfigured,
    SignerRefused,
    SignerUnavailable,
    UnknownKid,
)
from macp_auth.domain.keys import Algorithm, KeyVersion, thumbprint

Outcome = bytes | Exception
"""A signature, or an error."""
ALGORITHMS = {
    "rsa-2048": Algorithm.RS256,
    "rsa-3072": Algorithm.RS256,
    "rsa-4096": Algorithm.RS256,
    "ecdsa-p256": Algorithm.ES256,
}
"""The key types that the MACP runtime can verify, and their algorithms."""

_KID_THUMBPRINT_CHARS = 16  # 96 bits; a collision is practically impossible
_NOT_THIS_VERSION = re.compile(
    r"no such key version|version for signing is|minimum|disallowed by policy|does not contain a private part"
)
_PROBE = hashlib.sha256(b"macp-auth").digest()
"""Signed to test whether a version can sign. Its input has no dot, so it is never that of a token."""


class _Kind(Struct):
    type: str


class _Version(Struct):
    public_key: str
    creation_time: str


class _Key(Struct):
    keys: Mapping[str, _Version]
    min_encryption_version: int = 0
    imported_key: bool = False


class _Result(Struct):
    signature: str = ""
    error: str = ""


class TransitKey(Struct, frozen=True):
    """A transit key, as Vault returned it."""

    versions: Mapping[str, int]
    """Transit's version numbers by kid."""
    published: Sequence[KeyVersion]
    public_only: frozenset[str] = frozenset()
    """The kids of the versions that were imported without their private keys."""


class Transit:
    """One key of one transit engine."""

    def __init__(self, mount: str, key: str) -> None:
        self._mount = mount
        self._key = key
        self._has_private_key: dict[str, bool] = {}
        """Whether a version of an imported key can sign, by kid, as tests have shown."""

    async def read(self, client: hvac.Client) -> TransitKey:
        """Return the key's versions, oldest first.

        Raises:
            SignerRefused: there is no such key, or no permission to read it.
            SignerMisconfigured: it is of a type that can't sign what the runtime verifies.
            SignerUnavailable: no answer.
        """
        try:
            answer = await call(client.secrets.transit.read_key, self._key, mount_point=self._mount)
        except SignerRefused as error:
            raise self._refusal(error) from None
        key, imported = _read(answer, self._key)
        return await self._without_public_only(client, key) if imported else key

    async def _without_public_only(self, client: hvac.Client, key: TransitKey) -> TransitKey:
        """Return ``key`` with the versions marked that lack a private key, which Vault does not report.

        Only an imported key can have such versions. A private key can be imported later, but not removed.
        """
        for version in key.published:
            if version.can_sign and not self._has_private_key.get(version.kid):
                try:
                    [outcome] = await self.sign(client, key.versions[version.kid], [_PROBE])
                except UnknownKid as error:
                    outcome = error
                except SignerError:
                    break  # the key is usable nevertheless; the next read tries again
                if isinstance(outcome, bytes | UnknownKid):
                    self._has_private_key[version.kid] = isinstance(outcome, bytes)
        public_only = {kid for kid in key.versions if self._has_private_key.get(kid) is False}
        published = [
            structs.replace(version, can_sign=False) if version.kid in public_only else version
            for version in key.published
        ]
        return structs.replace(key, published=published, public_only=frozenset(public_only))

    async def sign(self, client: hvac.Client, version: int, digests: Sequence[bytes]) -> Sequence[Outcome]:
        """Return a signature by ``version`` for each SHA-256 digest, or an error.

        Raises:
            SignerRefused: there is no such key, or no permission to sign with it.
            SignerUnavailable: no answer.
        """
        try:
            answer = await call(
                client.secrets.transit.sign_data,
                self._key,
                key_version=version,
                hash_algorithm="sha2-256",
                prehashed=True,
                signature_algorithm="pkcs1v15",
                marshaling_algorithm="jws",
                mount_point=self._mount,
                batch_input=[{"input": base64.b64encode(digest).decode()} for digest in digests],
            )
        except SignerRefused as error:
            raise self._refusal(error, version) from None
        try:
            results = msgspec.convert(answer["data"]["batch_results"], list[_Result])
            if len(results) != len(digests):
                raise ValueError(f"{len(results)} results for {len(digests)} digests")
        except (TypeError, KeyError, ValueError) as error:
            raise SignerUnavailable(
                f"Vault's signatures can't be read: {error!r}", reason="bad-answer"
            ) from None
        return [_outcome(result, version) for result in results]

    def _refusal(self, error: SignerRefused, version: int | None = None) -> SignerError:
        """Return the error for a missing key or version, or ``error``."""
        if error.reason == "not-found" or "key not found" in str(error):
            return SignerRefused(
                f"there is no transit key {self._key!r} at {self._mount!r}; create one with: "
                f"vault write -f {self._mount}/keys/{self._key} type=ecdsa-p256",
                reason="key-missing",
            )
        if version is not None and _NOT_THIS_VERSION.search(str(error)):
            return UnknownKid(f"v{version}")
        return error


def _read(answer: Any, name: str) -> tuple[TransitKey, bool]:
    """Return the key, and whether it was imported."""
    try:
        kind = msgspec.convert(answer["data"], _Kind).type
        algorithm = ALGORITHMS.get(kind)
        if algorithm is None:
            raise SignerMisconfigured(
                f"the transit key {name!r} is of type {kind}, which the runtime can't verify; "
                f"use one of {', '.join(ALGORITHMS)}"
            )
        key = msgspec.convert(answer["data"], _Key)
        published = {
            int(number): _key_version(name, int(number), version, algorithm, key.min_encryption_version)
            for number, version in key.keys.items()
        }
    except (TypeError, KeyError, ValueError, UnsupportedAlgorithm) as error:
        raise SignerUnavailable(f"Vault's key can't be read: {error!r}", reason="bad-answer") from None
    numbers = sorted(published)
    found = TransitKey(
        versions={published[number].kid: number for number in numbers},
        published=[published[number] for number in numbers],
    )
    return found, key.imported_key


def _key_version(
    name: str, number: int, version: _Version, algorithm: Algorithm, first_to_sign: int
) -> KeyVersion:
    key = load_pem_public_key(version.public_key.encode())
    if not isinstance(key, jose.PublicKey):
        raise TypeError(f"a {type(key).__name__} for a key of {algorithm}")
    public = jose.public_jwk(key)
    return KeyVersion(
        kid=f"{name}-v{number}-{thumbprint(public)[:_KID_THUMBPRINT_CHARS]}",
        algorithm=algorithm,
        public_jwk=public,
        can_sign=number >= first_to_sign,
        created_at=datetime.fromisoformat(version.creation_time).timestamp(),
    )


def _outcome(result: _Result, version: int) -> Outcome:
    if result.error:
        if _NOT_THIS_VERSION.search(result.error):
            return UnknownKid(f"v{version}")
        return SignerRefused(f"Vault: {result.error}")
    prefix = f"vault:v{version}:"
    if not result.signature.startswith(prefix):
        return SignerUnavailable(f"Vault signed with another version than {version}", reason="wrong-version")
    try:
        return base64.urlsafe_b64decode(result.signature.removeprefix(prefix) + "==")
    except ValueError:
        return SignerUnavailable("Vault's signature is not base64", reason="bad-answer")
