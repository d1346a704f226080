"""The host's conformance kit, on a SoftHSM that has a key of either type."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Collection
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from pkcs11.types import SignMixin

from macp_auth.testing import SignerSubject
from macp_auth.testing.suite import SignerConformance
from macp_auth_pkcs11 import device, macp_auth_signer
from macp_auth_pkcs11.public_keys import sign_digest

if TYPE_CHECKING:  # importable by mypy only: pytest imports each test file apart
    from conftest import SoftHSM


class Subject(SignerSubject):
    """A token that can vanish with its directory, and hang within a signature."""

    def __init__(self, hsm: SoftHSM, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(macp_auth_signer(), hsm.variables)
        self._hsm = hsm
        self._elsewhere = hsm.tokens.with_name("elsewhere")
        self._answers = threading.Event()
        self._answers.set()
        self._ids = iter(range(0x10, 0x100))
        monkeypatch.setattr(device, "sign_digest", self._sign_digest)

    def _sign_digest(self, key: SignMixin, digest: bytes) -> bytes:
        assert self._answers.wait(60)
        return sign_digest(key, digest)

    async def rotate(self) -> None:
        label = f"macp@{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
        await asyncio.to_thread(self._hsm.generate, label, f"{next(self._ids):02x}")

    async def break_backend(self) -> None:
        self._hsm.tokens.rename(self._elsewhere)
        self._hsm.tokens.mkdir()

    async def hang_backend(self) -> None:
        self._answers.clear()

    async def restore_backend(self) -> None:
        self._answers.set()
        if self._elsewhere.exists():
            self._hsm.tokens.rmdir()
            self._elsewhere.rename(self._hsm.tokens)

    def secrets(self) -> Collection[str]:
        return [self._hsm.pin]


class TestPKCS11(SignerConformance):
    """Each check of the kit is one test."""

    @pytest.fixture
    def subject(self, hsm: SoftHSM, monkeypatch: pytest.MonkeyPatch) -> SignerSubject:
        hsm.generate("macp", "01", "rsa:2048")
        hsm.generate("macp@2026-01-01T00:00:00Z", "02", "EC:prime256v1")
        monkeypatch.undo()  # an opening a second, as in earnest
        monkeypatch.setenv("SOFTHSM2_CONF", str(hsm.config))
        return Subject(hsm, monkeypatch)
