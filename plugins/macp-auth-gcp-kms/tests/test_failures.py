"""Refusals, lost and garbled answers, and a Cloud KMS that is slow or away."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import grpc
import pytest

from macp_auth import Signer, SignerError, SignerMisconfigured, SignerRefused, SignerUnavailable, UnknownKid
from macp_auth_gcp_kms.kms import KMS

Failure = Callable[[Signer], SignerError]
DEADLINE = 20  # far less than Google's client waits by itself; a machine may be busy
METHODS = ["ListCryptoKeyVersions", "GetPublicKey", "AsymmetricSign"]


@pytest.mark.parametrize(
    ("status", "family", "reason"),
    [
        ("PERMISSION_DENIED", SignerRefused, "permission-denied"),
        ("UNAUTHENTICATED", SignerRefused, "credentials-refused"),
        ("NOT_FOUND", SignerRefused, "key-missing"),
        ("FAILED_PRECONDITION", SignerRefused, "key-disabled"),
        ("OUT_OF_RANGE", SignerRefused, "refused"),
        ("INVALID_ARGUMENT", SignerMisconfigured, "misconfigured"),
        ("RESOURCE_EXHAUSTED", SignerUnavailable, "throttled"),
        ("DEADLINE_EXCEEDED", SignerUnavailable, "timeout"),
        ("UNAVAILABLE", SignerUnavailable, "unavailable"),
        ("INTERNAL", SignerUnavailable, "unavailable"),
        ("UNKNOWN", SignerUnavailable, "unavailable"),
        ("UNIMPLEMENTED", SignerUnavailable, "unavailable"),
        ("ABORTED", SignerUnavailable, "unavailable"),
        ("CANCELLED", SignerUnavailable, "unavailable"),
    ],
)
@pytest.mark.parametrize("method", METHODS)
def test_each_status_has_its_error(
    *,
    method: str,
    status: str,
    family: type[SignerError],
    reason: str,
    kms: Any,
    open_kms: Callable[..., Signer],
    failure: Failure,
) -> None:
    """A status becomes the port's error and a reason; Google's text, with names of users, goes nowhere."""
    kms.create()
    kms.refuse(method, grpc.StatusCode[status], "hidden: user@example.com")
    error: BaseException | None = failure(open_kms())
    if method == "AsymmetricSign" and reason in {"key-missing", "key-disabled"}:
        # Withdrawn since the keys were read: the port's word for that makes the host read them again.
        assert isinstance(error, UnknownKid)
        error = error.__cause__
    assert isinstance(error, SignerError)
    assert type(error) is family
    assert error.reason == reason
    assert "hidden" not in "".join(traceback.format_exception(error))


@pytest.mark.parametrize("method", METHODS)
def test_one_more_attempt_and_no_third(
    method: str,
    kms: Any,
    open_kms: Callable[..., Signer],
    failure: Failure,
    read_and_sign: Callable[..., bytes],
) -> None:
    """A single failure of Cloud KMS is not noticed; the second is, and at once."""
    kms.create()
    kms.refuse(method, grpc.StatusCode.UNAVAILABLE, times=1)
    assert len(read_and_sign(open_kms())) == 64
    kms.refuse(method, grpc.StatusCode.UNAVAILABLE)
    assert failure(open_kms()).reason == "unavailable"
    assert len(kms.asked(method)) == 4


def test_lost_call_is_repeated_within_the_timeout(
    kms: Any, open_kms: Callable[..., Signer], read_and_sign: Callable[[Signer], bytes]
) -> None:
    """Of two attempts, the first of which gets no answer, the second is in time."""
    kms.create()
    lost = threading.Event()

    def lose_one(request: Any) -> Any:
        if len(kms.asked("AsymmetricSign")) == 1:
            lost.wait(30)
        return kms.answer("AsymmetricSign", request)

    kms.replace("AsymmetricSign", lose_one)
    try:
        assert read_and_sign(open_kms(timeout_seconds=2.0))
    finally:
        lost.set()


@pytest.mark.parametrize(
    ("method", "damage"),
    [
        ("GetPublicKey", {"pem_crc32c": 1}),
        ("GetPublicKey", {"pem_crc32c": None}),
        ("GetPublicKey", {"name": "projects/other"}),
        ("AsymmetricSign", {"signature_crc32c": 1}),
        ("AsymmetricSign", {"signature": b"other"}),
        ("AsymmetricSign", {"verified_digest_crc32c": False}),
        ("AsymmetricSign", {"name": "projects/other"}),
    ],
)
def test_answer_damaged_on_its_way(
    method: str, damage: dict[str, Any], kms: Any, open_kms: Callable[..., Signer], failure: Failure
) -> None:
    """Names and checksums are compared, as Google asks of its clients; the call is repeated once."""
    kms.create()

    def damaged(request: Any) -> Any:
        answer = kms.answer(method, request)
        for field, value in damage.items():
            setattr(answer, field, value)
        return answer

    kms.replace(method, damaged)
    error = failure(open_kms())
    assert (type(error), error.reason) == (SignerUnavailable, "corrupted")
    assert len(kms.asked(method)) == 2


def test_digest_is_sent_with_its_checksum(
    kms: Any, open_kms: Callable[..., Signer], failure: Failure
) -> None:
    """Cloud KMS refuses a digest that was damaged on its way."""
    kms.create()

    def damaged(request: Any) -> Any:
        request.digest.sha256 = bytes(32)
        return kms.answer("AsymmetricSign", request)

    kms.replace("AsymmetricSign", damaged)
    assert failure(open_kms()).reason == "misconfigured"


@pytest.mark.parametrize("method", METHODS)
def test_bytes_that_are_no_answer(
    method: str, kms: Any, open_kms: Callable[..., Signer], failure: Failure
) -> None:
    """Such as the error page of a proxy."""
    kms.create()
    kms.garble(method)
    error = failure(open_kms())
    assert (type(error), error.reason) == (SignerUnavailable, "unavailable")


def test_public_key_that_is_none(kms: Any, open_kms: Callable[..., Signer], failure: Failure) -> None:
    """It becomes an error of the port, not one of Python's."""
    kms.create()

    def empty(request: Any) -> Any:
        answer = kms.answer("GetPublicKey", request)
        answer.pem, answer.pem_crc32c = "", 0
        return answer

    kms.replace("GetPublicKey", empty)
    assert failure(open_kms()).reason == "bad-answer"


def test_unreachable(kms: Any, open_kms: Callable[..., Signer], failure: Failure) -> None:
    """Without a listener, the error comes at once."""
    kms.stop()
    began = time.monotonic()
    error = failure(open_kms(timeout_seconds=30.0))
    assert (type(error), error.reason) == (SignerUnavailable, "unavailable")
    assert time.monotonic() - began < DEADLINE


def test_kms_that_never_answers(open_kms: Callable[..., Signer], failure: Failure) -> None:
    """Who connects, and waits, gives up within the timeout, the second attempt included."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        error = failure(open_kms(endpoint=url, timeout_seconds=1.8))
    assert (type(error), error.reason) == (SignerUnavailable, "timeout")
    assert time.monotonic() - began < DEADLINE


def test_wait_ends_whatever_the_client_does(
    kms: Any, open_kms: Callable[..., Signer], failure: Failure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that does not keep its own limits, as when it fetches a token, is waited for no longer."""
    kms.create()
    monkeypatch.setattr(KMS, "sign", lambda *_: time.sleep(10))
    began = time.monotonic()
    assert failure(open_kms(timeout_seconds=0.6)).reason == "timeout"
    assert time.monotonic() - began < 10


def test_stuck_signatures_do_not_delay_reads(kms: Any, open_kms: Callable[..., Signer]) -> None:
    """With 64 signatures stuck, one more fails at once, and the keys can be read; closing ends them."""
    kms.create()
    stuck = threading.Event()
    kms.replace("AsymmetricSign", lambda _: stuck.wait(30))

    async def crowd() -> None:
        signer = open_kms()
        (version,) = await signer.key_versions()
        waiting = [asyncio.create_task(signer.sign(version.kid, b"x")) for _ in range(64)]
        await asyncio.sleep(0)  # they begin
        with pytest.raises(SignerUnavailable) as busy:
            await signer.sign(version.kid, b"x")
        assert busy.value.reason == "busy"
        assert await signer.key_versions() == [version]
        await signer.aclose()
        ended = await asyncio.gather(*waiting, return_exceptions=True)
        assert {str(error) for error in ended} == {"the signer is closed"}

    try:
        asyncio.run(crowd())
    finally:
        stuck.set()
    deadline = time.monotonic() + DEADLINE
    while any(thread.name == "gcp-kms" for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_closed_signer(kms: Any, open_kms: Callable[..., Signer]) -> None:
    """It says so, and may be closed again."""
    kms.create()

    async def close() -> None:
        signer = open_kms()
        (version,) = await signer.key_versions()
        await signer.aclose()
        await signer.aclose()
        for call in (signer.key_versions(), signer.sign(version.kid, b"x")):
            with pytest.raises(SignerUnavailable, match="closed"):
                await call

    asyncio.run(close())


def test_no_credentials(
    open_kms: Callable[..., Signer], failure: Failure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The chain of Application Default Credentials ends without any."""
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS")
    error = failure(open_kms(endpoint=None))
    assert (type(error), error.reason) == (SignerUnavailable, "no-credentials")


class TokenEndpoint(BaseHTTPRequestHandler):
    """Refuses to exchange a token, and repeats what it was sent, as some do."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        answer = json.dumps({"error": "invalid_grant", "error_description": body.decode()}).encode()
        self.send_response(400)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def token_endpoint() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), TokenEndpoint) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/token"
        server.shutdown()
        thread.join()


def test_credentials_that_are_refused(
    *,
    google: Any,
    token_endpoint: str,
    tmp_path: Path,
    open_kms: Callable[..., Signer],
    failure: Failure,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Workload identity federation whose token is refused; the token is seen nowhere."""
    (tmp_path / "token").write_text("secret-of-the-workload")
    configuration = {
        "type": "external_account",
        "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/a/providers/b",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": token_endpoint,
        "credential_source": {"file": str(tmp_path / "token")},
    }
    (tmp_path / "adc.json").write_text(json.dumps(configuration))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "adc.json"))
    caplog.set_level(logging.INFO)
    with google.kms() as kms:
        error = failure(open_kms(endpoint=kms.url))
    assert (type(error), error.reason) == (SignerUnavailable, "no-credentials")
    assert "secret-of-the-workload" not in "".join(traceback.format_exception(error)) + caplog.text
