"""A SoftHSM of the test's own, driven with the tools that an operator has."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from macp_auth_pkcs11 import PKCS11Settings, PKCS11Signer
from macp_auth_pkcs11.settings import prepare

PIN = "secret-pin-4711"
LIBRARIES = [Path("/usr/lib"), Path("/usr/local/lib"), Path("/usr/lib64"), Path("/opt/homebrew/lib")]


def require(found: str | Path | None, name: str, package: str) -> str:
    """``found``. Without it the test is skipped, but in CI, where nothing may be, it fails."""
    if found:
        return str(found)
    reason = f"{name} is missing; install Debian's package {package}"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def find_library(name: str) -> Path | None:
    return next((path for root in LIBRARIES for path in sorted(root.glob(f"**/{name}"))), None)


class SoftHSM:
    """Tokens in a directory, and a file that holds the PIN."""

    pin = PIN

    def __init__(self, directory: Path) -> None:
        self.util = require(shutil.which("softhsm2-util"), "softhsm2-util", "softhsm2")
        self.tool = require(shutil.which("pkcs11-tool"), "pkcs11-tool", "opensc")
        self.module = require(find_library("libsofthsm2.so"), "libsofthsm2.so", "softhsm2")
        self.tokens = directory / "tokens"
        self.tokens.mkdir()
        self.config = directory / "softhsm2.conf"
        self.config.write_text(f"directories.tokendir = {self.tokens}\nlog.level = ERROR\n")
        self.pin_file = directory / "pin"
        self.write_pin(PIN)

    def write_pin(self, pin: str, mode: int = stat.S_IRUSR | stat.S_IWUSR) -> None:
        self.pin_file.write_text(f"{pin}\n")
        self.pin_file.chmod(mode)

    def run(self, *command: str) -> str:
        env = {**os.environ, "SOFTHSM2_CONF": str(self.config)}
        return subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout

    def make_token(self, label: str = "macp", pin: str = PIN) -> None:
        self.run(
            self.util, "--init-token", "--free", "--label", label, "--so-pin", "so-pin-0815", "--pin", pin
        )

    def use(self, *args: str, pin: str | None = PIN) -> str:
        """Run pkcs11-tool on the token, logged in unless ``pin`` is None."""
        login = () if pin is None else ("--login", "--pin", pin)
        return self.run(self.tool, "--module", self.module, "--token-label", "macp", *login, *args)

    def generate(self, label: str, id_: str, key_type: str = "EC:prime256v1") -> None:
        self.use("--keypairgen", "--key-type", key_type, "--usage-sign", "--label", label, "--id", id_)

    def write(self, type_: str, der: bytes, id_: str, *args: str, pin: str | None = PIN) -> None:
        """Write an object that was made elsewhere."""
        path = self.tokens.with_name("object.der")
        path.write_bytes(der)
        self.use(
            *("--write-object", str(path), "--type", type_, "--label", "macp", "--id", id_), *args, pin=pin
        )

    def delete(self, id_: str, *types: str) -> None:
        for type_ in types or ("privkey", "pubkey"):
            self.use("--delete-object", "--type", type_, "--id", id_)

    def settings(self, **changes: Any) -> PKCS11Settings:
        given: dict[str, Any] = {
            "module": self.module,
            "token_label": "macp",
            "pin_file": str(self.pin_file),
            "key_label": "macp",
        }
        return PKCS11Settings(**{**given, **changes})

    @property
    def variables(self) -> dict[str, str]:
        """The environment of a service that signs with this token."""
        return {
            "SOFTHSM2_CONF": str(self.config),
            "MACP_AUTH_SIGNER": "pkcs11",
            "MACP_AUTH_PKCS11_MODULE": self.module,
            "MACP_AUTH_PKCS11_TOKEN_LABEL": "macp",
            "MACP_AUTH_PKCS11_PIN_FILE": str(self.pin_file),
            "MACP_AUTH_PKCS11_KEY_LABEL": "macp",
        }

    @property
    def spy(self) -> str:
        """A module that passes on to the one that PKCS11SPY names, and writes down each call."""
        return require(find_library("pkcs11-spy.so"), "pkcs11-spy.so", "opensc")

    @asynccontextmanager
    async def signer(self, **changes: Any) -> AsyncIterator[PKCS11Signer]:
        signer = PKCS11Signer(prepare(self.settings(**changes)))
        try:
            yield signer
        finally:
            await signer.aclose()


@pytest.fixture
def empty_hsm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SoftHSM:
    """A SoftHSM without a token."""
    hsm = SoftHSM(tmp_path)
    monkeypatch.setenv("SOFTHSM2_CONF", str(hsm.config))
    monkeypatch.setattr("macp_auth_pkcs11.device.OPENING_INTERVAL", 0)
    return hsm


@pytest.fixture
def hsm(empty_hsm: SoftHSM) -> SoftHSM:
    """A SoftHSM with the token ``macp``, and no key in it."""
    empty_hsm.make_token()
    return empty_hsm
