"""The drill's model of the runtime does with answers of a JWKS what the real one does."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import jwt
import pytest

from tests.support import jwks
from tests.support.fake_server import FakeServer, Reply, Request
from tools.drill.judges.macp_runtime_model import FETCH_SECONDS, STALE_GRACE_SECONDS, Model
from tools.support.bounded import HANG_SECONDS
from tools.support.macp_runtime import MacpRuntime, verifying

OLD, NEW = ({**jwks.ec(copy=copy), "kid": f"key-{copy}"} for copy in range(2))


def published(*keys: jwks.JWK) -> dict[str, list[jwks.JWK]]:
    return {"keys": [jwks.public(key) for key in keys]}


def token(key: jwks.JWK) -> str:
    claims = {"sub": "a", "iss": "macp-auth-service", "aud": "macp-runtime", "exp": time.time() + 600}
    return jwt.encode({**claims, "macp_scopes": {}}, jwt.PyJWK(key), "ES256", headers={"kid": key["kid"]})


class Both:
    """The real runtime and the model, which fetch for each token."""

    def __init__(self, server: FakeServer, runtime: MacpRuntime) -> None:
        self.server = server
        self._runtime = runtime
        self._model = Model(server.url, cache_ttl=0, stale_grace=STALE_GRACE_SECONDS, leeway=60)

    def accept(self, key: jwks.JWK) -> bool:
        """Whether they accept a token of this key, which they must agree in."""
        with ThreadPoolExecutor() as threads:
            real = threads.submit(self._runtime.answer_to, token(key))
            model = threads.submit(self._model.refusal, token(key))
        assert real.result() in {"accepted", "status UNAUTHENTICATED"}
        assert (real.result() == "accepted") == (model.result() is None), (real.result(), model.result())
        return model.result() is None


@pytest.fixture
def both(tmp_path: Path) -> Iterator[Both]:
    """With the old key in their caches."""
    with (
        FakeServer(lambda _: Reply(200, published(OLD))) as server,
        MacpRuntime(tmp_path, verifying(server.url, cache_ttl=0)) as runtime,
    ):
        subject = Both(server, runtime)
        assert subject.accept(OLD)
        yield subject


def moved(request: Request) -> Reply:
    return Reply(302, b"", {"location": "/moved"}) if request.path != "/moved" else Reply(200, published(NEW))


@pytest.mark.parametrize(
    ("reply", "taken"),
    [
        (lambda _: Reply(200, published(NEW)), True),
        (lambda _: Reply(200, published(NEW), {"content-type": "text/html"}), True),
        (lambda _: Reply(503, published(NEW)), True),
        (moved, True),
        (lambda _: Reply(503, {"error": "not ready"}), False),
        (lambda _: Reply(404, b""), False),
        (lambda _: Reply(200, b"<html>"), False),
        (lambda _: Reply(200, b'{"keys":[{}]}'), False),
        (lambda _: Reply(200, b'{"keys":[', {"content-length": "100", "connection": "close"}), False),
    ],
    ids=["good", "HTML type", "503 with keys", "redirect", "503", "404", "no JSON", "no key", "cut"],
)
def test_answers_of_the_jwks(both: Both, reply: Callable[[Request], Reply], *, taken: bool) -> None:
    """Its keys are taken over, or the old ones go on."""
    both.server.reply = reply
    assert (both.accept(NEW), both.accept(OLD)) == (taken, not taken)


def test_a_jwks_that_hangs(both: Both) -> None:
    """They give up after 5 s, and go on with what they have."""
    ended = Event()
    both.server.reply = lambda _: Reply(200 if ended.wait(HANG_SECONDS) else 500, published(NEW))
    began = time.monotonic()
    assert both.accept(OLD)
    assert time.monotonic() - began > FETCH_SECONDS - 1
    ended.set()
    assert both.accept(NEW)


def test_without_any_keys(tmp_path: Path) -> None:
    """Nothing is accepted until the first good answer."""
    with (
        FakeServer(lambda _: Reply(503, json.dumps({"error": "not ready"}).encode())) as server,
        MacpRuntime(tmp_path, verifying(server.url, cache_ttl=0)) as runtime,
    ):
        subject = Both(server, runtime)
        assert not subject.accept(OLD)
        server.reply = lambda _: Reply(200, published(OLD))
        assert subject.accept(OLD)
