"""``jwk-file``: private keys from a file that may change while the service runs.

Settings:
    ``MACP_AUTH_SIGNING_KEYS_FILE``  the path of a private JWK Set. It may be, or lie behind, a
        symbolic link: Kubernetes updates a mounted Secret by swapping one.
The schedule stands in the file, in standard members: ``iat``, when a key was made; ``nbf``, when it
    starts signing (absent: a publish lead after ``iat``); ``exp``, when it leaves the JWKS.
    ``macp-auth keys rotate`` and ``revoke`` write them.
Privileges: to read the file. It must belong to root or to the service's user; nobody else may write or
    replace it, and only its owner and group may read it.
Fails: at start-up, on a file that could not mint a token that verifies. Later, a missing, half-written
    or broken file keeps the last good keys in force, and every reading logs why.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from macp_auth.adapters.hookspecs import SignerPlugin, hookimpl
from macp_auth.adapters.input_file import Custody, InputFile, signer_errors
from macp_auth.adapters.signers.jwk_document import JWK, read_jwks
from macp_auth.adapters.signers.local import InMemorySigner, key_version
from macp_auth.domain.errors import SignerMisconfigured, SignerUnavailable
from macp_auth.domain.keys import KeyVersion

KEYS_FILE = "MACP_AUTH_SIGNING_KEYS_FILE"
"""What the service's messages call the file. Its path is not shown: a key may be in the wrong variable."""
_MAX_BYTES = 1024 * 1024


class JWKFileSettings(Struct, frozen=True):
    """What may be set."""

    signing_keys_file: Annotated[
        str,
        Meta(
            min_length=1,
            description="The private JWK Set, read again at every refresh.",
            extra={"expects": "the path of a JWK Set"},
        ),
    ]


def read_keys_file(path: Path) -> list[JWK]:
    """Return the keys of the file, in its order, for a command: its owner may be another user.

    Raises:
        SignerUnavailable: it can't be read.
        SignerMisconfigured: others than its owner can get at it, or it is no usable JWK Set.
    """
    source = str(path)
    with signer_errors(source):
        content = InputFile(path, Custody.KEYS_OF_ANY_OWNER, _MAX_BYTES).read()
    return parse_keys(content.data, source)


def parse_keys(data: bytes, source: str) -> list[JWK]:
    """Return the keys of a file that holds ``data``, in its order.

    Raises:
        SignerMisconfigured: it is no usable JWK Set.
    """
    return read_jwks(_text(data, source), source)


def _text(data: bytes, source: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise SignerMisconfigured(f"{source} is not UTF-8") from None


def _keys_file(path: str) -> InputFile:
    return InputFile(Path(path), Custody.KEYS, _MAX_BYTES)


def prepare(settings: JWKFileSettings) -> str:
    """Read the file once, so that a bad one stops the start-up; each worker reads it for itself."""
    try:
        with signer_errors(KEYS_FILE):
            content = _keys_file(settings.signing_keys_file).read()
    except SignerUnavailable as error:
        raise SignerMisconfigured(str(error)) from None
    parse_keys(content.data, KEYS_FILE)
    return settings.signing_keys_file


def version_of(jwk: JWK) -> KeyVersion:
    """Return the key version that ``jwk`` describes."""
    return msgspec.structs.replace(
        key_version(jwk.kid, jwk.public, can_sign=jwk.can_sign),
        created_at=jwk.issued_at,
        not_before=jwk.not_before,
        not_after=jwk.expires,
    )


class JWKFileSigner(InMemorySigner):
    """Signs with the keys that were in the file when it was last read and good."""

    def __init__(self, path: str) -> None:
        super().__init__({})
        self._file = _keys_file(path)
        self._digest = b""
        self._versions: list[KeyVersion] = []

    async def key_versions(self) -> Sequence[KeyVersion]:
        """Read the file anew; a version that is no longer in it can't sign from here on."""
        with signer_errors(KEYS_FILE):
            text = _text((await self._file.read_async()).data, KEYS_FILE)
        # To prove an RSA key takes 30 ms in which no other thread runs, so only a changed file is read on.
        if (digest := hashlib.sha256(text.encode()).digest()) != self._digest:
            keys = await asyncio.to_thread(read_jwks, text, KEYS_FILE)
            if self._private is not None:
                self._private = {key.kid: key.private for key in keys if key.private is not None}
                self._versions, self._digest = [version_of(key) for key in keys], digest
        if self._private is None:
            raise SignerUnavailable("the signer is closed")
        return self._versions


@hookimpl
def macp_auth_signer() -> SignerPlugin:
    """Register the signer."""
    return SignerPlugin(
        name="jwk-file",
        api_version=1,
        settings=JWKFileSettings,
        settings_prefix="MACP_AUTH_",
        prepare=prepare,
        open=JWKFileSigner,
    )
