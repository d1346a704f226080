"""Each rule of the sandbox, on a signer that breaks it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence

import msgspec
import pytest
from structlog.testing import capture_logs

from macp_auth.adapters import jose
from macp_auth.adapters.hookspecs import SignerPlugin
from macp_auth.adapters.sandbox import wrapped
from macp_auth.adapters.sandbox.bulkhead import SignerBusy
from macp_auth.adapters.sandbox.circuit import CircuitBreaker, CircuitOpen
from macp_auth.adapters.sandbox.limits import Limits
from macp_auth.adapters.sandbox.translation import PluginFault, TranslatingSigner
from macp_auth.adapters.signers.local import LocalKey, LocalSigner
from macp_auth.domain.errors import (
    InvalidSender,
    SignerError,
    SignerMisconfigured,
    SignerRefused,
    SignerUnavailable,
    UnknownKid,
    WrongSignature,
)
from macp_auth.domain.keys import Algorithm, ECPublicJWK, KeyVersion
from macp_auth.domain.signer import Signer
from macp_auth.domain.statistics import Statistics
from macp_auth.entrypoints.signers.process import prepared_state

PRIVATE = jose.generate(Algorithm.ES256)
KEY = LocalKey.signing("k1", PRIVATE)


class Scripted(Signer):
    """Signs well, after it did what the test says."""

    def __init__(self, first: Callable[[], Awaitable[object]] | None = None) -> None:
        self.first = first
        self.read: Callable[[], Awaitable[object]] | None = None
        self.versions: object = [KEY.version]
        self.calls = 0
        self._honest = LocalSigner([KEY])

    async def key_versions(self) -> Sequence[KeyVersion]:
        if self.read is not None:
            await self.read()
        return self.versions  # type: ignore[return-value]

    async def sign(self, kid: str, signing_input: bytes) -> bytes:
        self.calls += 1
        if self.first is not None:
            await self.first()
        return await self._honest.sign(kid, signing_input)

    async def aclose(self) -> None:
        if self.first is not None:
            await self.first()


def raising(error: BaseException) -> Callable[[], Awaitable[object]]:
    async def first() -> None:
        raise error

    return first


class PanicException(BaseException):
    """As ``pyo3_runtime.PanicException``, by which a Rust extension such as cryptography panics."""


class Unready(SignerUnavailable):
    """An error of a plugin's own, whose author forgot the base class's ``__init__``."""

    def __init__(self) -> None:
        pass


def sandboxed(opening: Callable[[], Signer], name: str, limits: Limits | None = None) -> Signer:
    """All rules but the process of its own."""
    return wrapped.sandboxed(TranslatingSigner(opening, name), name, limits or Limits())


async def sign_once(signer: Signer) -> bytes:
    await signer.key_versions()
    return await signer.sign("k1", b"input")


def test_a_good_signer_signs_and_closes_twice() -> None:
    """What leaves is the signature."""

    async def run() -> None:
        signer = sandboxed(Scripted, "good")
        assert jose.verifies(PRIVATE.public_key(), b"input", await sign_once(signer))
        await signer.aclose()
        await signer.aclose()

    asyncio.run(run())


@pytest.mark.parametrize(
    "error",
    [
        ValueError("s3cret"),
        SystemExit("s3cret"),
        KeyboardInterrupt("s3cret"),
        PanicException("s3cret"),
        InvalidSender("s3cret"),
    ],
    ids=repr,
)
def test_any_exception_becomes_a_plugin_fault(error: BaseException) -> None:
    """It names the plugin, the type and the place, and not the message; no cause is logged with it."""
    signer = sandboxed(lambda: Scripted(raising(error)), "faulty")
    with pytest.raises(
        PluginFault, match=rf"'faulty' raised {type(error).__name__} in sign \(test_sandbox.py:\d+\)"
    ) as caught:
        asyncio.run(sign_once(signer))
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    assert caught.value.reason == "plugin-fault"


def test_a_panic_of_the_reading_is_a_plugin_fault_too() -> None:
    """The refresher expects errors of the domain, and continues after one."""
    backend = Scripted()
    backend.read = raising(PanicException("s3cret"))
    with pytest.raises(PluginFault, match="'faulty' raised PanicException in key_versions"):
        asyncio.run(sandboxed(lambda: backend, "faulty").key_versions())


@pytest.mark.parametrize("error", [PanicException("s3cret"), asyncio.CancelledError("s3cret")], ids=repr)
def test_no_number_is_worth_a_fault(error: BaseException) -> None:
    """A plugin that can't count has no numbers, and is asked again."""

    class Miscounting(Scripted):
        asked = 0

        def statistics(self) -> Statistics:
            self.asked += 1
            raise error

    backend = Miscounting()

    async def run() -> None:
        signer = sandboxed(lambda: backend, "miscounting")
        for _ in range(3):
            await sign_once(signer)
            assert signer.statistics() == {"circuit_open": 0, "unusable_keys": 0}
        await sign_once(signer)  # after what the plugin's loop was given before

    asyncio.run(run())
    assert backend.asked == 3


@pytest.mark.parametrize(
    "error", [PanicException("s3cret"), SystemExit("s3cret"), ValueError("s3cret")], ids=repr
)
def test_any_exception_in_prepare_ends_the_start_with_a_line(error: BaseException) -> None:
    """As what the settings can't do: it names the plugin, the type and the place, and not the message."""

    def prepare(_: object) -> object:
        raise error

    with pytest.raises(
        SignerMisconfigured,
        match=rf"'faulty' raised {type(error).__name__} in prepare \(test_sandbox.py:\d+\)",
    ) as caught:
        prepared_state(plugin_with(prepare), {})
    assert "s3cret" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_panic_of_the_pickling_ends_the_start_with_a_line() -> None:
    class Unpicklable:
        def __reduce__(self) -> str:
            raise PanicException("s3cret")

    with pytest.raises(SignerMisconfigured, match=r"to a worker process \(PanicException\)"):
        prepared_state(plugin_with(lambda _: Unpicklable()), {})


class Settings(msgspec.Struct, frozen=True):
    """A plugin that has nothing to set."""


def plugin_with(prepare: Callable[[object], object]) -> SignerPlugin:
    return SignerPlugin(
        name="faulty",
        settings=Settings,
        settings_prefix="FAULTY_",
        prepare=prepare,
        open=lambda _: Scripted(),
    )


def test_errors_of_the_domain_pass() -> None:
    """A plugin that says why is believed."""
    signer = sandboxed(lambda: Scripted(raising(SignerRefused("no", reason="sealed"))), "faulty")
    with pytest.raises(SignerRefused) as caught:
        asyncio.run(sign_once(signer))
    assert caught.value.reason == "sealed"


def test_a_signer_that_can_not_be_opened_is_opened_at_the_next_call() -> None:
    """The service starts, and asks again."""
    attempts: Iterator[Callable[[], Signer]] = iter([lambda: 1 / 0, Scripted])  # type: ignore[list-item,return-value]

    async def run() -> None:
        signer = sandboxed(lambda: next(attempts)(), "late")  # noqa: PLW0108 - each time the next
        with pytest.raises(PluginFault, match="'late' raised ZeroDivisionError in key_versions"):
            await signer.key_versions()
        assert await sign_once(signer)

    asyncio.run(run())


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def tried(breaker: CircuitBreaker) -> type[BaseException] | None:
    try:
        asyncio.run(breaker.sign("k1", b"x"))
    except SignerError as error:
        return type(error)
    return None


def test_the_circuit_opens_and_one_call_tries_it() -> None:
    """After three failures nothing is asked for five seconds; then one call, whose success closes it."""
    backend, clock = Scripted(raising(SignerUnavailable("down"))), Clock()
    breaker = CircuitBreaker(backend, "down", failures=3, open_seconds=5, clock=clock)
    assert [tried(breaker) for _ in range(5)] == [SignerUnavailable] * 3 + [CircuitOpen] * 2
    assert backend.calls == 3
    clock.now += 5
    assert [tried(breaker), tried(breaker)] == [SignerUnavailable, CircuitOpen]
    clock.now += 5
    backend.first = None
    assert [tried(breaker), tried(breaker)] == [None, None]
    assert not breaker.is_open


def test_an_error_without_a_reason_opens_the_circuit() -> None:
    """A plugin's own error may not have called our constructor."""
    breaker = CircuitBreaker(Scripted(raising(Unready())), "unready", failures=1, open_seconds=5)
    with capture_logs() as logs:
        assert [tried(breaker), tried(breaker)] == [Unready, CircuitOpen]
    assert [(line["event"], line["reason"]) for line in logs] == [("circuit open", "failed")]


def test_only_one_call_at_a_time_tries_an_open_circuit() -> None:
    """A backend that is coming back is not met by everybody at once."""
    backend, clock = Scripted(raising(SignerUnavailable("down"))), Clock()
    breaker = CircuitBreaker(backend, "down", failures=1, open_seconds=5, clock=clock)
    tried(breaker)
    clock.now += 5
    backend.first = lambda: asyncio.sleep(0.01)

    async def run() -> list[object]:
        return await asyncio.gather(*(breaker.sign("k1", b"x") for _ in range(4)), return_exceptions=True)

    outcomes = asyncio.run(run())
    assert [type(outcome) for outcome in outcomes] == [bytes, CircuitOpen, CircuitOpen, CircuitOpen]
    assert CircuitOpen("x").reason == "circuit-open"


@pytest.mark.parametrize("error", [UnknownKid("k1"), SignerRefused("no"), SignerBusy("full")], ids=repr)
def test_a_backend_that_answers_does_not_open_the_circuit(error: SignerError) -> None:
    """Nor does our own limit say anything about it."""
    breaker = CircuitBreaker(Scripted(raising(error)), "up", failures=1, open_seconds=5)
    assert [tried(breaker), tried(breaker)] == [type(error)] * 2


class PrivateJWK(ECPublicJWK, frozen=True, tag_field="kty", tag="EC"):
    d: str = "secret"


def changed(**parts: object) -> KeyVersion:
    return msgspec.structs.replace(KEY.version, **parts)


@pytest.mark.parametrize(
    ("versions", "message"),
    [
        (None, "no sequence"),
        ([{"kid": "k1"}], "a dict for a key version"),
        ([changed(public_jwk={"kty": "EC", "d": "x"})], "a dict for a public key"),
        ([changed(public_jwk=PrivateJWK("P-256", "x", "y"))], "a PrivateJWK for a public key"),
        ([changed(public_jwk=ECPublicJWK("P-256", "AA", "AA"))], "a bad key as 'k1': x has 1 octets"),
        ([changed(algorithm=Algorithm.RS256)], "a bad key as 'k1': alg contradicts kty"),
        ([changed(algorithm="PS256")], "a part of a wrong type"),
        ([changed(kid=7)], "a part of a wrong type"),
        ([changed(kid="")], "whose kid is empty"),
        ([changed(can_sign="yes")], "a part of a wrong type"),
        ([changed(created_at=float("nan"))], "a time that is no number"),
    ],
)
def test_no_bad_key_is_published(versions: object, message: str) -> None:
    """Everything that a signer returns as its keys is checked, and the message names the signer."""
    backend = Scripted()
    backend.versions = versions
    with pytest.raises(SignerMisconfigured, match=f"'odd'.* {message}"):
        asyncio.run(sandboxed(lambda: backend, "odd").key_versions())


def test_a_kid_is_never_another_key_s() -> None:
    """The key that was published first stays the one that signatures are judged by."""
    backend = Scripted()
    other = LocalKey.signing("k1", jose.generate(Algorithm.ES256))

    async def run() -> None:
        signer = sandboxed(lambda: backend, "reusing")
        await signer.key_versions()
        backend.versions = [other.version]
        backend._honest = LocalSigner([other])
        with pytest.raises(SignerMisconfigured, match="'reusing' offers the kid 'k1' for another key"):
            await signer.key_versions()
        with pytest.raises(WrongSignature):
            await signer.sign("k1", b"x")

    asyncio.run(run())


def test_one_unusable_key_does_not_stop_the_others() -> None:
    """It is left out, logged once and counted; the last one that is left is a refusal."""
    backend = Scripted()
    short = changed(kid="short", public_jwk=ECPublicJWK("P-256", "AA", "AA"))
    backend.versions = [short, KEY.version]

    async def run() -> None:
        signer = sandboxed(lambda: backend, "mixed")
        for _ in range(2):
            assert await signer.key_versions() == [KEY.version]
        assert signer.statistics()["unusable_keys"] == 1
        backend.versions = [short]
        with pytest.raises(SignerMisconfigured, match="a bad key as 'short'"):
            await signer.key_versions()

    with capture_logs() as logged:
        asyncio.run(run())
    assert [line["kid"] for line in logged if line["event"] == "unusable key not published"] == ["short"]


def test_a_key_keeps_its_kid() -> None:
    """Under a new one at each reading, tokens that were just minted would not verify."""
    backend = Scripted()

    async def run() -> None:
        signer = sandboxed(lambda: backend, "renaming")
        await signer.key_versions()
        backend.versions = [changed(kid="k2")]
        with pytest.raises(SignerMisconfigured, match="'renaming' offers the key 'k1' as 'k2'"):
            await signer.key_versions()

    asyncio.run(run())


def test_a_refused_reading_counts_against_no_good_one() -> None:
    """A backend that was wrong once is believed again."""
    backend = Scripted()
    other = LocalKey.signing("k2", jose.generate(Algorithm.ES256)).version

    async def run() -> None:
        signer = sandboxed(lambda: backend, "wrong once")
        await signer.key_versions()
        backend.versions = [KEY.version, changed(kid="k2")]
        with pytest.raises(SignerMisconfigured, match="offers the key 'k1' as 'k2'"):
            await signer.key_versions()
        backend.versions = [KEY.version, other]
        assert [version.kid for version in await signer.key_versions()] == ["k1", "k2"]

    asyncio.run(run())


def test_what_is_checked_is_what_is_published() -> None:
    """A sequence that says something else when it is read again is read once."""

    class Changing(list[KeyVersion]):
        def __iter__(self) -> Iterator[KeyVersion]:
            good, self[:] = [*self[:]], [changed(kid="never-checked")]
            return iter(good)

    backend = Scripted()
    backend.versions = Changing([KEY.version])
    versions = asyncio.run(sandboxed(lambda: backend, "changing").key_versions())
    assert [version.kid for version in versions] == ["k1"]


def test_too_many_versions_are_refused() -> None:
    """And the remedy named; as many as may be are checked without holding up the event loop."""
    backend = Scripted()
    backend.versions = [
        changed(kid=f"k{number}", public_jwk=jose.public_jwk(jose.generate(Algorithm.ES256).public_key()))
        for number in range(200)
    ] * 26

    async def run() -> None:
        with pytest.raises(SignerMisconfigured, match="over 5000 key versions; withdraw old ones"):
            await sandboxed(lambda: backend, "hoarding").key_versions()

    asyncio.run(run())


def test_an_algorithm_may_be_a_plain_text() -> None:
    """What equals the enumeration's member is made one, and no AttributeError comes of it."""
    backend = Scripted()
    backend.versions = [changed(algorithm="ES256")]
    (version,) = asyncio.run(sandboxed(lambda: backend, "plain").key_versions())
    assert version.algorithm is Algorithm.ES256


def test_generator_exit_is_a_fault_of_the_plugin() -> None:
    """As any other exception that a plugin raises, and counted by the circuit."""
    signer = sandboxed(lambda: Scripted(raising(GeneratorExit())), "odd", Limits(failures=1))

    async def run() -> None:
        await signer.key_versions()
        with pytest.raises(PluginFault, match="GeneratorExit"):
            await signer.sign("k1", b"x")
        with pytest.raises(CircuitOpen):
            await signer.sign("k1", b"x")

    asyncio.run(run())
