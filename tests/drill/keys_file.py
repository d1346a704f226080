"""Rotates and revokes keys in the file of the signer ``jwk-file``, as an operator does: atomically."""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path
from typing import Any

from macp_auth.adapters import jose
from macp_auth.domain.keys import Algorithm, thumbprint


class KeysFile:
    """A private JWK Set with the schedule of its keys, newest first.

    Args:
        path: where to make the file.
        lead: seconds from a key's making to its first signature.
        lag: seconds from a key's last signature until it leaves the JWKS.
    """

    def __init__(self, path: Path, lead: int, lag: int) -> None:
        self.path = path
        self._lead = lead
        self._lag = lag
        self._keys: list[dict[str, Any]] = []

    def start(self, algorithm: Algorithm) -> str:
        """Write the file with a first key, which signs at once; its kid."""
        now = int(time.time())
        return self._add(algorithm, {"iat": now, "nbf": now})

    def rotate(self, algorithm: Algorithm) -> str:
        """Add a key that signs after the lead, and let the one before it go after the lag; its kid."""
        now = time.time()
        signs_from = math.ceil(now + self._lead)
        self._keys[0]["exp"] = signs_from + self._lag
        self._keys = [key for key in self._keys if key.get("exp", math.inf) > now]
        return self._add(algorithm, {"iat": int(now), "nbf": signs_from})

    def revoke(self, kid: str) -> None:
        """Take a key out now."""
        self._keys = [key for key in self._keys if key["kid"] != kid]
        self._write()

    def _add(self, algorithm: Algorithm, times: dict[str, int]) -> str:
        key = jose.generate(algorithm)
        kid = thumbprint(jose.public_jwk(key.public_key()))
        self._keys.insert(0, {**jose.private_jwk(key), "kid": kid, "alg": algorithm.value, **times})
        self._write()
        return kid

    def _write(self) -> None:
        beside = self.path.with_suffix(".new")
        beside.touch(mode=0o600)
        beside.write_text(json.dumps({"keys": self._keys}))
        os.replace(beside, self.path)  # noqa: PTH105 - the plainest name of what matters here
