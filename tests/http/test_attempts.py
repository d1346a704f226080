"""Observers are told every mint attempt, once, before the answer, and can't spoil it."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import jwt
import pytest

from macp_auth.adapters.jose import generate
from macp_auth.adapters.signers.ephemeral import KID
from macp_auth.adapters.signers.local import LocalKey, LocalSigner
from macp_auth.application.minting import Minter
from macp_auth.domain.clock import Moment
from macp_auth.domain.errors import SignerUnavailable
from macp_auth.domain.keyring import KeyRing, MintedToken
from macp_auth.domain.keys import Algorithm
from macp_auth.domain.rotation import Timing
from macp_auth.domain.sender import SenderPolicy
from macp_auth.domain.ttl import TTLPolicy
from macp_auth.entrypoints.http.attempts import MintAttempt
from macp_auth.entrypoints.http.request_ids import identified
from macp_auth.entrypoints.http.routing import answering_errors
from macp_auth.entrypoints.http.tokens import token_app

GOOD = b'{"sender":"agent://risk","ttl_seconds":60}'


class Desk:
    """The token application alone, with observers of the test's own."""

    def __init__(self, *, open_ring: bool = True) -> None:
        self.ring = KeyRing(
            LocalSigner([LocalKey.signing(KID, generate(Algorithm.ES256))]),
            Timing(publish_lead=100, retire_lag=50),
        )
        if open_ring:
            asyncio.run(self.ring.refresh(time.time()))
        minter = Minter(
            issuer="i", audience="a", senders=SenderPolicy(None), ttl=TTLPolicy(300, 3600), keys=self.ring
        )
        self.attempts: list[MintAttempt] = []
        self.sent: list[dict[str, Any]] = []
        self.sent_before: list[int] = []
        self.app: Any = identified(
            answering_errors(
                token_app(minter, [self._spoil, self._note], now=lambda: Moment(time.time(), time.time()))
            )
        )

    def _spoil(self, _: MintAttempt) -> None:
        raise RuntimeError("an observer of another package")

    def _note(self, attempt: MintAttempt) -> None:
        self.attempts.append(attempt)
        self.sent_before.append(len(self.sent))

    def post(self, body: bytes = GOOD, content_type: str = "application/json", *, whole: bool = True) -> int:
        """The status of the answer."""
        scope = {
            "type": "http",
            "client": ("192.0.2.7", 1),
            "headers": [(b"content-type", content_type.encode())],
        }

        async def receive() -> dict[str, Any]:
            return {"type": "http.request" if whole else "http.disconnect", "body": body, "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            self.sent.append(message)

        asyncio.run(self.app(scope, receive, send))
        status: int = self.sent[-2]["status"]
        return status


def test_a_minted_token_is_told_once_before_it_is_sent() -> None:
    """With what was asked for, the token, its kid and claims; another observer's fault is none of ours."""
    desk = Desk()
    assert desk.post() == 200
    [attempt] = desk.attempts
    assert desk.sent_before == [0]
    assert isinstance(attempt.outcome, MintedToken)
    assert attempt.outcome.kid == jwt.get_unverified_header(attempt.outcome.token)["kid"] == KID
    assert attempt.outcome.claims.exp - attempt.outcome.claims.iat == 60
    assert (attempt.status, attempt.reason) == (200, None)
    assert attempt.request is not None
    assert attempt.request.sender == "agent://risk"
    assert attempt.scope["client"] == ("192.0.2.7", 1)
    assert 0 <= attempt.seconds < 10
    assert dict(desk.sent[0]["headers"])[b"x-request-id"].decode() == attempt.context.id
    assert abs(attempt.at - time.time()) < 10


@pytest.mark.parametrize(
    ("body", "status", "reason", "decoded"),
    [
        (b"{", 400, "invalid-json", False),
        (b" " * 200_000, 413, "too-large", False),
        (b"{}", 400, "invalid-sender", True),
        (b'{"sender":"a","scopes":1}', 400, "invalid-scopes", True),
        (b'{"sender":"a","ttl_seconds":0}', 400, "invalid-ttl", True),
        (b'{"sender":"a","scopes":{"x":"%s"}}' % (b"a" * 9000), 400, "token-too-large", True),
    ],
)
def test_a_refusal_is_told_once_with_its_reason(body: bytes, status: int, reason: str, decoded: bool) -> None:  # noqa: FBT001 - a row of the table
    """Also one that comes before the body is decoded."""
    desk = Desk()
    assert desk.post(body) == status
    [attempt] = desk.attempts
    assert (attempt.status, attempt.reason, attempt.request is not None) == (status, reason, decoded)


def test_what_is_refused_for_its_headers_or_its_end_is_told() -> None:
    """Refusals of the HTTP, before there is a body."""
    desk = Desk()
    assert desk.post(content_type="text/plain") == 415
    assert desk.post(whole=False) == 400
    assert [attempt.reason for attempt in desk.attempts] == ["unsupported-media-type", "cut-off"]


def test_a_signer_s_failure_is_told_with_its_own_word() -> None:
    """And with the error itself."""
    desk = Desk(open_ring=False)
    assert desk.post() == 503
    [attempt] = desk.attempts
    assert isinstance(attempt.outcome, SignerUnavailable)
    assert (attempt.status, attempt.reason) == (503, "unavailable")


def test_no_representation_shows_the_token() -> None:
    """An observer that logs what it is told leaks nothing."""
    desk = Desk()
    desk.post()
    assert "eyJ" not in repr(desk.attempts)
