"""Observers get every mint event once, before the response, and can't break it."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import jwt
import pytest

from macp_auth.adapters.jose import generate
from macp_auth.adapters.signers.ephemeral import KID
from macp_auth.adapters.signers.local import LocalKey, LocalSigner
from macp_auth.application.access import OpenAccess
from macp_auth.application.key_ring import KeyRing
from macp_auth.application.mint import Minter
from macp_auth.domain.clock import TimeInterval
from macp_auth.domain.keys import Algorithm
from macp_auth.domain.minting import MintEvent
from macp_auth.domain.rotation import Timing
from macp_auth.domain.sender import SenderPolicy
from macp_auth.domain.ttl import TTLPolicy
from macp_auth.entrypoints.http.errors import answering_errors
from macp_auth.entrypoints.http.request_ids import with_request_id
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
            issuer="i",
            senders=SenderPolicy(None),
            access=OpenAccess("a", TTLPolicy(300, 3600)),
            keys=self.ring,
        )
        self.events: list[MintEvent] = []
        self.sent: list[dict[str, Any]] = []
        self.sent_before: list[int] = []
        self.app: Any = with_request_id(
            answering_errors(
                token_app(
                    minter, [self._spoil, self._note], now=lambda: TimeInterval(time.time(), time.time())
                )
            )
        )

    def _spoil(self, _: MintEvent) -> None:
        raise RuntimeError("an observer of another package")

    def _note(self, event: MintEvent) -> None:
        self.events.append(event)
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


def test_a_minted_token_is_an_event_before_it_is_sent() -> None:
    """With what was asked for, the token, its kid and claims; another observer's fault is none of ours."""
    desk = Desk()
    assert desk.post() == 200
    [event] = desk.events
    assert desk.sent_before == [0]
    assert event.minted is not None
    assert event.minted.kid == jwt.get_unverified_header(event.minted.token)["kid"] == KID
    assert event.minted.claims.exp - event.minted.claims.iat == 60
    assert (event.status, event.reason) == (200, None)
    assert event.request is not None
    assert event.request.sender == "agent://risk"
    assert event.client == "192.0.2.7"
    assert dict(desk.sent[0]["headers"])[b"x-request-id"].decode() == event.request_id
    assert abs(event.at - time.time()) < 10


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
def test_a_refusal_is_one_event_with_its_reason(body: bytes, status: int, reason: str, decoded: bool) -> None:  # noqa: FBT001 - a row of the table
    """Also one that comes before the body is decoded."""
    desk = Desk()
    assert desk.post(body) == status
    [event] = desk.events
    assert (event.status, event.reason, event.request is not None) == (status, reason, decoded)


def test_what_is_refused_for_its_headers_or_its_end_is_an_event() -> None:
    """Refusals of the HTTP, before there is a body."""
    desk = Desk()
    assert desk.post(content_type="text/plain") == 415
    assert desk.post(whole=False) == 400
    assert [event.reason for event in desk.events] == ["unsupported-media-type", "cut-off"]


def test_a_signer_s_failure_is_an_event_with_its_own_word() -> None:
    """In one word."""
    desk = Desk(open_ring=False)
    assert desk.post() == 503
    [event] = desk.events
    assert event.minted is None
    assert (event.status, event.reason) == (503, "unavailable")


def test_no_representation_shows_the_token() -> None:
    """An observer that logs the event leaks nothing."""
    desk = Desk()
    desk.post()
    assert "eyJ" not in repr(desk.events)
