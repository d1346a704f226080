"""An open stream outlives the key of its token: the emergency procedure restarts the runtime for this."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import jwks
from tools.macp_runtime.behaviour import SENDER, start_session
from tools.support.bounded import HANG_SECONDS
from tools.support.macp_runtime import MacpRuntime, outcome, verifying
from tools.support.service import Service, wait_until
from tools.support.vault_environment import SHORT_ROTATION

pytestmark = pytest.mark.slow  # services of their own

REVOKED, NEXT = {**jwks.ec(), "kid": "revoked"}, {**jwks.ec(copy=1), "kid": "next"}


def test_a_stream_outlives_a_revocation(start_service: Callable[..., Service], tmp_path: Path) -> None:
    """It still delivers when each new call with its token is refused; a restart of the runtime ends it."""
    keys = tmp_path / "keys.json"
    keys.touch(0o600)
    keys.write_text(json.dumps({"keys": [REVOKED]}))
    file = {"MACP_AUTH_SIGNER": "jwk-file", "MACP_AUTH_SIGNING_KEYS_FILE": str(keys)}
    service = start_service({**SHORT_ROTATION, "MACP_AUTH_MAX_TTL_SECONDS": "600", **file})
    with (
        MacpRuntime(tmp_path, verifying(f"{service.url}/.well-known/jwks.json")) as runtime,
        runtime.client(service.mint(sender=SENDER)["token"]) as client,
    ):
        session = start_session(client)
        stream = client.open_stream()
        stream.send_subscribe(session.session_id)
        assert stream.read(HANG_SECONDS)

        keys.write_text(json.dumps({"keys": [NEXT]}))
        wait_until(
            lambda: outcome(client.list_sessions) == "status UNAUTHENTICATED",
            within=HANG_SECONDS,
            what="the runtime refuses the token",
        )
        with runtime.client(service.mint(sender=SENDER)["token"]) as other:
            session.client = other
            session.propose("p1", "option", sender=SENDER)
        assert stream.read(HANG_SECONDS)
        runtime.__exit__()
        assert outcome(lambda: stream.read(HANG_SECONDS)) != "accepted"
