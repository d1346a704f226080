"""What the real runtime does with our tokens; ``python -m tools.macp_runtime.behaviour`` records it.

docs/integration.md is held to the record, and the record to the runtime.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import select
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jwt
import msgspec
from macp_sdk import DecisionSession, MacpClient

from macp_auth.adapters import jose
from macp_auth.domain.grants import Ceiling
from macp_auth.domain.keys import Algorithm
from tools.support.bounded import HANG_SECONDS
from tools.support.macp_runtime import VERSION, MacpRuntime, outcome, verifying
from tools.support.repository import ROOT
from tools.support.service import Service, wait_until

RECORDED = ROOT / "tests/data/runtime-behaviour.json"
DECISION = "macp.mode.decision.v1"
SENDER = "macp-playground"
LEEWAY_SECONDS = 60
_REMAINING_SECONDS = 10  # of an old token: enough to open a stream on a busy machine
# Of a length and letters at which the runtime, which decodes it as ordinary base64, finds the same secret.
_OCT = {"kty": "oct", "kid": "shared", "k": base64.urlsafe_b64encode(b"k" * 33).decode().rstrip("=")}
Answers = dict[str, str]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        answers = {name: ask(Path(folder)) for name, ask in QUESTIONS.items()}
    asked = f"macp-runtime {VERSION}, with macp-sdk-python and tokens of macp-auth"
    RECORDED.write_text(json.dumps({"asked": asked, "answers": answers}, indent=2) + "\n")


@contextmanager
def _verifying_runtime(folder: Path, **env: str) -> Iterator[tuple[Service, MacpRuntime]]:
    """A service, and a runtime that has its keys."""
    with (
        Service(folder, {"MACP_AUTH_SIGNING_ALG": "ES256"}) as service,
        MacpRuntime(folder, verifying(_jwks_url(service)) | env) as runtime,
    ):
        yield service, runtime


def _jwks_url(service: Service) -> str:
    return f"{service.url}/.well-known/jwks.json"


def start_session(client: MacpClient, sender: str = SENDER) -> DecisionSession:
    session = DecisionSession(client)
    session.start(intent="try", participants=[sender, "risk-agent"], ttl_ms=600_000, sender=sender)
    return session


def send_signal(client: MacpClient, sender: str = SENDER) -> None:
    client.send_signal(signal_type="try", data=b"x", correlation_session_id="x", sender=sender)


def _tokens(folder: Path) -> Answers:
    with _verifying_runtime(folder) as (service, runtime):
        good, wrong = runtime.client(service.mint(sender=SENDER)["token"]), runtime.client("wrong")
        with good, wrong:
            return {
                "a good token": outcome(good.list_sessions),
                "a wrong token": outcome(wrong.list_sessions),
                "Initialize with a wrong token": outcome(wrong.initialize),
                "Send with a wrong token": outcome(lambda: send_signal(wrong)),
                "a sender in the message that is not the token's": outcome(
                    lambda: send_signal(good, "risk-agent")
                ),
            }


def _scopes(folder: Path) -> Answers:
    with _verifying_runtime(folder) as (service, runtime):

        def asked(call: Callable[[MacpClient], object], **scopes: Any) -> str:
            with runtime.client(service.mint(sender=SENDER, scopes=scopes)["token"]) as client:
                return outcome(lambda: call(client))

        assert asked(start_session, max_open_sessions=1) == "accepted"
        over = asked(start_session, max_open_sessions=1)
        started = {asked(start_session) for _ in range(20)}
        assert started == {"accepted"}
        return {
            "a mode that allowed_modes does not name": asked(start_session, allowed_modes=["other"]),
            "SessionStart with can_start_sessions false": asked(start_session, can_start_sessions=False),
            'an ambient Signal, allowed_modes without ""': asked(send_signal, allowed_modes=[DECISION]),
            'an ambient Signal, allowed_modes with ""': asked(send_signal, allowed_modes=[DECISION, ""]),
            "an ambient Signal, allowed_modes empty": asked(send_signal, allowed_modes=[]),
            "a session over max_open_sessions": over,
            "20 sessions, max_open_sessions absent": started.pop(),
        }


def _without_scopes(folder: Path) -> Answers:
    """What a token sees that may do nothing, of the sessions and signals of others."""
    with _verifying_runtime(folder) as (service, runtime):
        token = service.mint(sender="agent://nobody", scopes=msgspec.structs.asdict(Ceiling()))["token"]
        with (
            runtime.client(token) as nobody,
            runtime.client(service.mint(sender=SENDER)["token"]) as client,
            ThreadPoolExecutor() as threads,
        ):
            session_id = start_session(client).session_id
            sessions, signals = nobody.watch_sessions(), nobody.watch_signals()
            received = threads.submit(next, signals)

            def signalled() -> bool:
                send_signal(client)
                return received.done()

            wait_until(signalled, within=HANG_SECONDS, what="the signal")
            answers = {
                "ListSessions, every scope denied": outcome(nobody.list_sessions),
                "WatchSessions, every scope denied": outcome(lambda: next(sessions)),
                "WatchSignals, every scope denied": outcome(received.result),
                "GetSession of others, every scope denied": outcome(lambda: nobody.get_session(session_id)),
            }
            assert session_id in {session.session_id for session in nobody.list_sessions()}
            assert received.result().envelope.payload
            sessions.close()
            signals.close()
        return answers


def _open_stream(folder: Path) -> Answers:
    """With a token that ends soon: it is signed here, because the service mints none of the past."""
    key = jose.generate(Algorithm.ES256)
    with Service(folder, {"MACP_AUTH_SIGNING_KEY_JSON": json.dumps(jose.private_jwk(key))}) as service:
        fresh = service.mint(sender=SENDER)["token"]
        claims = jwt.decode(fresh, options={"verify_signature": False})
        claims["exp"] = int(time.time()) - LEEWAY_SECONDS + _REMAINING_SECONDS
        old = jwt.encode(claims, key, "ES256", headers=jwt.get_unverified_header(fresh))
        with (
            MacpRuntime(folder, verifying(_jwks_url(service))) as runtime,
            runtime.client(old) as client,
            runtime.client(fresh) as other,
        ):
            session = start_session(client)
            stream = client.open_stream()
            stream.send_subscribe(session.session_id)
            assert stream.read(HANG_SECONDS)
            unauthenticated = "status UNAUTHENTICATED"
            wait_until(
                lambda: outcome(client.list_sessions) == unauthenticated, within=HANG_SECONDS, what="its end"
            )

            def over_the_stream() -> None:
                DecisionSession(other, session_id=session.session_id).propose("p1", "option", sender=SENDER)
                assert stream.read(HANG_SECONDS)

            answers = {
                "an open stream after exp and the leeway": outcome(over_the_stream),
                "a new call with its token": outcome(client.list_sessions),
            }
            stream.cancel()
        return answers


def _rates(folder: Path) -> Answers:
    with (
        _verifying_runtime(folder, MACP_MESSAGE_LIMIT_PER_MINUTE="3") as (service, runtime),
        runtime.client(service.mint(sender=SENDER)["token"]) as client,
    ):
        session = start_session(client)
        for _ in range(3):
            assert outcome(lambda: send_signal(client)) == "accepted"
        stream = client.open_stream()
        stream.send(session._propose_envelope("p1", "option", sender=SENDER))
        return {
            "messages over the rate, Send": outcome(lambda: send_signal(client)),
            "messages over the rate, in a stream": outcome(lambda: stream.read(HANG_SECONDS)),
        }


def _https(folder: Path) -> Answers:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        Service(folder, {"MACP_AUTH_SIGNING_ALG": "ES256"}) as service,
    ):
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/.well-known/jwks.json"
        with MacpRuntime(folder, verifying(url)) as runtime:
            answer = runtime.answer_to(service.mint(sender=SENDER)["token"])
        connected = bool(select.select([listener], [], [], 0)[0])
    return {
        "a good token, the JWKS at an https URL": answer,
        "a connection to the https URL": "made" if connected else "none",
    }


def _starts(folder: Path) -> Answers:
    issuer = {"MACP_AUTH_ISSUER": "macp-auth-service"}
    empty = verifying("http://127.0.0.1:9/.well-known/jwks.json") | {"MACP_AUTH_JWKS_JSON": ""}

    def started(env: Mapping[str, str], insecure: str) -> str:
        try:
            with MacpRuntime(folder, {**env, "MACP_ALLOW_INSECURE": insecure}) as runtime:
                return f"any text is a token: {runtime.answer_to('wrong')}"
        except RuntimeError as refused:
            return "does not start" if "no authentication configured" in str(refused) else str(refused)

    return {
        "issuer alone, MACP_ALLOW_INSECURE unset": started(issuer, ""),
        "issuer alone, MACP_ALLOW_INSECURE=1": started(issuer, "1"),
        "empty MACP_AUTH_JWKS_JSON beside a URL, MACP_ALLOW_INSECURE unset": started(empty, ""),
        "empty MACP_AUTH_JWKS_JSON beside a URL, MACP_ALLOW_INSECURE=1": started(empty, "1"),
    }


def _shared_secret(folder: Path) -> Answers:
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
        with MacpRuntime(folder, env | more) as runtime:
            answers[f"HS256 token of an oct key{name}"] = runtime.answer_to(token)
    return answers


QUESTIONS: dict[str, Callable[[Path], Answers]] = {
    "tokens": _tokens,
    "scopes": _scopes,
    "without scopes": _without_scopes,
    "open stream": _open_stream,
    "rates": _rates,
    "https": _https,
    "starts": _starts,
    "shared secret": _shared_secret,
}
"""Each asks a runtime, in a folder for its logs, and returns what it answered."""


if __name__ == "__main__":
    main()
