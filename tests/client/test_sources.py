"""Token sources against a real service: one request for many callers, refreshes, outages, refusals."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jwt
import pytest

from macp_auth_client import AsyncTokenSource, MintRefused, MintUnavailable, TokenSource
from tests.client.support import (
    ES256,
    SCOPES,
    SENDER,
    Load,
    Source,
    at_once,
    outcome,
    requests_for,
    stopped,
)
from tests.support import jwks
from tests.support.faked_clock import FakedClock
from tests.support.proxy import Proxy
from tools.support import callers
from tools.support.bounded import HANG_SECONDS, bounded
from tools.support.openbao import OpenBao
from tools.support.service import Service, clean_environment, wait_until
from tools.support.vault_environment import with_token

pytestmark = pytest.mark.slow  # services of their own

MakeSource = Callable[..., Source]
MANY = 1000


def test_a_thousand_threads_get_one_token(service: Service, sender: str) -> None:
    """All call before there is one."""
    source = TokenSource(service.url, sender, SCOPES)
    tokens = at_once(MANY, source.token)
    assert len(set(tokens)) == 1
    assert callers.claims_of(tokens[0])["macp_scopes"] == SCOPES
    assert len(requests_for(service, sender)) == 1


def test_a_thousand_tasks_get_one_token(service: Service, sender: str) -> None:
    """All call before there is one."""

    @bounded
    async def scenario() -> None:
        source = AsyncTokenSource(service.url, sender, SCOPES)
        tokens = await asyncio.gather(*(source.token() for _ in range(MANY)))
        assert len(set(tokens)) == 1

    scenario()
    assert len(requests_for(service, sender)) == 1


def test_the_next_token_comes_before_the_current_one_ends(
    make_source: MakeSource, service: Service, sender: str
) -> None:
    """After more than half of its lifetime; each token that is handed out lives."""
    source = make_source(service.url, sender, ttl_seconds=6)
    first = source.token()
    with Load(source) as load:
        wait_until(lambda: source.token() != first, within=HANG_SECONDS, what="another token")
    assert load.failures == []
    assert (
        callers.claims_of(source.token())["iat"] - callers.claims_of(first)["iat"] >= 3
    )  # of 6, from 0.567 on, less rounding
    assert len(requests_for(service, sender)) <= 3


def test_a_source_that_nobody_asks_mints_nothing(service: Service, sender: str) -> None:
    """Its token has ended several times meanwhile, and the next call gets a live one."""
    source = TokenSource(service.url, sender, SCOPES, ttl_seconds=1)
    first = source.token()
    wait_until(
        lambda: callers.claims_of(first)["exp"] + 2 < time.time(), within=HANG_SECONDS, what="it ended"
    )
    assert source.token() != first
    assert len(requests_for(service, sender)) == 2


def test_no_call_fails_or_waits_through_an_outage(make_source: MakeSource, own_service: Service) -> None:
    """The service hangs while the token is due for refresh; calls return though no request can end."""
    source = make_source(own_service.url, ttl_seconds=15, timeout=HANG_SECONDS)
    first = source.token()
    began = time.monotonic()
    with Load(source) as load:
        with stopped(own_service):
            wait_until(lambda: time.monotonic() > began + 10.5, within=HANG_SECONDS, what="a refresh is due")
            calls = load.calls
            wait_until(lambda: load.calls >= calls + 8, within=HANG_SECONDS, what="calls return")
            assert source.token() == first
        wait_until(lambda: source.token() != first, within=HANG_SECONDS, what="the next token")
    assert load.failures == []
    assert len(requests_for(own_service)) == 2


def test_an_outage_that_outlives_the_token(make_source: MakeSource, own_service: Service) -> None:
    """Callers get an error that says what happened, within max_wait; then a token again."""
    source = make_source(own_service.url, ttl_seconds=1, timeout=0.5, max_wait=2)
    first = source.token()
    with stopped(own_service):
        wait_until(
            lambda: isinstance(outcome(source.token), MintUnavailable), within=HANG_SECONDS, what="an error"
        )
        errors = at_once(20, lambda: outcome(source.token))
        assert all(isinstance(error, MintUnavailable) and error.retryable for error in errors)
        assert f"no answer from {own_service.url}/tokens: ReadTimeout" in str(errors[0])
        assert len({id(error) for error in errors}) == 20, "each caller raises its own"
    wait_until(lambda: isinstance(outcome(source.token), str), within=HANG_SECONDS, what="a token")
    assert outcome(source.token) != first


def test_a_refusal_reaches_all_who_wait(make_source: MakeSource, service: Service) -> None:
    """At once, with the service's own words, and after one request."""
    before = len(service.audit_lines)
    source = make_source(service.url, " x")
    errors = at_once(50, lambda: outcome(source.token))
    assert all(isinstance(error, MintRefused) and not error.retryable for error in errors)
    assert "answered 400: sender must not begin or end with white space (request " in str(errors[0])
    requests_for(service)
    refused = [line for line in service.audit_lines[before:] if line["event"] == "refused"]
    assert len(refused) <= 2, "half a second may pass until the last of them calls"


def test_a_cancelled_caller_cancels_nobody_else(own_service: Service) -> None:
    """Not even the one whose call began the request."""

    @bounded
    async def scenario() -> None:
        source = AsyncTokenSource(own_service.url, SENDER, SCOPES, timeout=HANG_SECONDS)
        with stopped(own_service):
            callers = [asyncio.create_task(source.token()) for _ in range(10)]
            await asyncio.sleep(0)  # each of them runs until it waits
            assert source._flight
            for caller in callers[:5]:
                caller.cancel()
            await asyncio.wait(callers[:5])
        tokens = await asyncio.gather(*callers[5:])
        assert len(set(tokens)) == 1
        assert all(caller.cancelled() for caller in callers[:5])

    scenario()
    assert len(requests_for(own_service)) == 1


def test_many_invalidations_are_one_request(make_source: MakeSource, service: Service, sender: str) -> None:
    """Of the token that all of them hold; an old one, or one that never was, changes nothing."""
    source = make_source(service.url, sender)
    first = source.token()

    def refused() -> str:
        source.invalidate(first)
        return source.token()

    (second,) = set(at_once(200, refused))
    assert second != first
    source.invalidate(first)
    source.invalidate("x.y.z")
    assert source.token() == second
    assert len(requests_for(service, sender)) == 2


def test_a_caller_that_invalidates_every_token_makes_one_request_a_second(
    make_source: MakeSource, service: Service, sender: str
) -> None:
    """As one does that is refused for another reason than its token."""
    source = make_source(service.url, sender)
    began = time.monotonic()
    while time.monotonic() < began + 3:
        source.invalidate(source.token())
    took = time.monotonic() - began
    assert 2 <= len(requests_for(service, sender)) <= took + 2


def test_a_revoked_key(
    make_source: MakeSource, start_service: Callable[..., Service], tmp_path: Path
) -> None:
    """Verifiers refuse the token, all callers invalidate it, and the next one verifies."""
    path = tmp_path / "keys.json"
    _write_keys(path, "old", "new")
    env = {"MACP_AUTH_SIGNER": "jwk-file", "MACP_AUTH_SIGNING_KEYS_FILE": str(path)}
    service = start_service({**env, "MACP_AUTH_KEY_REFRESH_SECONDS": "1"})
    source = make_source(service.url)
    assert _kid(source.token()) == "old"
    _write_keys(path, "new")
    wait_until(lambda: _kids(service) == {"new"}, within=HANG_SECONDS, what="the key has left the JWKS")

    def call() -> str:
        token = source.token()
        if _kid(token) not in _kids(service):
            source.invalidate(token)
            token = source.token()
        return _kid(token)

    assert set(at_once(50, call)) == {"new"}
    assert len(requests_for(service)) == 2


def test_a_service_that_restarts_with_another_key(
    make_source: MakeSource, start_service: Callable[..., Service]
) -> None:
    """The address is the same, the key is not: an invalidation is all that it takes."""
    first = start_service(ES256)
    with Proxy(first.port) as proxy:
        source = make_source(proxy.url)
        old = source.token()
        first.__exit__()
        second = start_service(ES256)
        proxy._target = second.port
        assert source.token() == old, "it lives"
        source.invalidate(old)
        jwt.decode(
            source.token(),
            jwt.PyJWKSet.from_dict(second.jwks())["dev-key-1"],
            algorithms=["ES256"],
            audience="macp-runtime",
        )


def test_503s_while_vault_is_away(make_source: MakeSource, tmp_path: Path, start_service: Any) -> None:
    """Fifty callers wait, and none gets an error; then all go on."""
    with OpenBao(tmp_path) as bao:
        bao.create_key("macp", "ecdsa-p256")
        service = start_service(with_token(bao, "macp"))
        source = make_source(service.url, max_wait=HANG_SECONDS)
        first = source.token()
        bao.stop()
        source.invalidate(first)
        with Load(source, threads=50) as load:
            wait_until(lambda: len(_refused(service)) >= 3, within=HANG_SECONDS, what="three 503s")
            bao.start()
            wait_until(lambda: load.calls, within=HANG_SECONDS, what="a token")
        assert load.failures == []


def test_503s_are_followed_by_a_request_when_the_service_says(
    make_source: MakeSource, start_service: Callable[..., Service]
) -> None:
    """It says a second; fifty callers wait."""
    service = start_service({"MACP_AUTH_AUDIT_REQUIRED": "on", "MACP_AUTH_AUDIT_LOG": "/dev/full"})
    with Proxy(service.port) as proxy:
        source = make_source(proxy.url, max_wait=8)
        before, began = proxy.accepted, time.monotonic()
        errors = at_once(50, lambda: outcome(source.token))
        took = time.monotonic() - began
        assert all("answered 503: the audit log can't be written now" in str(error) for error in errors)
        assert 2 <= proxy.accepted - before <= took + 1


def test_a_429_is_followed_by_one_request_when_the_service_says(
    make_source: MakeSource, start_service: Callable[..., Service], tmp_path: Path
) -> None:
    """The grant has one token each six seconds, and its rate is used up."""
    bearer = tmp_path / "bearer"
    bearer.write_text("macp_" + "x" * 43)
    digest = hashlib.sha256(bearer.read_bytes()).hexdigest()
    rules = f"""
        [[caller]]
        name = "a"
        secret_sha256 = "{digest}"

        [[caller.grant]]
        senders = ["{SENDER}"]
        per_minute = 10
        scopes = {{ allowed_modes = ["*"] }}
    """
    service = start_service({**ES256, **callers.write(tmp_path / "callers.toml", rules)})
    before = 0
    waiting = 0
    while waiting < 4:  # enough for the source to ask before there is a token again
        answer = callers.mint(service.port, {"sender": SENDER}, bearer=bearer.read_text())
        before += 1
        waiting = int(answer.headers.get("retry-after", "0"))
    source = make_source(service.url, bearer_file=bearer)
    assert len(set(at_once(20, source.token))) == 1
    wait_until(
        lambda: len(service.audit_lines) >= before + 2, within=HANG_SECONDS, what="the audit log has all"
    )
    assert [line["event"] for line in service.audit_lines[before:]] == ["refused", "minted"]


def test_the_wall_clock_of_the_client_does_not_matter(service: Service, sender: str, tmp_path: Path) -> None:
    """It is a day behind, then a day ahead, then right, while a token lives: one request is made."""
    script = tmp_path / "client.py"
    script.write_text(
        "import sys, time\n"
        "from macp_auth_client import TokenSource\n"
        "source = TokenSource(sys.argv[1], sys.argv[2], {})\n"
        "for _ in sys.stdin:\n"
        "    print(time.time(), source.token(), flush=True)\n"
    )
    clock = FakedClock(tmp_path)
    with subprocess.Popen(
        [sys.executable, script, service.url, sender],
        env=clean_environment(clock.env),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as client:
        assert client.stdin
        assert client.stdout
        tokens = []
        for ahead in (-86400, 86400, 0):
            clock.step_to(ahead)
            print(file=client.stdin, flush=True)
            seen, token = client.stdout.readline().split()
            assert abs(float(seen) - time.time() - ahead) < HANG_SECONDS
            tokens.append(token)
        client.stdin.close()
    assert len(set(tokens)) == 1
    assert len(requests_for(service, sender)) == 1


def test_a_fork_while_a_request_is_in_flight(own_service: Service, tmp_path: Path) -> None:
    """The child process has neither the thread nor the lock of its parent, and gets a token all the same."""
    script = tmp_path / "fork.py"
    script.write_text(
        "import os, psutil, sys, threading\n"
        "from macp_auth_client import TokenSource\n"
        "source = TokenSource(sys.argv[1], 'forked', {}, timeout=60, max_wait=30)\n"
        "threading.Thread(target=source.token, daemon=True).start()\n"
        "held, go = threading.Event(), threading.Event()\n"
        "def hold():\n"
        "    with source._lock:\n"
        "        held.set()\n"
        "        go.wait()\n"
        "while not psutil.Process().net_connections('tcp'):\n"
        "    pass\n"
        "threading.Thread(target=hold, daemon=True).start()\n"
        "held.wait()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    print('forked', flush=True)\n"
        "    print(source.token(), flush=True)\n"
        "    os._exit(0)\n"
        "go.set()\n"
        "os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    with stopped(own_service):
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", script, own_service.url],
            env=clean_environment(),
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout
        assert process.stdout.readline() == "forked\n"
    output, _ = process.communicate(timeout=HANG_SECONDS)
    assert process.returncode == 0
    assert callers.claims_of(output.strip())["sub"] == "forked"


def test_a_program_can_end_while_a_request_is_in_flight(own_service: Service, tmp_path: Path) -> None:
    """The thread does not keep it alive, and Ctrl-C ends a call that waits."""
    script = tmp_path / "waits.py"
    script.write_text(
        "import sys\n"
        "from macp_auth_client import TokenSource\n"
        "source = TokenSource(sys.argv[1], 'a', {}, timeout=600, max_wait=600)\n"
        "print('calls', flush=True)\n"
        "source.token()\n"
    )
    with stopped(own_service):
        process = subprocess.Popen(
            [sys.executable, script, own_service.url],
            env=clean_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=HANG_SECONDS)
    assert process.returncode == -signal.SIGINT
    assert errors.rstrip().endswith("KeyboardInterrupt")


def test_a_request_that_never_ends_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, own_service: Service
) -> None:
    """An answer that comes a byte at a time keeps within each time limit; another request begins."""
    monkeypatch.setattr("macp_auth_client.sources._LOST_SECONDS", 1.0)
    with Proxy(own_service.port) as proxy:
        proxy.trickle(0.5)
        source = TokenSource(proxy.url, SENDER, SCOPES, max_wait=2)
        assert "no token for risk-agent within 2 s" in str(outcome(source.token))
        assert isinstance(outcome(source.token), MintUnavailable)
        assert proxy.accepted >= 2
        proxy.let_pass()
        wait_until(lambda: isinstance(outcome(source.token), str), within=HANG_SECONDS, what="a token")


def test_a_thread_that_cannot_start(
    monkeypatch: pytest.MonkeyPatch, service: Service, sender: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As at the interpreter's exit: a token that lives is returned; without one, the error says why."""

    def start(_: object) -> None:
        raise RuntimeError("can't start new thread")

    source = TokenSource(service.url, sender, SCOPES, max_wait=1)
    with monkeypatch.context() as patched:
        patched.setattr("threading.Thread.start", start)
        with pytest.raises(MintUnavailable, match="cannot begin a request: can't start new thread"):
            source.token()
    wait_until(lambda: isinstance(outcome(source.token), str), within=HANG_SECONDS, what="a token")
    token = source.token()
    source._schedule._refresh_at = 0
    monkeypatch.setattr("threading.Thread.start", start)
    assert source.token() == token
    assert "macp_auth_client" not in {record.name for record in caplog.records}


def test_a_fault_of_our_own(
    make_source: MakeSource,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is logged with its traceback, callers get an error, and the next request begins."""
    monkeypatch.setattr("macp_auth_client.minting._BEARER", None)
    bearer = tmp_path / "bearer"
    bearer.write_text("macp_secret")
    source = make_source("http://127.0.0.1:1", bearer_file=bearer, max_wait=1)
    with pytest.raises(MintUnavailable, match="unexpected AttributeError while minting"):
        source.token()
    assert "in _read_bearer" in caplog.text


def test_max_wait_without_an_end(make_source: MakeSource, service: Service) -> None:
    """As math.inf says it."""
    assert isinstance(make_source(service.url, max_wait=math.inf).token(), str)


def test_several_event_loops_share_one_request(own_service: Service) -> None:
    """Each in a thread of its own, with callers that wait while the service hangs."""
    source = AsyncTokenSource(own_service.url, SENDER, SCOPES, timeout=HANG_SECONDS)
    waiting = threading.Semaphore(0)

    async def callers() -> list[str]:
        tasks = [asyncio.create_task(source.token()) for _ in range(10)]
        await asyncio.sleep(0)  # each of them runs until it waits
        waiting.release()
        return await asyncio.gather(*tasks)

    with ThreadPoolExecutor() as pool:
        with stopped(own_service):
            loops = [pool.submit(asyncio.run, callers()) for _ in range(3)]
            for _ in loops:
                assert waiting.acquire(timeout=HANG_SECONDS)
        tokens = {token for loop in loops for token in loop.result(HANG_SECONDS)}
    assert len(tokens) == 1
    assert len(requests_for(own_service)) == 1


def test_one_event_loop_after_another(service: Service, sender: str) -> None:
    """The token stays; a request that ended with its loop is not waited for."""
    source = AsyncTokenSource(service.url, sender, SCOPES)
    first = asyncio.run(source.token())
    assert asyncio.run(source.token()) == first

    async def give_up() -> None:
        source.invalidate(first)
        await asyncio.wait([asyncio.create_task(source.token())], timeout=0)

    asyncio.run(give_up())
    assert asyncio.run(source.token()) != first


def _write_keys(path: Path, *kids: str) -> None:
    numbers = {"old": 0, "new": 1}
    fresh = path.with_suffix(".new")
    fresh.touch(0o600)
    fresh.write_text(json.dumps({"keys": [{**jwks.ec(copy=numbers[kid]), "kid": kid} for kid in kids]}))
    fresh.replace(path)


def _kid(token: str) -> str:
    return str(jwt.get_unverified_header(token)["kid"])


def _kids(service: Service) -> set[str]:
    return {key["kid"] for key in service.jwks()["keys"]}


def _refused(service: Service) -> list[dict[str, Any]]:
    return [line for line in service.audit_lines if line["event"] == "refused"]
