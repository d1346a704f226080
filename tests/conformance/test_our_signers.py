"""The kit on every signer that is built in.

Every signer in the registry needs a set-up here, or ``test_every_built_in_has_a_set_up`` fails.
"""

from __future__ import annotations

import asyncio
import functools
import json
import time
from base64 import urlsafe_b64decode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from macp_auth import Algorithm
from macp_auth.adapters import jose
from macp_auth.adapters.plugins import BUILT_IN, load_signer_plugin
from macp_auth.adapters.signers.jwk_file_editor import new_jwk
from macp_auth.domain.keys import thumbprint
from macp_auth.testing import SignerSubject
from macp_auth.testing.suite import SignerConformance
from tests.docs.pages import ROOT
from tests.support.jwks import public
from tests.support.stalls import assert_loop_is_free

JWK = dict[str, Any]


class JWKFile(SignerSubject):
    """The backend is the file."""

    def __init__(self, path: Path, algorithm: Algorithm) -> None:
        super().__init__(load_signer_plugin("jwk-file"), {"MACP_AUTH_SIGNING_KEYS_FILE": str(path)})
        self._path = path
        self._algorithm = algorithm
        self._write([key(algorithm, 1), key(algorithm, 2), public_only(algorithm)])

    async def rotate(self) -> None:
        self._write([*json.loads(self._path.read_text())["keys"], key(self._algorithm, 3)])

    async def break_backend(self) -> None:
        self._path.rename(self._path.with_suffix(".away"))

    async def garble_backend(self) -> None:
        self._path.rename(self._path.with_suffix(".away"))
        self._path.write_text("<html>")
        self._path.chmod(0o600)

    async def restore_backend(self) -> None:
        if self._path.with_suffix(".away").exists():
            self._path.with_suffix(".away").replace(self._path)

    def secrets(self) -> list[str | bytes]:
        files = [self._path, self._path.with_suffix(".away")]
        return [file.read_text() for file in files if file.exists()]

    def _write(self, jwks: list[JWK]) -> None:
        self._path.write_text(json.dumps({"keys": jwks}))
        self._path.chmod(0o600)


@functools.cache
def key(algorithm: Algorithm, number: int) -> JWK:
    """A private JWK; number 0 of ES256 has an x that begins with a zero byte, as one in 256 does."""
    while True:
        made = jose.generate(algorithm)
        jwk = new_jwk(made, thumbprint(jose.public_jwk(made.public_key())), issued_at=time.time() - number)
        if algorithm is Algorithm.RS256 or number or urlsafe_b64decode(jwk["x"] + "=")[0] == 0:
            return jwk


def public_only(algorithm: Algorithm) -> JWK:
    return public(key(algorithm, 9))


def _ephemeral(_: Path, algorithm: Algorithm) -> SignerSubject:
    return SignerSubject(load_signer_plugin("ephemeral"), {"MACP_AUTH_SIGNING_ALG": algorithm.value})


def _env_jwk(_: Path, algorithm: Algorithm) -> SignerSubject:
    jwks = {"keys": [key(algorithm, 0), key(algorithm, 1), public_only(algorithm)]}
    environ = {"MACP_AUTH_SIGNING_KEY_JSON": json.dumps(jwks)}
    return SignerSubject(load_signer_plugin("env-jwk"), environ)


def _jwk_file(folder: Path, algorithm: Algorithm) -> SignerSubject:
    return JWKFile(folder / "keys.json", algorithm)


SET_UPS: dict[str, Callable[[Path, Algorithm], SignerSubject]] = {
    "ephemeral": _ephemeral,
    "env-jwk": _env_jwk,
    "jwk-file": _jwk_file,
}
"""How each signer that needs no server is set up."""
ELSEWHERE = {"vault-transit": "tests/vault/test_conformance.py"}
"""Signers whose backend has to be started, and the module with a ``SignerConformance`` for each."""


def test_every_built_in_has_a_set_up() -> None:
    """No signer is in the registry that the kit does not see."""
    assert BUILT_IN.keys() == SET_UPS.keys() | ELSEWHERE.keys()
    for module in ELSEWHERE.values():
        assert (ROOT / module).exists(), module


@pytest.mark.parametrize("algorithm", Algorithm)
@pytest.mark.parametrize("name", SET_UPS)
class TestOurSigners(SignerConformance):
    """Each signer from the registry, with keys of both kinds."""

    @pytest.fixture
    def subject(self, name: str, algorithm: Algorithm, tmp_path: Path) -> SignerSubject:
        return SET_UPS[name](tmp_path, algorithm)

    def test_no_call_blocks_the_event_loop(self, subject: SignerSubject) -> None:
        """All requests of a worker wait for it: unlike a plugin, it has no process of its own."""
        asyncio.run(assert_loop_is_free(subject))
