"""What moto can't play: digests, quotas, refusals, a KMS that is slow or away. A stub does, as documented."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import aclosing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from macp_auth import Signer, SignerError, SignerMisconfigured, SignerRefused, SignerUnavailable, UnknownKid
from macp_auth_aws_kms import kms

pytestmark = pytest.mark.slow  # many answers of a moto server

Answer = tuple[int, dict[str, Any]]
ARN = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
KEY = ec.generate_private_key(ec.SECP256R1())
DEADLINE = 20  # far less than boto waits by itself; the default timeout is 1.8 s, and a machine may be busy


def describe(_request: dict[str, Any]) -> Answer:
    metadata = {"Arn": ARN, "KeyId": ARN[-36:], "CreationDate": 1_700_000_000.0, "KeyState": "Enabled"}
    return 200, {"KeyMetadata": {**metadata, "KeySpec": "ECC_NIST_P256", "KeyUsage": "SIGN_VERIFY"}}


def public_key(_request: dict[str, Any]) -> Answer:
    der = KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return 200, {"KeyId": ARN, "PublicKey": base64.b64encode(der).decode()}


def sign(request: dict[str, Any]) -> Answer:
    """As the API reference has it: RAW up to 4096 bytes is hashed, DIGEST is 32 bytes and is not."""
    message = base64.b64decode(request["Message"])
    if len(message) > (4096 if request["MessageType"] == "RAW" else 32):
        return 400, {"__type": "ValidationException"}
    sha256 = hashes.SHA256()
    algorithm = ec.ECDSA(Prehashed(sha256) if request["MessageType"] == "DIGEST" else sha256)
    return 200, {"KeyId": ARN, "Signature": base64.b64encode(KEY.sign(message, algorithm)).decode()}


class StubKMS(ThreadingHTTPServer):
    """Answers each operation as configured, and counts."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.answers: dict[str, Callable[[dict[str, Any]], Answer]] = {
            "DescribeKey": describe,
            "GetPublicKey": public_key,
            "Sign": sign,
        }
        self.requests: list[tuple[str, dict[str, Any]]] = []

    def asked(self, operation: str) -> list[dict[str, Any]]:
        return [request for asked, request in self.requests if asked == operation]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: StubKMS

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        operation = self.headers["x-amz-target"].removeprefix("TrentService.")
        self.server.requests.append((operation, request))
        status, answer = self.server.answers[operation](request)
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.send_header("x-amzn-requestid", "request-7")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def stub() -> Iterator[StubKMS]:
    with StubKMS() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def read_and_sign(signer: Signer, signing_input: bytes = b"x") -> bytes:
    async def run() -> bytes:
        async with aclosing(signer):
            (version,) = await signer.key_versions()
            return await signer.sign(version.kid, signing_input)

    return asyncio.run(run())


def failure(signer: Signer) -> SignerError:
    with pytest.raises(SignerError) as error:
        read_and_sign(signer)
    return error.value


@pytest.mark.parametrize(("length", "kind"), [(4096, "RAW"), (4097, "DIGEST"), (8192, "DIGEST")])
def test_long_input_is_sent_as_a_digest(
    length: int, kind: str, stub: StubKMS, open_kms: Callable[..., Signer]
) -> None:
    """Beyond what KMS hashes itself, the digest is sent; the signature is of the whole input either way."""
    signing_input = b"x" * length
    signature = read_and_sign(open_kms(ARN, endpoint_url=stub.url), signing_input)
    der = encode_dss_signature(int.from_bytes(signature[:32]), int.from_bytes(signature[32:]))
    KEY.public_key().verify(der, signing_input, ec.ECDSA(hashes.SHA256()))
    (request,) = stub.asked("Sign")
    assert request["MessageType"] == kind
    assert request["KeyId"] == ARN  # not an alias: that could have moved since


def test_public_key_is_asked_for_once(stub: StubKMS, open_kms: Callable[..., Signer]) -> None:
    """Every read describes the key again, for its state; its public key is cached."""

    async def read_thrice() -> None:
        async with aclosing(open_kms(ARN, endpoint_url=stub.url)) as signer:
            for _ in range(3):
                await signer.key_versions()

    asyncio.run(read_thrice())
    assert (len(stub.asked("DescribeKey")), len(stub.asked("GetPublicKey"))) == (3, 1)


@pytest.mark.parametrize(
    ("status", "code", "family", "reason"),
    [
        (400, "AccessDeniedException", SignerRefused, "permission-denied"),
        (400, "NotFoundException", SignerRefused, "key-missing"),
        (400, "DisabledException", SignerRefused, "key-disabled"),
        (400, "KMSInvalidStateException", SignerRefused, "key-disabled"),
        (400, "InvalidSignatureException", SignerRefused, "credentials-refused"),
        (400, "UnheardOfException", SignerRefused, "refused"),
        (400, "InvalidKeyUsageException", SignerMisconfigured, "misconfigured"),
        (400, "ThrottlingException", SignerUnavailable, "throttled"),
        (500, "KMSInternalException", SignerUnavailable, "unavailable"),
        (503, "ServiceUnavailable", SignerUnavailable, "unavailable"),
    ],
)
@pytest.mark.parametrize("operation", ["DescribeKey", "GetPublicKey", "Sign"])
def test_each_answer_has_its_error(
    *,
    operation: str,
    status: int,
    code: str,
    family: type[SignerError],
    reason: str,
    stub: StubKMS,
    open_kms: Callable[..., Signer],
) -> None:
    """A code becomes the port's error and a reason; KMS's own text, which may hold a token, goes nowhere."""
    stub.answers[operation] = lambda _: (status, {"__type": code, "message": "x-amz-security-token:hidden"})
    error: BaseException | None = failure(open_kms(ARN, endpoint_url=stub.url))
    if operation == "Sign" and reason in {"key-missing", "key-disabled"}:
        # Withdrawn since the keys were read: the port's word for that makes the host read them again.
        assert isinstance(error, UnknownKid)
        error = error.__cause__
    assert isinstance(error, SignerError)
    assert type(error) is family
    assert error.reason == reason
    assert f"{operation} answered {code} (request request-7)" in str(error)
    assert "hidden" not in "".join(traceback.format_exception(error))
    assert ARN not in str(error)


def test_one_more_attempt_and_no_third(stub: StubKMS, open_kms: Callable[..., Signer]) -> None:
    """A single failure of KMS is not noticed; the second is, and at once."""
    answers = iter([(500, {"__type": "KMSInternalException"})])
    stub.answers["Sign"] = lambda request: next(answers, None) or sign(request)
    assert len(read_and_sign(open_kms(ARN, endpoint_url=stub.url))) == 64
    stub.answers["Sign"] = lambda _: (500, {"__type": "KMSInternalException"})
    assert failure(open_kms(ARN, endpoint_url=stub.url)).reason == "unavailable"
    assert len(stub.asked("Sign")) == 4


@pytest.mark.parametrize(
    "answer",
    [{}, {"Signature": ""}, {"Signature": "AAAA"}, {"Signature": 7}],
    ids=["none", "empty", "bytes", "number"],
)
def test_answer_that_is_no_signature(
    answer: dict[str, Any], stub: StubKMS, open_kms: Callable[..., Signer]
) -> None:
    """It becomes an error of the port, not one of Python's."""
    stub.answers["Sign"] = lambda _: (200, answer)
    failure(open_kms(ARN, endpoint_url=stub.url))


@pytest.mark.parametrize("state", ["Disabled", "PendingDeletion", "PendingImport", "Creating"])
def test_states_in_which_a_key_is_not_offered(
    state: str, stub: StubKMS, open_kms: Callable[..., Signer]
) -> None:
    """Only an enabled key is offered."""
    stub.answers["DescribeKey"] = lambda request: _with_state(request, state)
    assert failure(open_kms(ARN, endpoint_url=stub.url)).reason == "key-disabled"


def test_key_whose_primary_region_changes_stays(stub: StubKMS, open_kms: Callable[..., Signer]) -> None:
    """KMS says that it signs on, so it must not be withdrawn for some seconds."""
    stub.answers["DescribeKey"] = lambda request: _with_state(request, "Updating")
    assert read_and_sign(open_kms(ARN, endpoint_url=stub.url))


def _with_state(request: dict[str, Any], state: str) -> Answer:
    status, answer = describe(request)
    return status, {"KeyMetadata": {**answer["KeyMetadata"], "KeyState": state}}


def test_unreachable(open_kms: Callable[..., Signer]) -> None:
    """Without a listener, the error comes at once."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    began = time.monotonic()
    error = failure(open_kms(ARN, endpoint_url=f"http://127.0.0.1:{port}", timeout_seconds=1.8))
    assert (type(error), error.reason) == (SignerUnavailable, "unreachable")
    assert time.monotonic() - began < DEADLINE


def test_kms_that_never_answers(open_kms: Callable[..., Signer]) -> None:
    """Who connects, and waits, gives up within the timeout, the second attempt included."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        error = failure(open_kms(ARN, endpoint_url=url, timeout_seconds=1.8))
    assert (type(error), error.reason) == (SignerUnavailable, "timeout")
    assert time.monotonic() - began < DEADLINE


def test_wait_ends_whatever_the_client_does(
    stub: StubKMS, open_kms: Callable[..., Signer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that does not keep its own limits, as when it fetches credentials, is waited for no longer."""
    monkeypatch.setattr(kms.KMS, "sign", lambda *_: time.sleep(10))
    began = time.monotonic()
    assert failure(open_kms(ARN, endpoint_url=stub.url, timeout_seconds=0.6)).reason == "timeout"
    assert time.monotonic() - began < 10


def test_no_more_calls_than_may_be(stub: StubKMS, open_kms: Callable[..., Signer]) -> None:
    """With KMS stuck, two of three signatures wait; the third fails at once, and the keys can still be read.

    When KMS works again, so does everything.
    """
    go_on = threading.Event()

    def stuck(request: dict[str, Any]) -> Answer:
        go_on.wait(30)
        return sign(request)

    stub.answers["Sign"] = stuck

    async def crowd() -> None:
        async with aclosing(open_kms(ARN, endpoint_url=stub.url, max_calls=2)) as signer:
            (version,) = await signer.key_versions()
            waiting = [asyncio.create_task(signer.sign(version.kid, b"x")) for _ in range(2)]
            await asyncio.sleep(0)  # they begin
            began = time.monotonic()
            with pytest.raises(SignerUnavailable) as busy:
                await signer.sign(version.kid, b"x")
            assert busy.value.reason == "busy"
            assert time.monotonic() - began < DEADLINE
            assert await signer.key_versions() == [version]
            go_on.set()
            assert [len(signature) for signature in await asyncio.gather(*waiting)] == [64, 64]
            assert await signer.sign(version.kid, b"x")

    asyncio.run(crowd())


def test_caller_who_gives_up_frees_no_thread(stub: StubKMS, open_kms: Callable[..., Signer]) -> None:
    """A request that was cancelled counts until KMS answers: else abandoned calls would pile up."""
    asked, go_on = threading.Event(), threading.Event()

    def stuck(request: dict[str, Any]) -> Answer:
        asked.set()
        go_on.wait(30)
        return sign(request)

    stub.answers["Sign"] = stuck

    async def give_up() -> None:
        async with aclosing(open_kms(ARN, endpoint_url=stub.url, max_calls=1)) as signer:
            (version,) = await signer.key_versions()
            abandoned = asyncio.create_task(signer.sign(version.kid, b"x"))
            await asyncio.to_thread(asked.wait, 30)
            abandoned.cancel()
            await asyncio.wait([abandoned])
            with pytest.raises(SignerUnavailable) as busy:
                await signer.sign(version.kid, b"x")
            assert busy.value.reason == "busy"
            go_on.set()

    asyncio.run(give_up())


def test_closing_ends_what_is_under_way(stub: StubKMS, open_kms: Callable[..., Signer]) -> None:
    """A caller that waits for a hanging KMS gets the error as soon as the signer is closed."""
    asked, go_on = threading.Event(), threading.Event()

    def stuck(request: dict[str, Any]) -> Answer:
        asked.set()
        go_on.wait(30)
        return sign(request)

    stub.answers["Sign"] = stuck

    async def close() -> None:
        signer = open_kms(ARN, endpoint_url=stub.url)
        (version,) = await signer.key_versions()
        signing = asyncio.create_task(signer.sign(version.kid, b"x"))
        await asyncio.to_thread(asked.wait, 30)
        await signer.aclose()
        with pytest.raises(SignerUnavailable, match="closed"):
            await asyncio.wait_for(signing, 1)
        go_on.set()

    asyncio.run(close())


def test_no_credentials(
    stub: StubKMS, open_kms: Callable[..., Signer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """boto3's chain ends without any."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    error = failure(open_kms(ARN, endpoint_url=stub.url))
    assert (type(error), error.reason) == (SignerUnavailable, "no-credentials")


@pytest.mark.parametrize(
    ("variable", "message"), [("AWS_REGION", "set AWS_REGION"), ("AWS_PROFILE", "unknown profile in AWS")]
)
def test_aws_set_up_that_cannot_work(
    variable: str, message: str, open_kms: Callable[..., Signer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The remedy is in the text."""
    monkeypatch.delenv("AWS_REGION")
    if variable == "AWS_PROFILE":
        monkeypatch.setenv(variable, "missing")
    with pytest.raises(SignerMisconfigured, match=message):
        read_and_sign(open_kms(ARN, region=None))


def test_closed_signer(stub: StubKMS, open_kms: Callable[..., Signer]) -> None:
    """It says so, and may be closed again; no thread is left behind."""

    async def close() -> None:
        signer = open_kms(ARN, endpoint_url=stub.url)
        (version,) = await signer.key_versions()
        await signer.aclose()
        await signer.aclose()
        for call in (signer.key_versions(), signer.sign(version.kid, b"x")):
            with pytest.raises(SignerUnavailable, match="closed"):
                await call

    asyncio.run(close())
    deadline = time.monotonic() + DEADLINE
    while any(thread.name.startswith("aws-kms") for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
