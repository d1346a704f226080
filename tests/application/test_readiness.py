"""Whether this process can mint: found in the background, answered from memory."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from functools import partial
from typing import Any

import pytest
from litestar import Litestar
from structlog.testing import capture_logs

from macp_auth.adapters import jose
from macp_auth.adapters.sandbox.limits import Limits
from macp_auth.adapters.sandbox.wrapped import sandboxed
from macp_auth.adapters.signers.local import LocalKey, LocalSigner
from macp_auth.application import readiness
from macp_auth.application.key_refresh import KeyRefresher
from macp_auth.application.key_ring import KeyRing
from macp_auth.application.readiness import Readiness
from macp_auth.domain.claims import Claims, probe_claims
from macp_auth.domain.errors import SignerError, SignerRefused, SignerUnavailable, UnknownKid, reason_of
from macp_auth.domain.keys import Algorithm, KeyVersion
from macp_auth.domain.rotation import Timing
from macp_auth.domain.signer import Signer
from macp_auth.entrypoints import composition
from tools.support.asgi import InProcess
from tools.support.bounded import HANG_SECONDS

LOOK, PROBE = 0.02, 0.1
READING = 3600.0
SECRET = "https://backend.internal says no"
APP = Litestar()
CLAIMS = Claims(macp_scopes={}, sub="alice", iss="i", aud="a", iat=1, exp=2)


class Faulty(Signer):
    """A signer with one good key, whose faults can be switched."""

    def __init__(self) -> None:
        self._good = LocalSigner([LocalKey.signing("k", jose.generate(Algorithm.ES256))])
        self.fault: BaseException | str | None = None
        """What it raises; or ``hangs``, ``hangs on`` (in spite of a cancellation), ``wrong``."""
        self.unreadable: Exception | None = None
        self.asked = 0
        self.signed: set[bytes] = set()

    async def key_versions(self) -> Sequence[KeyVersion]:
        if self.unreadable is not None:
            raise self.unreadable
        return await self._good.key_versions()

    async def sign(self, kid: str, signing_input: bytes) -> bytes:
        self.asked += 1
        if self.fault == "hangs on":
            with pytest.raises(asyncio.CancelledError):
                await asyncio.sleep(10)
            await asyncio.sleep(3)
        if self.fault == "dislikes what is long" and len(signing_input) > 256:
            raise SignerRefused(SECRET, reason="too-long")
        if self.fault == "dislikes what it has seen" and signing_input in self.signed:
            raise SignerRefused(SECRET, reason="seen-before")
        self.signed.add(signing_input)
        if self.fault == "hangs":
            await asyncio.sleep(10)
        if isinstance(self.fault, BaseException):
            raise self.fault
        signature = await self._good.sign(kid, signing_input)
        return bytes(64) if self.fault == "wrong" else signature

    async def aclose(self) -> None:
        await self._good.aclose()


class Watched:
    """A ring with a faulty signer, with short check intervals, and a manual clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.signer = Faulty()
        self.ring = KeyRing(self.signer, Timing(publish_lead=100, retire_lag=50))
        self.refresher = KeyRefresher(self.ring, READING, source="faulty", clock=lambda: self.now)
        self.readiness = Readiness(
            self.ring,
            self.refresher,
            probe_claims=lambda: probe_claims("i", "a", time.time()),
            check_interval=LOOK,
            probe_timeout=PROBE,
        )

    def during(self, live: Callable[[Watched], Coroutine[Any, Any, None]]) -> list[tuple[Any, ...]]:
        """Watch while ``live`` runs; return each change that was logged: its event, reason and detail."""

        async def run() -> None:
            async with asyncio.timeout(HANG_SECONDS), self.refresher.running(), self.readiness.running():
                await live(self)
            assert asyncio.all_tasks() == {asyncio.current_task()}

        with capture_logs() as logs:
            asyncio.run(run())
        changes = [log for log in logs if log["event"] in ("ready", "not ready")]
        return [(log["event"], log.get("reason"), log.get("detail")) for log in changes]

    async def until(self, reason: str | None) -> None:
        while self.readiness.reason != reason:  # noqa: ASYNC110 - nothing tells us when
            await asyncio.sleep(0.002)

    async def some_checks(self) -> None:
        await asyncio.sleep(5 * LOOK)


@pytest.mark.parametrize(
    ("fault", "reason", "detail"),
    [
        (SignerUnavailable(SECRET), "unavailable", SECRET),
        (SignerRefused(SECRET, reason="sealed"), "sealed", SECRET),
        (SignerRefused(SECRET, reason=SECRET), "failed", SECRET),
        (ValueError(SECRET), "failed", "ValueError"),
        (asyncio.CancelledError(), "failed", "CancelledError"),
        ("hangs", "timeout", "no signature within 0.1 s"),
    ],
    ids=repr,
)
def test_a_fault_shows_and_passes(fault: BaseException | str, reason: str, detail: str) -> None:
    """With its reason; the log has the detail, once per change, not per check."""

    async def live(watched: Watched) -> None:
        assert watched.readiness.reason == "starting"
        await watched.until(None)
        for _ in range(2):
            watched.signer.fault = fault
            await watched.until(reason)
            await watched.some_checks()
            assert watched.readiness.reason == reason
            watched.signer.fault = None
            await watched.until(None)

    ready, not_ready = ("ready", None, None), ("not ready", reason, detail)
    assert Watched().during(live) == [ready, not_ready, ready, not_ready, ready]


def test_a_probe_that_can_not_be_cancelled_is_left_behind() -> None:
    """A plugin that swallows its cancellation stops neither the checks nor the recovery."""

    async def live(watched: Watched) -> None:
        watched.signer.fault = "hangs on"
        began = time.monotonic()
        await watched.until("timeout")
        assert time.monotonic() - began < HANG_SECONDS
        watched.signer.fault = None
        await watched.until(None)
        await asyncio.sleep(3.2)  # it ends by itself, and asyncio has nothing to complain of

    assert [change[1] for change in Watched().during(live)] == ["timeout", None]


def test_the_end_does_not_wait_for_a_probe() -> None:
    """It is cancelled with the checks."""

    async def live(watched: Watched) -> None:
        watched.signer.fault = "hangs"
        await watched.until("timeout")
        asked = watched.signer.asked
        while watched.signer.asked == asked:  # noqa: ASYNC110 - the next probe hangs now
            await asyncio.sleep(0.002)

    Watched().during(live)


def test_tokens_that_are_signed_are_proof_enough() -> None:
    """While tokens are minted nothing else is signed; when they end, probes go on."""

    async def live(watched: Watched) -> None:
        await watched.until(None)
        asked = watched.signer.asked
        for minted in range(1, 60):
            await watched.ring.sign(CLAIMS)
            await asyncio.sleep(LOOK / 8)
            assert watched.signer.asked <= asked + minted + 3  # a late loop may skip a check
        asked = watched.signer.asked
        while watched.signer.asked == asked:  # noqa: ASYNC110 - the next probe
            await asyncio.sleep(0.002)

    assert Watched().during(live) == [("ready", None, None)]


def test_a_signer_that_turns_some_away_is_ready() -> None:
    """While others are signed: a replica at its limit must not send all its load to the next."""

    async def live(watched: Watched) -> None:
        await watched.until(None)
        for _ in range(60):
            watched.signer.fault = None
            await watched.ring.sign(CLAIMS)
            watched.signer.fault = SignerUnavailable("full", reason="busy")
            with pytest.raises(SignerUnavailable):
                await watched.ring.sign(CLAIMS)
            await asyncio.sleep(LOOK / 8)
        assert watched.readiness.reason is None
        await watched.until("busy")

    assert [change[1] for change in Watched().during(live)] == [None, "busy"]


def test_reasons_that_alternate_are_logged_once_each() -> None:
    """As a circuit breaker's and its backend's do; the answer has the latest."""

    async def live(watched: Watched) -> None:
        for reason in ("deadline", "circuit-open", "deadline", "circuit-open"):
            watched.signer.fault = SignerUnavailable("down", reason=reason)
            await watched.until(reason)
        watched.signer.fault = None
        await watched.until(None)
        watched.signer.fault = SignerUnavailable("down", reason="deadline")
        await watched.until("deadline")

    changes = Watched().during(live)
    assert [change[1] for change in changes] == ["deadline", "circuit-open", None, "deadline"]


def test_stale_keys() -> None:
    """Three intervals without a good reading are too many, and not a moment less."""

    async def live(watched: Watched) -> None:
        watched.now = 3 * READING
        await watched.some_checks()
        assert watched.readiness.reason is None
        watched.now += 1
        await watched.until("stale-keys")
        await watched.refresher._refresh()
        await watched.until(None)

    changes = Watched().during(live)
    assert [change[1] for change in changes] == [None, "stale-keys", None]
    assert changes[1][2] == "the signer's keys were last read 10801 s ago"


def test_the_keys_are_ready_from_the_first_time_on() -> None:
    """A process that could mint has keys, whatever comes later; one that never could gives its reason."""

    async def live(watched: Watched) -> None:
        assert watched.readiness.keys_reason == "starting"
        await watched.until("sealed")
        assert watched.readiness.keys_reason == "sealed"
        watched.signer.fault = None
        await watched.until(None)
        assert watched.readiness.keys_reason is None
        watched.signer.fault = SignerRefused(SECRET, reason="sealed")
        await watched.until("sealed")
        watched.now = 3 * READING + 1
        await watched.some_checks()
        assert watched.readiness.keys_reason is None

    watched = Watched()
    watched.signer.fault = SignerRefused(SECRET, reason="sealed")
    watched.during(live)


def test_no_keys() -> None:
    """Keys that were never read give the reading's own reason, and nothing is signed."""

    async def live(watched: Watched) -> None:
        await watched.until("refused")
        assert watched.signer.asked == 0
        watched.refresher.failure = None
        await watched.until("no-keys")
        watched.signer.unreadable = None
        await watched.refresher._refresh()
        await watched.until(None)

    watched = Watched()
    watched.signer.unreadable = SignerRefused(SECRET)
    assert [change[1] for change in watched.during(live)] == ["refused", "no-keys", None]


def test_a_failure_and_a_return_show_within_five_seconds() -> None:
    """By the numbers: a token signed just after a check, the check that it satisfies, a hanging probe."""
    assert 2 * readiness.CHECK_INTERVAL_SECONDS + readiness.PROBE_TIMEOUT_SECONDS < 5


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (SignerUnavailable("x"), "unavailable"),
        (UnknownKid("k"), "unknown-kid"),
        (SignerError("x", reason="sealed"), "sealed"),
        (SignerError("x", reason="Sealed"), "failed"),
        (SignerError("x", reason="two words"), "failed"),
        (SignerError("x", reason="x" * 100), "failed"),
        (SignerError("x", reason=7), "failed"),  # type: ignore[arg-type]  # a plugin's mistake
        (KeyError("unavailable"), "failed"),
    ],
    ids=repr,
)
def test_a_reason_is_one_plain_word(error: Exception, reason: str) -> None:
    """For any value of a plugin."""
    assert reason_of(error) == reason


@pytest.fixture
def signer() -> Faulty:
    return Faulty()


@pytest.fixture
def service(signer: Faulty, monkeypatch: pytest.MonkeyPatch) -> Iterator[InProcess]:
    """The whole application with a faulty signer and short check intervals."""
    monkeypatch.setattr(composition, "open_signer", lambda _: sandboxed(signer, "faulty", Limits()))
    monkeypatch.setattr(
        composition, "Readiness", partial(Readiness, check_interval=LOOK, probe_timeout=PROBE)
    )
    with InProcess({}) as running:
        yield running


def answers(service: InProcess, status: int, body: dict[str, Any]) -> bool:
    service._loop.run_until_complete(asyncio.sleep(0.002))
    answer = service.request("GET", "/readyz")
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-type"] == "application/json"
    assert "backend" not in answer.body.decode()
    return (answer.status, answer.json) == (status, body)


def wait_for(service: InProcess, status: int, body: dict[str, Any]) -> None:
    assert any(answers(service, status, body) for _ in range(1000))


@pytest.mark.parametrize(
    ("fault", "reason"),
    [(SignerUnavailable(SECRET), "unavailable"), ("wrong", "wrong-signature"), ("hangs", "timeout")],
    ids=repr,
)
def test_the_answers(service: InProcess, signer: Faulty, fault: Any, reason: str) -> None:
    """200 and 503, never to be kept, without the backend's words; /healthz stays as it is."""
    wait_for(service, 200, {"ready": True})
    signer.fault = fault
    wait_for(service, 503, {"ready": False, "reason": reason})
    assert service.request("GET", "/healthz").body == b'{"ok":true}'
    assert service.request("HEAD", "/readyz").status == 503
    signer.fault = None
    wait_for(service, 200, {"ready": True})
    assert service.request("HEAD", "/readyz").status == 200


def test_an_answer_asks_the_signer_nothing(service: InProcess, signer: Faulty) -> None:
    """For any number of requests: only the checks sign."""
    wait_for(service, 200, {"ready": True})
    asked = signer.asked
    for _ in range(1000):
        assert service.request("GET", "/readyz").status == 200
    assert signer.asked - asked < 100


def test_a_failed_token_is_answered_at_once(service: InProcess, signer: Faulty) -> None:
    """A request that finds its key withdrawn waits for no reading."""
    signer.fault = UnknownKid("k")
    answer = service.post(json.dumps({"sender": "alice"}).encode())
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")


@pytest.mark.parametrize(
    ("fault", "reason"), [("dislikes what is long", "too-long"), ("dislikes what it has seen", None)]
)
def test_a_probe_is_as_long_as_a_token_and_each_is_another(fault: str, reason: str | None) -> None:
    """A backend that refuses tokens for their size refuses the probe; none sees the same probe twice."""

    async def live(watched: Watched) -> None:
        watched.signer.fault = fault
        await watched.until(reason)
        await watched.some_checks()
        assert watched.readiness.reason == reason

    Watched().during(live)
