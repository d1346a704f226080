"""The background reading of the signer's keys: it never stops, and never takes keys away by failing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest
from litestar import Litestar
from structlog.testing import capture_logs

from macp_auth.application.key_refresh import KeyRefresher
from macp_auth.application.key_ring import KeyRing
from macp_auth.domain.claims import Claims
from macp_auth.domain.errors import SignerRefused, SignerUnavailable, UnknownKid
from macp_auth.domain.keys import Algorithm, ECPublicJWK, KeyVersion
from macp_auth.domain.rotation import Timing
from macp_auth.domain.signer import Signer
from tools.support.bounded import HANG_SECONDS

FAST, NEVER = 0.02, 3600.0
TIMING = Timing(publish_lead=100, retire_lag=50)
APP = Litestar()
FAILED = "cannot read keys; keeping the last good ones"
FAILED_WITHOUT = "cannot read keys; none loaded yet"


def version(kid: str, created_at: float | None = None) -> KeyVersion:
    public = ECPublicJWK(crv="P-256", x="x" * 43, y="y" * 43)
    return KeyVersion(
        kid=kid, algorithm=Algorithm.ES256, public_jwk=public, can_sign=True, created_at=created_at
    )


class Scripted(Signer):
    """Gives its versions, or raises its failure; counts the readings."""

    def __init__(self, *versions: KeyVersion) -> None:
        self.versions = versions
        self.failure: BaseException | None = None
        self.hangs = False
        self.readings = 0
        self.closed = 0

    async def key_versions(self) -> Sequence[KeyVersion]:
        self.readings += 1
        if self.hangs:
            await asyncio.Event().wait()
        if self.failure is not None:
            raise self.failure
        return self.versions

    async def sign(self, kid: str, signing_input: bytes) -> bytes:  # noqa: ARG002 - the port's
        if kid not in {version.kid for version in self.versions}:
            raise UnknownKid(kid)
        return b""

    async def aclose(self) -> None:
        self.closed += 1


def refreshed(
    signer: Scripted,
    interval: float,
    during: Callable[[KeyRing], Coroutine[Any, Any, None]],
) -> list[Any]:
    """Keep a ring fresh while ``during`` runs; return what was logged."""
    ring = KeyRing(signer, TIMING)

    async def live() -> None:
        async with KeyRefresher(ring, interval, source="scripted").running():
            await during(ring)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    with capture_logs() as logs:
        asyncio.run(live())
    return logs


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(HANG_SECONDS):
        while not condition():  # noqa: ASYNC110 - nothing tells us when
            await asyncio.sleep(0.005)


async def next_reading(signer: Scripted) -> None:
    """Wait for a reading that begins from now on, and its end."""
    wanted = signer.readings + 2
    await until(lambda: signer.readings >= wanted)


def signs(ring: KeyRing, kid: str) -> Callable[[], bool]:
    return lambda: ring.keys.signing.version.kid == kid


def test_keys_are_read_before_the_first_request() -> None:
    """And the one that signs is logged."""
    signer = Scripted(version("a"))

    async def during(ring: KeyRing) -> None:
        assert signs(ring, "a")()

    assert refreshed(signer, NEVER, during) == [
        {"event": "signing key", "log_level": "info", "source": "scripted", "alg": "ES256", "kid": "a"}
    ]
    assert (signer.readings, signer.closed) == (1, 1)


def test_changes_are_taken_up_and_logged_once() -> None:
    signer = Scripted(version("a"))

    async def during(ring: KeyRing) -> None:
        signer.versions = (version("b"), version("a"))
        await until(signs(ring, "b"))
        active = ring.keys
        await next_reading(signer)
        assert ring.keys is active

    logs = refreshed(signer, FAST, during)
    assert [log["event"] for log in logs] == ["signing key", "published keys", "signing key"]
    assert logs[1]["states"] == {"b": "active", "a": "deactivated"}
    assert logs[2]["kid"] == "b"


@pytest.mark.parametrize(
    "failure", [SignerUnavailable("down"), SignerRefused("no"), RuntimeError("a plugin's"), None], ids=repr
)
def test_a_failed_reading_keeps_the_keys_and_is_logged_each_time(failure: Exception | None) -> None:
    """For any exception of the signer, or no usable set; later keys are used again."""
    signer = Scripted(version("a"))

    async def during(ring: KeyRing) -> None:
        signer.failure, signer.versions = failure, ()
        await next_reading(signer)
        await next_reading(signer)
        assert signs(ring, "a")()
        signer.failure, signer.versions = None, (version("b"),)
        await until(signs(ring, "b"))

    logs = [log for log in refreshed(signer, FAST, during) if log["event"] == FAILED]
    assert len(logs) >= 3
    assert all(log["log_level"] == "error" for log in logs)
    if not isinstance(failure, RuntimeError):
        expected = "SignerMisconfigured" if failure is None else type(failure).__name__
        assert {log["reason"] for log in logs} == {expected}
    else:
        assert all(log["exc_info"] for log in logs)


@pytest.mark.parametrize("failure", [None, SignerUnavailable("down"), RuntimeError("a plugin's")], ids=repr)
def test_a_due_change_is_followed_at_its_time(failure: Exception | None) -> None:
    """Long before the next reading is due, and also when that reading fails."""
    lead = TIMING.publish_lead
    began = time.time()
    signer = Scripted(version("a"), version("b", created_at=began - lead + 0.5))

    async def during(ring: KeyRing) -> None:
        signer.failure = failure
        assert signs(ring, "a")()
        await until(signs(ring, "b"))
        assert 0.5 <= time.time() - began < HANG_SECONDS

    refreshed(signer, NEVER, during)
    assert 2 <= signer.readings < 5


@pytest.mark.parametrize("interval", [NEVER, FAST])
def test_the_end_does_not_wait(interval: float) -> None:
    """Neither for the next reading nor for one that hangs; the signer is closed once."""
    signer = Scripted(version("a"))

    async def during(ring: KeyRing) -> None:
        assert signs(ring, "a")()
        signer.hangs = True
        if interval == FAST:
            before = signer.readings
            await until(lambda: signer.readings > before)

    began = time.monotonic()
    refreshed(signer, interval, during)
    assert time.monotonic() - began < HANG_SECONDS
    assert signer.closed == 1


@pytest.mark.parametrize("failure", [SignerUnavailable("down"), RuntimeError("a plugin's")], ids=repr)
def test_a_start_without_keys_goes_on_trying(failure: Exception) -> None:
    """There is nothing to sign with until the signer answers, and the log claims no other; then there is."""
    signer = Scripted(version("a"))
    signer.failure = failure

    async def during(ring: KeyRing) -> None:
        assert ring.active is None
        with pytest.raises(SignerUnavailable):
            _ = ring.keys
        signer.failure = None
        await until(lambda: ring.active is not None)
        assert signs(ring, "a")()

    logs = refreshed(signer, FAST, during)
    events = [log["event"] for log in logs]
    assert FAILED not in events
    assert events[0] == FAILED_WITHOUT
    assert [event for event in events if event != FAILED_WITHOUT] == [
        "keys read again",
        "signing key",
    ]
    assert signer.closed == 1


CLAIMS = Claims(macp_scopes={}, sub="s", iss="i", aud="a", iat=1, exp=2)


async def fails_to_sign(ring: KeyRing) -> None:
    with pytest.raises(UnknownKid):
        await ring.self_test(CLAIMS)


def test_a_withdrawn_version_has_the_keys_read_at_once() -> None:
    """Long before the next reading is due, and by one reading, however many requests failed."""
    signer = Scripted(version("a"))

    async def during(ring: KeyRing) -> None:
        await asyncio.sleep(1)  # so long after a reading, the next may come at once
        signer.versions = (version("b"),)
        withdrawn = time.monotonic()
        await asyncio.gather(*(fails_to_sign(ring) for _ in range(100)))
        await until(signs(ring, "b"))
        assert time.monotonic() - withdrawn < 3
        await ring.self_test(CLAIMS)
        await asyncio.sleep(1.2)  # and that was that

    refreshed(signer, NEVER, during)
    assert signer.readings == 2


def test_a_version_that_stays_withdrawn_has_the_keys_read_once_a_second() -> None:
    """However often requests fail, and as soon as the signer has another key, that one signs."""
    signer = Scripted(version("a"))

    async def during(ring: KeyRing) -> None:
        signer.versions = ()
        ends = time.monotonic() + 2.5
        while time.monotonic() < ends:
            await fails_to_sign(ring)
            await asyncio.sleep(0.001)
        assert 2 <= signer.readings <= 3
        signer.versions = (version("b"),)
        await until(signs(ring, "b"))

    refreshed(signer, NEVER, during)
    assert signer.readings <= 4


def test_the_age_of_the_keys_and_why_they_age() -> None:
    """The age is that of the last good reading, by the clock that it was given."""
    signer, now = Scripted(version("a")), 100.0
    signer.failure = SignerRefused("no")
    ring = KeyRing(signer, TIMING)
    refresher = KeyRefresher(ring, NEVER, source="scripted", clock=lambda: now)
    asyncio.run(refresher._refresh())
    assert (refresher.age, refresher.failure) == (None, "refused")
    signer.failure = None
    asyncio.run(refresher._refresh())
    now += 7
    assert (refresher.age, refresher.failure) == (7, None)
    signer.failure = RuntimeError("a plugin's")
    asyncio.run(refresher._refresh())
    assert (refresher.age, refresher.failure) == (7, "failed")


def test_readings_are_spread() -> None:
    """Replicas that start together do not stay together; none is later than the interval."""
    ring = KeyRing(Scripted(version("a")), TIMING)
    asyncio.run(ring.refresh(time.time()))
    refresher = KeyRefresher(ring, 100, source="scripted")
    pauses = {refresher._pause(time.time()) for _ in range(200)}
    assert 80 <= min(pauses) < 85
    assert 95 < max(pauses) <= 100
