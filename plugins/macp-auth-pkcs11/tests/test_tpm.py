"""The signer on a TPM 2.0 in software, set up with the commands of TPM.md."""

from __future__ import annotations

import asyncio
import grp
import os
import signal
import subprocess
import time
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from macp_auth import SignerRefused
from macp_auth.testing import SignerSubject
from macp_auth.testing.suite import SignerConformance
from macp_auth_pkcs11 import macp_auth_signer

pytestmark = pytest.mark.slow  # a TPM in software

if TYPE_CHECKING:  # importable by mypy only: pytest imports each test file apart
    from conftest import TPM, Commands, Service, Serving


class Subject(SignerSubject):
    """A TPM that can lose its power. A hang is for the service to end: the library can't be interrupted."""

    def __init__(self, tpm: TPM) -> None:
        super().__init__(macp_auth_signer(), tpm.variables)
        self._tpm = tpm

    async def rotate(self) -> None:
        now = datetime.now(UTC)
        label, id_ = f"macp@{now:%Y-%m-%dT%H:%M:%SZ}", f"{now:%H%M%S%f}"
        await asyncio.to_thread(self._tpm.generate, label, id_)

    async def break_backend(self) -> None:
        self._tpm.stop()

    async def refuse_backend(self) -> None:
        self._tpm.write_pin("wrong-pin-0000")

    async def restore_backend(self) -> None:
        self._tpm.write_pin(self._tpm.pin)
        if self._tpm.is_stopped:
            await asyncio.to_thread(self._tpm.start)

    def secrets(self) -> Collection[str]:
        return [self._tpm.pin]


@pytest.fixture(scope="module")
def token(tpm: TPM, commands: Commands) -> TPM:
    """The TPM with a token and a key, created with the commands of the pages."""
    make_token, write_pin = commands("TPM.md", "Set-up")
    _, _, make_key, _ = commands("README.md", "Set-up")
    for command in (make_token, write_pin, make_key):
        tpm.shell(command, SERVICE_GROUP=grp.getgrgid(os.getgid()).gr_name)
    return tpm


class TestTPM(SignerConformance):
    """Each check of the kit is one test."""

    @pytest.fixture
    def subject(self, token: TPM) -> SignerSubject:
        return Subject(token)


@pytest.fixture(scope="module")
def service(token: TPM, serving: Serving, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with one worker, which signs with the TPM."""
    with serving(token, tmp_path_factory.mktemp("service")) as service:
        service.eventually(service.has_keys)
        yield service


def test_service_mints_rotates_and_withdraws(service: Service, token: TPM, commands: Commands) -> None:
    """A running service sees what the README's commands create and delete: the library does not by itself."""
    (rotate, delete) = commands("README.md", "Rotate")
    before = service.kids()
    assert service.mint() in before
    token.shell(rotate)
    service.eventually(lambda: len(service.kids()) > len(before))
    token.shell(delete)
    service.eventually(lambda: not before <= service.kids())
    assert service.mint() in service.kids()
    assert token.pin not in service.log.read_text()


def test_hang_affects_nothing_else(service: Service, token: TPM) -> None:
    """While a TPM hangs, requests for tokens get 503, and others their answers; then the service mints."""
    token.signal(signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(1) as pool:
            minting = pool.submit(service.get, "/tokens", {"sender": "agent://risk"})
            while not minting.done():
                assert service.get("/healthz")[0] == 200
                assert service.has_keys()
                time.sleep(0.05)
        assert minting.result()[0] == 503
    finally:
        token.signal(signal.SIGCONT)
    service.eventually(lambda: service.get("/tokens", {"sender": "agent://risk"})[0] == 200)


def test_lockout_is_no_wrong_pin(token: TPM, commands: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signer whose PIN the TPM has locked signs again after the lockout, with the same PIN."""
    show, clear = commands("TPM.md", "Lockout")
    monkeypatch.setattr("macp_auth_pkcs11.device.OPENING_INTERVAL", 0)

    async def scenario() -> None:
        async with token.signer() as signer:
            token.limit_attempts(1)
            with pytest.raises(subprocess.CalledProcessError):
                token.use("--list-objects", pin="wrong-pin-0000")
            with pytest.raises(SignerRefused, match="PIN is locked") as caught:
                await signer.key_versions()
            assert caught.value.reason == "pin-locked"
            assert "TPM2_PT_MAX_AUTH_FAIL: 0x1" in token.shell(show)
            token.shell(clear)
            token.limit_attempts(1000)
            assert await signer.key_versions()

    asyncio.run(scenario())
