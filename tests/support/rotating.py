"""A signer whose key versions were made at given times; it counts how often it is asked for them."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from macp_auth.adapters.jose import generate
from macp_auth.adapters.signers.local import LocalKey
from macp_auth.domain.keys import Algorithm, KeyVersion
from macp_auth.domain.signer import Signer

_KEY = generate(Algorithm.ES256)


class RotatingSigner(Signer):
    def __init__(self, **created_at: float) -> None:
        self._versions = [
            msgspec.structs.replace(LocalKey.signing(kid, _KEY).version, created_at=made)
            for kid, made in created_at.items()
        ]
        self.readings = 0

    async def key_versions(self) -> Sequence[KeyVersion]:
        self.readings += 1
        return self._versions

    async def sign(self, kid: str, signing_input: bytes) -> bytes:
        raise NotImplementedError

    async def aclose(self) -> None:
        pass
