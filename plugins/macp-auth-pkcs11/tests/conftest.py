"""A SoftHSM of the test's own, driven with the tools that an operator has."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import jwt
import pytest

from macp_auth_pkcs11 import PKCS11Settings, PKCS11Signer
from macp_auth_pkcs11.settings import prepare

PIN = "secret-pin-4711"
TPM_PACKAGES = "libtpm2-pkcs11-1 swtpm tpm2-abrmd libtss2-tcti-tabrmd0 tpm2-tools dbus-daemon"
LIBRARIES = [Path("/usr/lib"), Path("/usr/local/lib"), Path("/usr/lib64"), Path("/opt/homebrew/lib")]


def require(found: str | Path | None, name: str, package: str) -> str:
    """``found``. Without it the test is skipped, but in CI, where nothing may be, it fails."""
    if found:
        return str(found)
    reason = f"{name} is missing; install Debian's {package}"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def find_library(name: str) -> Path | None:
    return next((path for root in LIBRARIES for path in sorted(root.glob(f"**/{name}"))), None)


def eventually(condition: Callable[[], bool], within: float = 20) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.02)


class Token:
    """The token ``macp``, driven with the tools that an operator has, and a file that holds its PIN.

    Args:
        directory: where its files are.
        module: the PKCS#11 library.
        environment: the variables that the library reads.
    """

    pin = PIN

    def __init__(self, directory: Path, module: str, environment: Mapping[str, str]) -> None:
        self.tool = require(shutil.which("pkcs11-tool"), "pkcs11-tool", "opensc")
        self.module = module
        self.environment = environment
        self.object = directory / "object.der"
        self.pin_file = directory / "pin"
        self.write_pin(PIN)

    def write_pin(self, pin: str, mode: int = stat.S_IRUSR | stat.S_IWUSR) -> None:
        self.pin_file.write_text(f"{pin}\n")
        self.pin_file.chmod(mode)

    def run(self, *command: str) -> str:
        env = {**os.environ, **self.environment}
        return subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout

    def shell(self, script: str, **variables: str) -> str:
        """Run the commands of a page, in the directory of the PIN file."""
        given = {"USER_PIN": PIN, "SO_PIN": "so-pin-0815", "PKCS11_MODULE": self.module, **variables}
        env = {**os.environ, **self.environment, **given}
        command = ["bash", "-euc", script]
        directory = self.pin_file.parent
        return subprocess.run(
            command, env=env, cwd=directory, check=True, capture_output=True, text=True
        ).stdout

    def use(self, *args: str, pin: str | None = PIN) -> str:
        """Run pkcs11-tool on the token, logged in unless ``pin`` is None."""
        login = () if pin is None else ("--login", "--pin", pin)
        return self.run(self.tool, "--module", self.module, "--token-label", "macp", *login, *args)

    def generate(self, label: str, id_: str, key_type: str = "EC:prime256v1") -> None:
        self.use("--keypairgen", "--key-type", key_type, "--usage-sign", "--label", label, "--id", id_)

    def write(self, type_: str, der: bytes, id_: str, *args: str, pin: str | None = PIN) -> None:
        """Write an object that was made elsewhere."""
        self.object.write_bytes(der)
        self.use(
            *("--write-object", str(self.object), "--type", type_, "--label", "macp", "--id", id_),
            *args,
            pin=pin,
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
            **self.environment,
            "MACP_AUTH_SIGNER": "pkcs11",
            "MACP_AUTH_PKCS11_MODULE": self.module,
            "MACP_AUTH_PKCS11_TOKEN_LABEL": "macp",
            "MACP_AUTH_PKCS11_PIN_FILE": str(self.pin_file),
            "MACP_AUTH_PKCS11_KEY_LABEL": "macp",
        }

    @asynccontextmanager
    async def signer(self, **changes: Any) -> AsyncIterator[PKCS11Signer]:
        signer = PKCS11Signer(prepare(self.settings(**changes)))
        try:
            yield signer
        finally:
            await signer.aclose()


class SoftHSM(Token):
    """Tokens in a directory."""

    def __init__(self, directory: Path) -> None:
        self.util = require(shutil.which("softhsm2-util"), "softhsm2-util", "softhsm2")
        self.tokens = directory / "tokens"
        self.tokens.mkdir()
        config = directory / "softhsm2.conf"
        config.write_text(f"directories.tokendir = {self.tokens}\nlog.level = ERROR\n")
        module = require(find_library("libsofthsm2.so"), "libsofthsm2.so", "softhsm2")
        super().__init__(directory, module, {"SOFTHSM2_CONF": str(config)})

    def make_token(self, label: str = "macp", pin: str = PIN) -> None:
        self.run(
            self.util, "--init-token", "--free", "--label", label, "--so-pin", "so-pin-0815", "--pin", pin
        )

    @property
    def spy(self) -> str:
        """A module that passes on to the one that PKCS11SPY names, and writes down each call."""
        return require(find_library("pkcs11-spy.so"), "pkcs11-spy.so", "opensc")


class TPM(Token):
    """A TPM 2.0 in software, behind a resource manager: a real one is behind the kernel's."""

    def __init__(self, directory: Path) -> None:
        (directory / "state").mkdir()
        module = require(find_library("libtpm2_pkcs11.so"), "libtpm2_pkcs11.so", TPM_PACKAGES)
        bus = f"unix:path={directory}/bus"
        super().__init__(
            directory,
            module,
            {
                "TPM2_PKCS11_STORE": f"{directory}/store",
                "TPM2_PKCS11_TCTI": "tabrmd:bus_type=session",
                "TPM2TOOLS_TCTI": "tabrmd:bus_type=session",
                "DBUS_SESSION_BUS_ADDRESS": bus,
            },
        )
        self._directory = directory
        self._log = directory / "tpm.log"
        self._chip = directory / "chip"
        self._processes: list[subprocess.Popen[bytes]] = []
        self._bus = self._spawn("dbus-daemon", "--session", "--nofork", "--nosyslog", f"--address={bus}")
        eventually((directory / "bus").exists)

    def _spawn(self, name: str, *args: str) -> subprocess.Popen[bytes]:
        program = require(shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin"), name, TPM_PACKAGES)
        env = {**os.environ, **self.environment}
        with self._log.open("ab") as log:
            return subprocess.Popen([program, *args], env=env, stdout=log, stderr=log)

    def start(self) -> None:
        """Start it with the keys that it had, and wait for it."""
        state = f"dir={self._directory}/state"
        sockets = (
            "--server",
            f"type=unixio,path={self._chip}",
            "--ctrl",
            f"type=unixio,path={self._control}",
        )
        begun = ("--flags", "not-need-init,startup-clear")
        self._processes = [self._spawn("swtpm", "socket", "--tpm2", "--tpmstate", state, *sockets, *begun)]
        eventually(self._control.exists)
        manager = ("tpm2-abrmd", "--session", "--allow-root", f"--tcti=swtpm:path={self._chip}")
        self._processes.append(self._spawn(*manager))
        eventually(self.answers)

    @property
    def _control(self) -> Path:
        return self._chip.with_suffix(".ctrl")

    def answers(self) -> bool:
        """Whether a command reaches it."""
        command = require(shutil.which("tpm2_getcap"), "tpm2_getcap", TPM_PACKAGES)
        try:
            self.run(command, "properties-fixed")
        except subprocess.CalledProcessError:
            return False
        return True

    def stop(self) -> None:
        """As a power failure does."""
        while self._processes:
            process = self._processes.pop()
            process.kill()
            process.wait()
        self._control.unlink(missing_ok=True)

    def close(self) -> None:
        self.stop()
        self._bus.kill()
        self._bus.wait()

    @property
    def is_stopped(self) -> bool:
        return not self._processes

    def limit_attempts(self, number: int) -> None:
        """Lock the PIN after so many wrong ones."""
        self.run("tpm2_dictionarylockout", "--setup-parameters", f"--max-tries={number}")

    def signal(self, number: int) -> None:
        """Stop or continue the chip."""
        self._processes[0].send_signal(number)


class Service:
    """A running ``macp-auth serve``."""

    def __init__(self, port: int, process: subprocess.Popen[bytes], log: Path) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.process = process
        self.log = log

    def get(self, path: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
        """The status and the JSON of an answer; with a body, of a POST."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"content-type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, None

    def mint(self, number: int = 0) -> str:
        """A token that PyJWT has verified; the kid that signed it."""
        status, answer = self.get("/tokens", {"sender": f"agent://{number}"})
        assert status == 200, self.log.read_text()
        key = self.published(jwt.get_unverified_header(answer["token"])["kid"])
        claims = jwt.decode(answer["token"], key, algorithms=[key.algorithm_name], audience="macp-runtime")
        assert claims["sub"] == f"agent://{number}"
        return str(key.key_id)

    def published(self, kid: str) -> jwt.PyJWK:
        return jwt.PyJWKSet.from_dict(self.get("/.well-known/jwks.json")[1])[kid]

    def has_keys(self) -> bool:
        return self.get("/.well-known/jwks.json")[0] == 200

    def eventually(self, condition: Callable[[], bool]) -> None:
        eventually(condition)

    def kids(self) -> set[str]:
        return {key["kid"] for key in self.get("/.well-known/jwks.json")[1]["keys"]}


Serving = Callable[..., AbstractContextManager[Service]]


@contextmanager
def _serving(token: Token, directory: Path, *args: str) -> Iterator[Service]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MACP_AUTH_")}
    env = {**inherited, **token.variables, "MACP_AUTH_KEY_REFRESH_SECONDS": "1"}
    log = directory / "service.log"
    command = [sys.executable, "-m", "macp_auth", "serve", "--port", str(port), *args]
    with (
        log.open("wb") as stream,
        subprocess.Popen(command, env=env, stdout=stream, stderr=stream) as process,
    ):
        service = Service(port, process, log)
        try:
            eventually(lambda: process.poll() is None and _answers(service))
            yield service
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()


def _answers(service: Service) -> bool:
    try:
        return service.get("/healthz")[0] == 200
    except OSError:
        return False


@pytest.fixture(scope="session")
def serving() -> Serving:
    """Starts a service that signs with a token, and reads its keys each second."""
    return _serving


@pytest.fixture(scope="module")
def tpm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TPM]:
    """A TPM without a token, and the variables that lead to it."""
    tpm = TPM(tmp_path_factory.mktemp("tpm"))
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name, value in tpm.environment.items():
            monkeypatch.setenv(name, value)
        try:
            tpm.start()
            tpm.limit_attempts(1000)  # a power failure counts as a wrong PIN
            yield tpm
        finally:
            tpm.close()


Commands = Callable[[str, str], list[str]]


@pytest.fixture(scope="session")
def commands() -> Commands:
    """The shell blocks of a page below a heading."""

    def find(page: str, heading: str) -> list[str]:
        text = (Path(__file__).parent.parent / page).read_text(encoding="utf-8")
        section = text.split(f"\n## {heading}\n")[1].split("\n## ")[0]
        return re.findall(r"^```sh\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)

    return find


@pytest.fixture(scope="module")
def kit_hsm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoftHSM]:
    """A SoftHSM for all checks of the kit, with a key of either type."""
    hsm = SoftHSM(tmp_path_factory.mktemp("hsm"))
    hsm.make_token()
    hsm.generate("macp", "01", "rsa:2048")
    hsm.generate("macp@2026-01-01T00:00:00Z", "02")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("SOFTHSM2_CONF", hsm.environment["SOFTHSM2_CONF"])
        yield hsm


@pytest.fixture
def empty_hsm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SoftHSM:
    """A SoftHSM without a token."""
    hsm = SoftHSM(tmp_path)
    monkeypatch.setenv("SOFTHSM2_CONF", hsm.environment["SOFTHSM2_CONF"])
    monkeypatch.setattr("macp_auth_pkcs11.device.OPENING_INTERVAL", 0)
    return hsm


@pytest.fixture
def hsm(empty_hsm: SoftHSM) -> SoftHSM:
    """A SoftHSM with the token ``macp``, and no key in it."""
    empty_hsm.make_token()
    return empty_hsm
