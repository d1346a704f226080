"""Who else is on the machine does not get the key from the process."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.users import require_view_of_services
from tools.support.processes import family, workers_of
from tools.support.service import Service, clean_environment, free_port, wait_until

pytestmark = pytest.mark.slow  # services of their own

NOBODY = 65534
linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")


def new_key() -> str:
    """A private JWK."""
    generate = [sys.executable, "-m", "macp_auth", "keys", "generate", "--alg", "ES256"]
    return subprocess.run(generate, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


def environment_of(process: psutil.Process) -> bytes:
    require_view_of_services()
    return Path(f"/proc/{process.pid}/environ").read_bytes()


@linux
@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_key_leaves_the_environment(start_service: Callable[..., Service], workers: str) -> None:
    """Of each process, also of a worker that replaces a lost one; what is no secret stays."""
    key = new_key()
    env = {"MACP_AUTH_SIGNING_KEY_JSON": key, "MACP_AUTH_SIGNING_KID": json.loads(key)["kid"]}
    service = start_service({**env, "MACP_AUTH_WORKERS": workers})
    if workers != "1":
        lost = workers_of(service)[0]
        lost.kill()
        wait_until(lambda: len(set(workers_of(service)) - {lost}) == int(workers), within=30, what="another")
    environments = [environment_of(process) for process in family(service)]
    assert len(environments) >= int(workers)
    for found in environments:
        assert json.loads(key)["d"].encode() not in found
        assert b"MACP_AUTH_SIGNING_KID=" in found


@linux
def test_a_token_of_vault_leaves_the_environment(start_service: Callable[..., Service]) -> None:
    """By either of its names; other variables stay."""
    env = {
        "MACP_AUTH_SIGNER": "vault-transit",
        "MACP_AUTH_VAULT_KEY": "k",
        "VAULT_ADDR": "http://127.0.0.1:9",
    }
    service = start_service({**env, "VAULT_TOKEN": "hvs.of-vault", "AWS_SECRET_ACCESS_KEY": "of-aws"})
    [found] = [environment_of(process) for process in family(service)]
    assert b"hvs.of-vault" not in found
    assert b"AWS_SECRET_ACCESS_KEY=of-aws" in found


@linux
def test_secrets_of_signers_that_are_not_selected_leave_the_environment(
    start_service: Callable[..., Service],
) -> None:
    """A migration may leave them set: the key that was, and the token of a Vault."""
    key = new_key()
    env = {"MACP_AUTH_SIGNER": "ephemeral", "MACP_AUTH_SIGNING_KEY_JSON": key, "VAULT_TOKEN": "hvs.of-vault"}
    service = start_service({**env, "MACP_AUTH_VAULT_SECRET_ID": "of-approle", "MACP_AUTH_WORKERS": "2"})
    environments = [environment_of(process) for process in family(service)]
    assert len(environments) >= 2
    for found in environments:
        assert not any(
            secret in found for secret in (json.loads(key)["d"].encode(), b"hvs.of-vault", b"of-approle")
        )


@pytest.mark.parametrize("workers", ["1", "2"])
def test_no_core_dump(start_service: Callable[..., Service], workers: str) -> None:
    """The limit is 0, and no process can raise it."""
    service = start_service({"MACP_AUTH_WORKERS": workers})
    for process in family(service):
        assert process.rlimit(resource.RLIMIT_CORE) == (0, 0)


@linux
def test_the_memory_is_closed() -> None:
    """As the kernel reports for the process, for any user."""
    ask = "print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), resource.getrlimit(resource.RLIMIT_CORE))"
    code = f"import ctypes, resource; from macp_auth.entrypoints.custody import close_memory; {ask}"
    run = [sys.executable, "-c", f"{code}; close_memory(); {ask}"]
    before, after = subprocess.run(
        run, capture_output=True, text=True, check=True, timeout=60
    ).stdout.splitlines()
    assert before.startswith("1 ")
    assert after == "0 (0, 0)"


@pytest.fixture
def service_of_nobody(tmp_path: Path) -> Iterator[Callable[[dict[str, str]], Any]]:
    """Starts a service as the user that owns nothing, with another process of that user's."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root can start it as another user")
    try:
        python = [sys.executable, "-c", "import macp_auth"]
        subprocess.run(python, user=NOBODY, group=NOBODY, extra_groups=[], check=True, timeout=60)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip(f"the user {NOBODY} can't run {sys.executable}: install Python outside of root's home")
    started: list[subprocess.Popen[bytes]] = []

    def start(env: dict[str, str]) -> tuple[psutil.Process, int]:
        port = free_port()
        with (tmp_path / "nobody.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "macp_auth", "serve", "--port", str(port)],
                env=clean_environment(env), user=NOBODY, group=NOBODY, extra_groups=[],
                stdout=log, stderr=log, cwd="/",
            )  # fmt: skip
        started.append(process)
        return psutil.Process(process.pid), port

    yield start
    for process in started:
        process.terminate()
        process.wait(20)


READ_MEMORY = """
import sys
for pid in sys.argv[1:]:
    for name in ("mem", "environ", "maps"):
        try:
            open(f"/proc/{pid}/{name}", "rb").read(1)
        except PermissionError:
            continue
        except OSError:
            pass  # it could be opened
        print(pid, name)
"""


@pytest.mark.parametrize("workers", ["1", "2"])
def test_another_process_of_the_user_can_not_read_the_memory(
    service_of_nobody: Callable[[dict[str, str]], tuple[psutil.Process, int]], workers: str
) -> None:
    """A service of a user that is not root works, and is closed to that user's other processes."""
    metrics = free_port()
    process, port = service_of_nobody({"MACP_AUTH_WORKERS": workers, "MACP_AUTH_METRICS_PORT": str(metrics)})
    client = Service.__new__(Service)
    client.port, client.url = port, f"http://127.0.0.1:{port}"

    def mints() -> bool:
        try:
            return bool(client.mint()["token"])
        except OSError:
            return False

    wait_until(mints, within=30, what="a token")
    holders = [process, *(each for each in process.children() if "spawn_main" in " ".join(each.cmdline()))]
    assert len(holders) == (1 if workers == "1" else 3)
    run = subprocess.run(
        [sys.executable, "-c", READ_MEMORY, *(str(each.pid) for each in holders)],
        user=NOBODY, group=NOBODY, extra_groups=[], capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert run.stdout == ""
