"""The keys file of the signer ``jwk-file``, changed as an operator changes it: by ``macp-auth keys``."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from macp_auth.domain.keys import Algorithm
from tools.support.service import clean_environment

_COMMAND_SECONDS = 30


class KeysFile:
    """A private JWK Set with the schedule of its keys.

    Args:
        path: where to make the file, by a first :meth:`rotate`.
        settings: the environment of the service, whose policy the commands follow.
    """

    def __init__(self, path: Path, settings: Mapping[str, str]) -> None:
        self._path = path
        self._environment = clean_environment(settings)

    async def rotate(self, algorithm: Algorithm) -> str:
        """Add a key that signs after the publish lead, and let the one before it go; its kid."""
        before = self._kids()
        await self._run("rotate", str(self._path), "--alg", algorithm.value)
        (new,) = self._kids() - before
        return new

    async def revoke(self, kid: str) -> None:
        """Take a key out now."""
        await self._run("revoke", str(self._path), "--", kid)  # a thumbprint may begin with a dash

    @property
    def changed(self) -> float:
        """When it was last written, in seconds since the epoch."""
        return self._path.stat().st_mtime

    def _kids(self) -> set[str]:
        if not self._path.exists():
            return set()
        return {key["kid"] for key in json.loads(self._path.read_text())["keys"]}

    async def _run(self, *arguments: str) -> None:
        command = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "macp_auth", "keys", *arguments),
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(_COMMAND_SECONDS):
                said, _ = await command.communicate()
        finally:
            if command.returncode is None:
                command.kill()
                await command.wait()
        assert command.returncode == 0, said.decode()
