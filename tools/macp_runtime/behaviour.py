"""Records what the whole runtime does with our tokens: python -m tools.macp_runtime.behaviour.

It builds ``macp-runtime``, which takes cargo, protoc and minutes, starts it beside our service, and asks
it with the Python SDK. No test does this: tests hold docs/integration.md to what was recorded. An argument
is the path of a ``macp-runtime`` that is built already.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from macp_sdk import AuthConfig, DecisionSession, MacpClient
from macp_sdk.errors import MacpAckError, MacpTransportError

from tools.support.repository import ROOT
from tools.support.service import Service, free_port, wait_until

VERSION = "0.13.0"
RECORDED = ROOT / "tests/data/runtime-behaviour.json"
DECISION = "macp.mode.decision.v1"
SENDER = "macp-playground"
LEEWAY_SECONDS = 60
START_SECONDS = 30
# Of a length and letters at which the runtime, which decodes it as ordinary base64, finds the same secret.
_OCT = {"kty": "oct", "kid": "shared", "k": base64.urlsafe_b64encode(b"k" * 33).decode().rstrip("=")}
Answers = dict[str, str]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        program = Path(sys.argv[1]) if sys.argv[1:] else _build(Path(folder))
        answers = _ask_everything(program, Path(folder))
    record = {
        "asked": f"macp-runtime {VERSION}, with macp-sdk-python and tokens of macp-auth",
        "answers": answers,
    }
    RECORDED.write_text(json.dumps(record, indent=2) + "\n")


def _build(folder: Path) -> Path:
    subprocess.run(
        ["cargo", "install", "macp-runtime", "--version", VERSION, "--bin", "macp-runtime", "--root", folder],
        check=True,
    )
    return folder / "bin" / "macp-runtime"


def _ask_everything(program: Path, folder: Path) -> Answers:
    with Service(folder, {"MACP_AUTH_SIGNING_ALG": "ES256"}) as service:
        jwt = {
            "MACP_AUTH_ISSUER": "macp-auth-service",
            "MACP_AUTH_JWKS_URL": f"{service.url}/.well-known/jwks.json",
        }
        with _runtime(program, folder, jwt) as target:
            answers = _tokens(service, target) | _scopes(service, target) | _open_stream(service, target)
        with _runtime(program, folder, jwt | {"MACP_MESSAGE_LIMIT_PER_MINUTE": "3"}) as target:
            answers |= _rates(service, target)
        answers |= _https(service, program, folder)
    return answers | _starts(program, folder, jwt) | _shared_secret(program, folder)


@contextmanager
def _runtime(program: Path, folder: Path, env: dict[str, str], *, insecure: str = "1") -> Iterator[str]:
    port = free_port()
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MACP_")}
    ours = {"MACP_BIND_ADDR": f"127.0.0.1:{port}", "MACP_MEMORY_ONLY": "1", "MACP_ALLOW_INSECURE": insecure}
    with (folder / f"runtime-{port}.log").open("wb") as log:
        process = subprocess.Popen(
            [program],
            env=inherited | ours | env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=folder,
        )
    target = f"127.0.0.1:{port}"

    def up() -> bool:
        if process.poll() is not None:
            raise RuntimeError(Path(log.name).read_text())
        return _answer(lambda: _client(target, "x").initialize()) == "accepted"

    try:
        wait_until(up, within=START_SECONDS, what="the runtime answers")
        yield target
    finally:
        process.terminate()
        process.wait(START_SECONDS)


def _answer(call: Callable[[], Any]) -> str:
    """``accepted``, ``Ack <code>`` or ``status <code>``: what a caller sees."""
    try:
        call()
    except (MacpAckError, MacpTransportError, grpc.RpcError) as refused:
        # The SDK makes the same error of an Ack that refuses and of a call that is refused.
        call_refused = refused if isinstance(refused, grpc.RpcError) else refused.__cause__
        if isinstance(call_refused, grpc.RpcError):
            return f"status {call_refused.code().name}"
        return (
            f"Ack {refused.failure.code}" if isinstance(refused, MacpAckError) else f"status {refused.code}"
        )
    return "accepted"


def _client(target: str, token: str) -> MacpClient:
    return MacpClient(target=target, allow_insecure=True, auth=AuthConfig.for_bearer(token))


def _start(client: MacpClient) -> DecisionSession:
    session = DecisionSession(client)
    session.start(intent="try", participants=[SENDER, "risk-agent"], ttl_ms=600_000, sender=SENDER)
    return session


def _signal(client: MacpClient, sender: str = SENDER) -> None:
    client.send_signal(signal_type="try", data=b"x", correlation_session_id="x", sender=sender)


def _tokens(service: Service, target: str) -> Answers:
    good = service.mint(sender=SENDER)["token"]
    return {
        "a good token": _answer(_client(target, good).list_sessions),
        "a wrong token": _answer(_client(target, "wrong").list_sessions),
        "Initialize with a wrong token": _answer(_client(target, "wrong").initialize),
        "Send with a wrong token": _answer(lambda: _signal(_client(target, "wrong"))),
        "a sender in the message that is not the token's": _answer(
            lambda: _signal(_client(target, good), "risk-agent")
        ),
    }


def _scopes(service: Service, target: str) -> Answers:
    def with_scopes(**scopes: Any) -> MacpClient:
        return _client(target, service.mint(sender=SENDER, scopes=scopes)["token"])

    one, many = with_scopes(max_open_sessions=1), with_scopes()
    first = _answer(lambda: _start(one))
    assert first == "accepted"
    over = _answer(lambda: _start(one))
    started = {_answer(lambda: _start(many)) for _ in range(20)}
    assert started == {"accepted"}
    return {
        "a mode that allowed_modes does not name": _answer(
            lambda: _start(with_scopes(allowed_modes=["other"]))
        ),
        "SessionStart with can_start_sessions false": _answer(
            lambda: _start(with_scopes(can_start_sessions=False))
        ),
        'an ambient Signal, allowed_modes without ""': _answer(
            lambda: _signal(with_scopes(allowed_modes=[DECISION]))
        ),
        'an ambient Signal, allowed_modes with ""': _answer(
            lambda: _signal(with_scopes(allowed_modes=[DECISION, ""]))
        ),
        "an ambient Signal, allowed_modes empty": _answer(lambda: _signal(with_scopes(allowed_modes=[]))),
        "a session over max_open_sessions": over,
        "20 sessions, max_open_sessions absent": started.pop(),
    }


def _open_stream(service: Service, target: str) -> Answers:
    minted = service.mint(sender=SENDER, ttl_seconds=1)
    client = _client(target, minted["token"])
    session = _start(client)
    stream = client.open_stream()
    stream.send_subscribe(session.session_id)
    assert stream.read(START_SECONDS)
    time.sleep(1 + LEEWAY_SECONDS + 3)
    fresh = DecisionSession(
        _client(target, service.mint(sender=SENDER)["token"]), session_id=session.session_id
    )

    def over_the_stream() -> None:
        fresh.propose("p1", "option", sender=SENDER)
        assert stream.read(START_SECONDS)

    return {
        "an open stream after exp and the leeway": _answer(over_the_stream),
        "a new call with its token": _answer(client.list_sessions),
    }


def _rates(service: Service, target: str) -> Answers:
    client = _client(target, service.mint(sender=SENDER)["token"])
    session = _start(client)
    for _ in range(3):
        assert _answer(lambda: _signal(client)) == "accepted"
    stream = client.open_stream()
    stream.send(session._propose_envelope("p1", "option", sender=SENDER))
    return {
        "messages over the rate, Send": _answer(lambda: _signal(client)),
        "messages over the rate, in a stream": _answer(lambda: stream.read(START_SECONDS)),
    }


def _https(service: Service, program: Path, folder: Path) -> Answers:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/.well-known/jwks.json"
        env = {"MACP_AUTH_ISSUER": "macp-auth-service", "MACP_AUTH_JWKS_URL": url}
        with _runtime(program, folder, env) as target:
            answer = _answer(_client(target, service.mint(sender=SENDER)["token"]).list_sessions)
        connected = bool(select.select([listener], [], [], 0)[0])
    return {
        "a good token, the JWKS at an https URL": answer,
        "a connection to the https URL": "made" if connected else "none",
    }


def _starts(program: Path, folder: Path, jwt: dict[str, str]) -> Answers:
    issuer = {"MACP_AUTH_ISSUER": jwt["MACP_AUTH_ISSUER"]}

    def outcome(env: dict[str, str], insecure: str) -> str:
        try:
            with _runtime(program, folder, env, insecure=insecure) as target:
                return f"any text is a token: {_answer(_client(target, 'wrong').list_sessions)}"
        except RuntimeError as refused:
            return "does not start" if "no authentication configured" in str(refused) else str(refused)

    return {
        "issuer alone, MACP_ALLOW_INSECURE unset": outcome(issuer, ""),
        "issuer alone, MACP_ALLOW_INSECURE=1": outcome(issuer, "1"),
        "empty MACP_AUTH_JWKS_JSON beside a URL, MACP_ALLOW_INSECURE unset": outcome(
            jwt | {"MACP_AUTH_JWKS_JSON": ""}, ""
        ),
        "empty MACP_AUTH_JWKS_JSON beside a URL, MACP_ALLOW_INSECURE=1": outcome(
            jwt | {"MACP_AUTH_JWKS_JSON": ""}, "1"
        ),
    }


def _shared_secret(program: Path, folder: Path) -> Answers:
    """A token that is signed with an ``oct`` key of the JWKS."""

    def part(document: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(document).encode()).decode().rstrip("=")

    claims = {
        "sub": SENDER,
        "iss": "i",
        "aud": "macp-runtime",
        "exp": int(time.time()) + 600,
        "macp_scopes": {},
    }
    message = f"{part({'alg': 'HS256', 'kid': 'shared'})}.{part(claims)}"
    digest = hmac.digest(b"k" * 33, message.encode(), hashlib.sha256)
    token = f"{message}.{base64.urlsafe_b64encode(digest).decode().rstrip('=')}"
    env = {"MACP_AUTH_ISSUER": "i", "MACP_AUTH_JWKS_JSON": json.dumps({"keys": [_OCT]})}
    answers = {}
    for name, more in {"": {}, ", HS256 listed": {"MACP_AUTH_JWT_ALGS": "ES256,HS256"}}.items():
        with _runtime(program, folder, env | more) as target:
            answers[f"HS256 token of an oct key{name}"] = _answer(_client(target, token).list_sessions)
    return answers


if __name__ == "__main__":
    main()
