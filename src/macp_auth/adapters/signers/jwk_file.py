"""``jwk-file``: private keys from a file that may change while the service runs.

Settings:
    ``MACP_AUTH_SIGNING_KEYS_FILE``  the path of a private JWK Set. Symbolic links are
        followed: Kubernetes updates a mounted Secret by swapping one.
    The schedule is in the file, in standard members: ``iat``, when a key was created; ``nbf``, when it
    starts signing (absent: a publish lead after ``iat``); ``exp``, when it leaves the JWKS.
    ``macp-auth keys rotate`` and ``revoke`` write them.
Privileges: to read the file. It must belong to root or to the service's user; nobody else may write or
    replace it, and only its owner and group may read it.
Fails: at start-up, on a key that could not sign a verifiable token. Later, if the file is missing,
    incomplete or broken, the last good keys stay active, and every reading logs the reason.
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
"""The file's name in messages. Its path is not shown: the variable may contain a key by mistake."""
_MAX_BYTES = 1024 * 1024


class JWKFileSettings(Struct, frozen=True):
    """The settings."""

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
        SignerMisconfigured: users other than its owner can access it, or it is not a valid JWK Set.
    """
    source = str(path)
    with signer_errors(source):
        content = InputFile(path, Custody.KEYS_OF_ANY_OWNER, _MAX_BYTES).read()
    return parse_keys(content.data, source)


def parse_keys(data: bytes, source: str) -> list[JWK]:
    """Return the keys in ``data``, in order.

    Raises:
        SignerMisconfigured: it is not a valid JWK Set.
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
    """Read the file once, so that an invalid one stops the start-up; each worker reads it itself."""
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
    """Signs with the keys of the last successful reading of the file."""

    def __init__(self, path: str) -> None:
        super().__init__({})
        self._file = _keys_file(path)
        self._digest = b""
        self._versions: list[KeyVersion] = []

    async def key_versions(self) -> Sequence[KeyVersion]:
        """Read the file again; a version that is no longer in it can't sign any more."""
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
