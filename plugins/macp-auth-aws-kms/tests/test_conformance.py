"""The host's conformance kit, with a key of either algorithm.

moto runs in this process, so that it can be stopped, can hang, and signs digests as KMS does.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import socket
import threading
from collections.abc import Collection, Iterator
from typing import Any

import boto3  # type: ignore[import-untyped]  # boto3 has no types
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from moto.core.exceptions import JsonRESTError
from moto.kms.responses import KmsResponse
from moto.server import ThreadedMotoServer

from macp_auth.testing import SignerSubject
from macp_auth.testing.suite import SignerConformance
from macp_auth_aws_kms import macp_auth_signer

pytestmark = pytest.mark.slow  # the whole kit on a server of moto

MAX_RAW_BYTES = 4096

ANSWERS = threading.Event()
"""Cleared while KMS hangs."""
REFUSES = threading.Event()
"""Set while the policy of the keys refuses to sign."""
GARBLES = threading.Event()
"""Set while what answers is not KMS."""


class KMS:
    """moto, with a switch; what it holds outlives its stop."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self._port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self._server: ThreadedMotoServer | None = None

    def start(self) -> None:
        if self._server is None:
            self._server = ThreadedMotoServer("127.0.0.1", self._port, verbose=False)
            self._server.start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop()
            self._server = None


def sign(response: KmsResponse) -> str:
    """Sign as the API reference has it; moto hashes a digest once more, and any length."""
    assert ANSWERS.wait(60)
    if REFUSES.is_set():
        raise JsonRESTError("AccessDeniedException", "not authorized to perform: kms:Sign")
    if GARBLES.is_set():
        return "<html>502 Bad Gateway</html>"
    key = response.kms_backend.describe_key(response._get_param("KeyId"))
    message, digest = response._get_param("Message"), response._get_param("MessageType") == "DIGEST"
    assert digest or len(message) <= MAX_RAW_BYTES
    algorithm = Prehashed(hashes.SHA256()) if digest else hashes.SHA256()
    private: Any = vars(key.private_key)["private_key"]
    form = (ec.ECDSA(algorithm),) if key.key_spec.startswith("ECC") else (padding.PKCS1v15(), algorithm)
    signature = private.sign(message, *form)
    return json.dumps({"KeyId": key.arn, "Signature": base64.b64encode(signature).decode()})


class Subject(SignerSubject):
    """Two aliases, of which one can be moved to a new key."""

    def __init__(self, kms: KMS, admin: Any, spec: str) -> None:
        names = [f"alias/{os.urandom(8).hex()}" for _ in range(2)]
        variables = {
            "MACP_AUTH_AWS_KMS_KEYS": ",".join(names),
            "MACP_AUTH_AWS_KMS_ENDPOINT_URL": kms.url,
            "MACP_AUTH_AWS_KMS_TIMEOUT_SECONDS": "10",  # moto shares two cores with much else
            "AWS_REGION": "eu-central-1",
        }
        super().__init__(macp_auth_signer(), variables)
        self._kms, self._admin, self._spec = kms, admin, spec
        first = self._new_key()
        for name in names:
            admin.create_alias(AliasName=name, TargetKeyId=first)
        self._older = names[0]

    def _new_key(self) -> str:
        metadata = self._admin.create_key(KeySpec=self._spec, KeyUsage="SIGN_VERIFY")["KeyMetadata"]
        return str(metadata["KeyId"])

    async def rotate(self) -> None:
        key = await asyncio.to_thread(self._new_key)
        await asyncio.to_thread(self._admin.update_alias, AliasName=self._older, TargetKeyId=key)

    async def break_backend(self) -> None:
        await asyncio.to_thread(self._kms.stop)

    async def hang_backend(self) -> None:
        ANSWERS.clear()

    async def refuse_backend(self) -> None:
        REFUSES.set()

    async def garble_backend(self) -> None:
        GARBLES.set()

    async def restore_backend(self) -> None:
        ANSWERS.set()
        REFUSES.clear()
        GARBLES.clear()
        await asyncio.to_thread(self._kms.start)

    def secrets(self) -> Collection[str]:
        return [os.environ["AWS_SECRET_ACCESS_KEY"]]


@pytest.fixture(scope="module")
def kms() -> Iterator[KMS]:
    kms = KMS()
    kms.start()
    yield kms
    kms.stop()


class TestAWSKMS(SignerConformance):
    """Each check of the kit is one test."""

    @pytest.fixture(params=["RSA_2048", "ECC_NIST_P256"])
    def subject(
        self, kms: KMS, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
    ) -> Iterator[SignerSubject]:
        ANSWERS.set()
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "must-be-seen-nowhere")
        monkeypatch.setattr(KmsResponse, "sign", sign)
        admin = boto3.session.Session().client("kms", region_name="eu-central-1", endpoint_url=kms.url)
        yield Subject(kms, admin, request.param)
        admin.close()
