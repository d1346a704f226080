"""An AWS of our own: a moto server, in a process and on a port of its own."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import boto3  # type: ignore[import-untyped]  # boto3 has no types
import pytest

from macp_auth import Signer
from macp_auth_aws_kms import AWSKMSSettings, open_signer

REGION = "eu-central-1"
BOOT_SECONDS = 30
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_REGION": REGION,
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    "NO_PROXY": "127.0.0.1",
}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the developer's own AWS account can be reached by accident."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    """The URL of a running moto server."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for(f"{url}/moto-api/data.json", process)
        yield url
    finally:
        process.terminate()
        process.wait(10)


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + BOOT_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError("moto did not start")


@pytest.fixture
def admin(moto: str) -> Iterator[Any]:
    """The operator: a client that may do everything."""
    client = boto3.session.Session().client("kms", region_name=REGION, endpoint_url=moto)
    yield client
    client.close()


@pytest.fixture
def create_key(admin: Any) -> Callable[..., str]:
    """Makes a key and returns its id."""

    def create(spec: str = "ECC_NIST_P256", usage: str = "SIGN_VERIFY") -> str:
        key_id: str = admin.create_key(KeySpec=spec, KeyUsage=usage)["KeyMetadata"]["KeyId"]
        return key_id

    return create


@pytest.fixture
def open_kms(moto: str) -> Callable[..., Signer]:
    """Opens a signer as a worker does; on moto by default, with long timeouts."""

    def open_(keys: str, **settings: Any) -> Signer:
        defaults = {"region": REGION, "endpoint_url": moto, "timeout_seconds": 20.0}
        return open_signer(AWSKMSSettings(keys=keys, **{**defaults, **settings}))

    return open_
