"""The host's conformance kit, on a SoftHSM that has a key of either type."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from macp_auth.testing import SignerSubject
from macp_auth.testing.suite import SignerConformance
from macp_auth_pkcs11 import macp_auth_signer

if TYPE_CHECKING:  # importable by mypy only: pytest imports each test file apart
    from conftest import SoftHSM


class Subject(SignerSubject):
    """A token that can vanish with its directory."""

    def __init__(self, hsm: SoftHSM) -> None:
        super().__init__(macp_auth_signer(), hsm.variables)
        self._hsm = hsm
        self._elsewhere = hsm.tokens.with_name("elsewhere")

    async def rotate(self) -> None:
        now = datetime.now(UTC)
        label, id_ = f"macp@{now:%Y-%m-%dT%H:%M:%SZ}", f"{now:%H%M%S%f}"
        await asyncio.to_thread(self._hsm.generate, label, id_)

    async def break_backend(self) -> None:
        self._hsm.tokens.rename(self._elsewhere)
        self._hsm.tokens.mkdir()

    async def refuse_backend(self) -> None:
        self._hsm.write_pin("wrong-pin-0000")

    async def restore_backend(self) -> None:
        self._hsm.write_pin(self._hsm.pin)
        if self._elsewhere.exists():
            self._hsm.tokens.rmdir()
            self._elsewhere.rename(self._hsm.tokens)

    def secrets(self) -> Collection[str]:
        return [self._hsm.pin]


class TestPKCS11(SignerConformance):
    """Each check of the kit is one test."""

    @pytest.fixture
    def subject(self, kit_hsm: SoftHSM) -> SignerSubject:
        return Subject(kit_hsm)
