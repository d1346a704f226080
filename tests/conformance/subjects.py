"""What can be done to the seeded bugs' backend."""

from __future__ import annotations

from pathlib import Path

from macp_auth import SignerPlugin
from macp_auth.adapters import jose
from macp_auth.testing import SignerSubject
from tests.conformance.seeded_bugs import CREDENTIAL, Backend


class SeededSubject(SignerSubject):
    """A signer on a folder."""

    def __init__(self, plugin: SignerPlugin, environ: dict[str, str]) -> None:
        super().__init__(plugin, environ)
        self._folder = Path(environ["MACP_AUTH_SEEDED_DIRECTORY"])

    async def rotate(self) -> None:
        backend = Backend(self._folder)
        (first, _), *_ = backend.pairs()
        backend.add_key(jose.algorithm_of(first), age=0)

    async def break_backend(self) -> None:
        (self._folder / "down").touch()

    async def hang_backend(self) -> None:
        (self._folder / "hang").touch()

    async def refuse_backend(self) -> None:
        (self._folder / "refuse").touch()

    async def garble_backend(self) -> None:
        (self._folder / "garble").touch()

    async def restore_backend(self) -> None:
        for marker in ("down", "hang", "refuse", "garble"):
            (self._folder / marker).unlink(missing_ok=True)


def seeded_environment(folder: Path) -> dict[str, str]:
    return {"MACP_AUTH_SEEDED_DIRECTORY": str(folder), "MACP_AUTH_SEEDED_CREDENTIAL": CREDENTIAL}
