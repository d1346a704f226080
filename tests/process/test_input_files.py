"""Configured files that are not regular files, hang, or belong to another user."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support import jwks
from tests.support.fake_server import FakeServer, Reply, Request
from tests.support.hung_mount import HungMount
from tests.support.users import as_user, require_root
from tools.support.service import Service, clean_environment, free_port, wait_until
from tools.support.tls import Authority
from tools.support.tls_service import TLSService, tls_settings

pytestmark = pytest.mark.slow  # services of their own

HANG = 60  # seconds; a bound for what would hang
STOP_SECONDS = 10
OTHER_UID = 12345
KEYS_BROKEN = "cannot read keys; keeping the last good ones"
TLS_BROKEN = "cannot use TLS files; keeping the last good ones"
CA_BROKEN = "cannot use the TLS files for Vault; keeping the last good ones"
KEYS = {"MACP_AUTH_SIGNER": "jwk-file", "MACP_AUTH_KEY_REFRESH_SECONDS": "1"}
VAULT = {
    "MACP_AUTH_SIGNER": "vault-transit",
    "MACP_AUTH_VAULT_KEY": "macp",
    "VAULT_ADDR": "http://127.0.0.1:9",
    "MACP_AUTH_KEY_REFRESH_SECONDS": "1",
}
CREDENTIALS = {
    "MACP_AUTH_VAULT_TOKEN_FILE": {},
    "MACP_AUTH_VAULT_SECRET_ID_FILE": {"MACP_AUTH_VAULT_AUTH": "approle", "MACP_AUTH_VAULT_ROLE_ID": "r"},
    "MACP_AUTH_VAULT_JWT_FILE": {"MACP_AUTH_VAULT_AUTH": "jwt", "MACP_AUTH_VAULT_ROLE": "r"},
}


class Files:
    """Good files of each kind in one folder, and the variables that name them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.keys = folder / "keys.json"
        self.authority = Authority(folder)
        self.pair = self.authority.issue("server")
        self.write_keys("a")
        self.credential = folder / "credential"
        self.credential.write_text("t0ken")
        self.credential.chmod(0o600)

    def write_keys(self, *kids: str) -> None:
        fresh = self.folder / "keys.new"
        fresh.write_text(
            json.dumps({"keys": [{**jwks.ec(copy=n), "kid": kid} for n, kid in enumerate(kids)]})
        )
        fresh.chmod(0o600)
        fresh.replace(self.keys)

    @property
    def tls(self) -> dict[str, str]:
        return {**tls_settings(self.pair), "MACP_AUTH_TLS_CLIENT_CA_FILE": str(self.authority.path)}

    def env(self, variable: str) -> dict[str, str]:
        """The variables of a service that reads the file of ``variable``."""
        if "TLS" in variable:
            return self.tls
        if variable == "MACP_AUTH_SIGNING_KEYS_FILE":
            return {**KEYS, variable: str(self.keys)}
        if variable == "MACP_AUTH_VAULT_CACERT":
            return {**VAULT, "VAULT_TOKEN": "t", variable: str(self.authority.path)}
        if variable == "MACP_AUTH_AUDIT_LOG":
            return {variable: str(self.folder / "audit.log")}
        return {**VAULT, **CREDENTIALS[variable], variable: str(self.credential)}


STARTS = [
    "MACP_AUTH_SIGNING_KEYS_FILE",
    "MACP_AUTH_TLS_CERT_FILE",
    "MACP_AUTH_TLS_KEY_FILE",
    "MACP_AUTH_TLS_CLIENT_CA_FILE",
    "MACP_AUTH_VAULT_CACERT",
]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def become_a_pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path, 0o600)


def start_of(env: Mapping[str, str], command: str = "serve") -> subprocess.CompletedProcess[str]:
    """A start that should fail; it is killed if it hangs."""
    return subprocess.run(
        [sys.executable, "-m", "macp_auth", command],
        env=clean_environment({"PORT": str(free_port()), **env}),
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=HANG, check=False,
    )  # fmt: skip


def refusal_of(env: Mapping[str, str]) -> str:
    """The one line of a start that fails."""
    run = start_of(env)
    assert run.returncode == 2, run.stderr
    [line] = run.stderr.splitlines()
    error: str = json.loads(line)["error"]
    return error


def stop(service: Service) -> float:
    """End it as an orchestrator does; return the seconds that it took."""
    began = time.monotonic()
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(STOP_SECONDS) == 0
    return time.monotonic() - began


def lines(service: Service, event: str) -> list[dict[str, Any]]:
    return [line for line in service.events if line["event"] == event]


# --- no regular file ----------------------------------------------------------------------------------


@pytest.mark.parametrize("variable", STARTS)
def test_a_start_with_a_named_pipe_for_a_file_ends(files: Files, variable: str) -> None:
    """With one line that names the variable, where it would wait for a writer for ever."""
    env = files.env(variable)
    become_a_pipe(Path(env[variable]))
    error = refusal_of(env)
    assert variable in error
    assert "a named pipe" in error


@pytest.mark.parametrize("variable", CREDENTIALS)
def test_a_named_pipe_for_a_credential(
    files: Files, start_service: Callable[..., Service], variable: str
) -> None:
    """The service starts, as with any credential that is not there yet, says why it can't mint, and ends."""
    become_a_pipe(files.credential)
    service = start_service(files.env(variable))
    wait_until(lambda: lines(service, "not ready"), within=HANG, what="it says that it is not ready")
    wait_until(lambda: "a named pipe" in service.log, within=HANG, what="it says why")
    assert variable in service.log
    stop(service)


def test_a_doctor_is_not_held_up_by_a_named_pipe(files: Files) -> None:
    """It has the finding."""
    become_a_pipe(files.keys)
    assert "a named pipe" in start_of(files.env("MACP_AUTH_SIGNING_KEYS_FILE"), "doctor").stdout


def test_keys_that_become_a_named_pipe(files: Files, start_service: Callable[..., Service]) -> None:
    """The last good ones stay, the log says why, a good file is taken up again, and a stop is one."""
    service = start_service(files.env("MACP_AUTH_SIGNING_KEYS_FILE"))
    become_a_pipe(files.keys)
    wait_until(lambda: lines(service, KEYS_BROKEN), within=HANG, what="the log says so")
    assert "a named pipe" in lines(service, KEYS_BROKEN)[0]["detail"]
    assert service.mint()["token"]
    files.write_keys("a", "b")
    wait_until(lambda: len(service.jwks()["keys"]) == 2, within=HANG, what="a good file is taken up")
    become_a_pipe(files.keys)
    stop(service)


@pytest.mark.parametrize("variable", STARTS[1:4])
def test_a_file_of_tls_that_becomes_a_named_pipe(files: Files, tmp_path: Path, variable: str) -> None:
    """The last good ones stay, and that is logged once."""
    env = files.env(variable)
    with TLSService(tmp_path, files.authority.path, env) as service:
        authority = files.folder / "kept.pem"
        authority.write_bytes(files.authority.path.read_bytes())
        become_a_pipe(Path(env[variable]))
        wait_until(lambda: lines(service, TLS_BROKEN), within=HANG, what="the log says so")
        assert service.get("/healthz")[0] == 200
        [line] = lines(service, TLS_BROKEN)
        assert f"{variable}: the file can't be read: it is not a regular file" in line["detail"]
        stop(service)


def vault_reply(request: Request) -> Reply:
    """A Vault that knows the token, for a second, and has no key."""
    if request.path.endswith("lookup-self"):
        return Reply(200, {"data": {"ttl": 1, "renewable": False}})
    return Reply(404, {"errors": []})


def test_a_token_that_becomes_a_named_pipe(files: Files, start_service: Callable[..., Service]) -> None:
    """The service answers, and ends."""
    with FakeServer(vault_reply) as vault:
        service = start_service({**files.env("MACP_AUTH_VAULT_TOKEN_FILE"), "VAULT_ADDR": vault.url})
        wait_until(lambda: "logged in to Vault" in service.log, within=HANG, what="it logs in")
        become_a_pipe(files.credential)
        wait_until(lambda: "a named pipe" in service.log, within=HANG, what="the log says so")
        assert service.get("/healthz")[0] == 200
        stop(service)


def test_authorities_of_vault_that_become_a_named_pipe(
    files: Files, start_service: Callable[..., Service]
) -> None:
    """The event loop does not wait for it: the last good ones stay."""
    with FakeServer(vault_reply) as vault:
        env = {**files.env("MACP_AUTH_VAULT_CACERT"), "VAULT_ADDR": vault.url}
        service = start_service(env)
        wait_until(lambda: "logged in to Vault" in service.log, within=HANG, what="it logs in")
        become_a_pipe(files.authority.path)
        wait_until(lambda: lines(service, CA_BROKEN), within=HANG, what="the log says so")
        assert service.get("/healthz")[0] == 200
        asked = len(vault.requests)
        wait_until(lambda: len(vault.requests) > asked + 2, within=HANG, what="Vault is asked on")
        assert len(lines(service, CA_BROKEN)) == 1
        stop(service)


# --- a file system that hangs -------------------------------------------------------------------------


@pytest.fixture
def mount(tmp_path: Path) -> HungMount:
    return HungMount(tmp_path)


@pytest.mark.parametrize("variable", [*STARTS[:2], STARTS[4], "MACP_AUTH_AUDIT_LOG"])
def test_a_start_on_a_file_system_that_hangs_ends(mount: HungMount, variable: str) -> None:
    """With one line that names the variable."""
    env = Files(mount.folder).env(variable)
    mount.hang()
    error = refusal_of({**mount.env, **env})
    assert variable in error
    assert "the file system does not answer within 2 s" in error


@pytest.mark.parametrize(
    "variable", [*STARTS[:2], STARTS[4], "MACP_AUTH_AUDIT_LOG", "MACP_AUTH_VAULT_TOKEN_FILE"]
)
def test_a_file_system_that_hangs_while_the_service_runs(
    mount: HungMount, tmp_path: Path, variable: str
) -> None:
    """It answers at once all the time, and stops on SIGTERM."""
    files = Files(mount.folder)
    env = {**mount.env, **files.env(variable)}
    if variable in (*CREDENTIALS, "MACP_AUTH_VAULT_CACERT"):
        env["MACP_AUTH_KEY_REFRESH_SECONDS"] = "1"
    with ExitStack() as stack:
        if "_TLS_" in variable:
            kept = tmp_path / "kept.pem"
            kept.write_bytes(files.authority.path.read_bytes())
            service: Service = stack.enter_context(TLSService(tmp_path, kept, env))
        else:
            service = stack.enter_context(Service(tmp_path, env))
        mount.hang()
        until = time.monotonic() + 5
        slowest = 0.0
        while time.monotonic() < until:
            began = time.monotonic()
            assert service.get("/healthz")[0] == 200
            slowest = max(slowest, time.monotonic() - began)
            time.sleep(0.05)
        assert slowest < 1
        stop(service)


def test_a_file_system_that_hangs_and_comes_back(
    mount: HungMount, start_service: Callable[..., Service]
) -> None:
    """Meanwhile one thread waits for it, however often the file is read; then new keys are taken up."""
    files = Files(mount.folder)
    service = start_service({**mount.env, **files.env("MACP_AUTH_SIGNING_KEYS_FILE")})
    tasks = Path(f"/proc/{service.process.pid}/task")
    mount.hang()
    wait_until(lambda: lines(service, KEYS_BROKEN), within=HANG, what="the log says so")
    threads = len(list(tasks.iterdir()))
    wait_until(lambda: len(lines(service, KEYS_BROKEN)) >= 3, within=HANG, what="it is read again")
    assert len(list(tasks.iterdir())) <= threads
    assert service.mint()["token"]
    files.write_keys("a", "b")
    mount.answer()
    wait_until(lambda: len(service.jwks()["keys"]) == 2, within=HANG, what="new keys are taken up")


# --- a file of another user ---------------------------------------------------------------------------


@pytest.mark.parametrize("variable", ["MACP_AUTH_SIGNING_KEYS_FILE", "MACP_AUTH_TLS_KEY_FILE"])
def test_a_key_of_another_user_is_refused(files: Files, variable: str) -> None:
    """For a service of root: who can change its key can mint for every sender."""
    require_root()
    env = files.env(variable)
    os.chown(env[variable], OTHER_UID, OTHER_UID)
    error = refusal_of(env)
    assert variable in error
    assert (
        f"it belongs to uid {OTHER_UID}, neither root nor the user of this process (uid 0); "
        f"run this as uid {OTHER_UID}" in error
    )
    assert "chown" not in error


@pytest.mark.parametrize("variable", ["MACP_AUTH_SIGNING_KEYS_FILE", "MACP_AUTH_TLS_KEY_FILE"])
@pytest.mark.parametrize(("mode", "owner"), [(0o777, 0), (0o775, OTHER_UID)], ids=["open", "of-another"])
def test_a_key_that_others_can_replace_is_refused(
    tmp_path: Path, variable: str, mode: int, owner: int
) -> None:
    """The folder above its own may be the open one."""
    folder = tmp_path / "outer" / "inner"
    folder.mkdir(parents=True)
    env = Files(folder).env(variable)
    if owner:
        require_root()
        os.chown(folder.parent, owner, owner)
    folder.parent.chmod(mode)
    error = refusal_of(env)
    assert variable in error
    assert "replace it" in error
    assert str(folder.parent) in error


def test_a_key_of_another_user_does_not_replace_a_good_one(
    files: Files, start_service: Callable[..., Service]
) -> None:
    """Put in its place while the service runs; the good ones sign on."""
    require_root()
    service = start_service(files.env("MACP_AUTH_SIGNING_KEYS_FILE"))
    foreign = files.folder / "foreign.json"
    foreign.write_text(json.dumps({"keys": [{**jwks.ec(copy=7), "kid": "theirs"}]}))
    foreign.chmod(0o600)
    os.chown(foreign, OTHER_UID, OTHER_UID)
    foreign.replace(files.keys)
    wait_until(lambda: lines(service, KEYS_BROKEN), within=HANG, what="the log says so")
    assert f"it belongs to uid {OTHER_UID}" in lines(service, KEYS_BROKEN)[0]["detail"]
    assert [key["kid"] for key in service.jwks()["keys"]] == ["a"]


@pytest.mark.parametrize(
    ("mode", "said"),
    [(0o666, "it is writable by group or others (mode 0666)"), (0o620, "mode 0620"), (0o644, None)],
)
def test_a_credential_that_others_can_write_is_not_used(
    files: Files, start_service: Callable[..., Service], mode: int, said: str | None
) -> None:
    """One that they can read is, with one warning: Vault Agent may write it so."""
    files.credential.chmod(mode)
    warning = "others can get at a credential for Vault"
    with FakeServer(vault_reply) as vault:
        service = start_service({**files.env("MACP_AUTH_VAULT_TOKEN_FILE"), "VAULT_ADDR": vault.url})
        if said is None:
            wait_until(
                lambda: len(lines(service, "logged in to Vault")) > 2, within=HANG, what="it logs in again"
            )
            [line] = lines(service, warning)
            assert "mode 0644" in line["detail"]
            assert line["level"] == "warning"
        else:
            wait_until(lambda: said in service.log, within=HANG, what="the log says so")
            assert "logged in" not in service.log
            assert vault.requests == []


@pytest.mark.parametrize("foreign", [False, True], ids=["mode-0666", "of-another"])
def test_an_audit_log_that_others_can_change_draws_a_warning(
    tmp_path: Path, start_service: Callable[..., Service], *, foreign: bool
) -> None:
    """At the start, and by doctor."""
    log = tmp_path / "audit.log"
    log.touch(0o600)
    if foreign:
        require_root()
        os.chown(log, OTHER_UID, OTHER_UID)
    else:
        log.chmod(0o666)
    env = {"MACP_AUTH_AUDIT_LOG": str(log)}
    service = start_service(env)
    [line] = lines(service, "others can change the audit log")
    assert ("uid 12345" if foreign else "mode 0666") in line["detail"]
    assert "WARN  audit " in start_of(env, "doctor").stdout


# --- rotating as root ---------------------------------------------------------------------------------


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that another user can reach, unlike pytest's."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory)
        path.chmod(0o755)
        yield path


@pytest.mark.parametrize("owner", [OTHER_UID, 0], ids=["of-the-service", "of-root"])
def test_root_rotates_and_the_service_keeps_its_file(place: Path, tmp_path: Path, owner: int) -> None:
    """Owner, group, mode and access list stay; the service goes on, and starts again.

    The folder is the service's, as systemd's StateDirectory is; the file may be root's.
    """
    prefix = as_user(OTHER_UID, tmp_path)
    folder = place / "keys"
    folder.mkdir()
    files = Files(folder)
    files.keys.chmod(0o640)
    os.chown(folder, OTHER_UID, OTHER_UID)
    group = OTHER_UID if owner == 0 else OTHER_UID + 1
    os.chown(files.keys, owner, group)
    folder.chmod(0o700)
    env = {**KEYS, "MACP_AUTH_SIGNING_KEYS_FILE": str(files.keys)}
    with Service(tmp_path, env, prefix=prefix) as service:
        for command in (["rotate", "--kid", "b", "--alg", "ES256"], ["revoke", "a"]):
            name, *rest = command
            args = [name, str(files.keys), *rest]
            run = subprocess.run(
                [sys.executable, "-m", "macp_auth", "keys", *args],
                env=clean_environment(), capture_output=True, text=True, timeout=HANG, check=False,
            )  # fmt: skip
            assert run.returncode == 0, run.stderr
            found = files.keys.stat()
            assert (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (owner, group, 0o640)
        wait_until(
            lambda: [key["kid"] for key in service.jwks()["keys"]] == ["b"], within=HANG, what="it follows"
        )
        assert service.mint()["token"]
        assert lines(service, KEYS_BROKEN) == []
    with Service(tmp_path, env, prefix=prefix) as again:
        assert again.mint()["token"]
