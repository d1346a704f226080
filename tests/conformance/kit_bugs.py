"""More signers with one fault each: those that the kit must name, and that need no service to be seen."""

from __future__ import annotations

import asyncio
import functools
import json
import multiprocessing
import os
import random
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Annotated, Any

import msgspec
from cryptography.hazmat.primitives.asymmetric import rsa
from msgspec import Meta

from macp_auth import (
    Algorithm,
    ECPublicJWK,
    KeyVersion,
    PublicJWK,
    RSAPublicJWK,
    Secret,
    SignerRefused,
    SignerUnavailable,
)
from macp_auth.adapters import jose
from macp_auth.domain.encoding import base64url
from tests.conformance.seeded_bugs import Bug, EntryPoint, GoodSigner, SeededSettings, kid_of, prepare

LONG = 30  # seconds; no check waits for that

# --- prepare and open -----------------------------------------------------------------------------------


def prepare_raising(_: SeededSettings) -> Any:
    raise FileNotFoundError(2, "no such file")


def prepare_hanging(_: SeededSettings) -> Any:
    time.sleep(LONG)


def open_nothing(_: SeededSettings) -> Any:
    return None


async def open_later(settings: SeededSettings) -> Any:
    return GoodSigner(settings)


def open_class(_: SeededSettings) -> Any:
    return GoodSigner


def open_raising(_: SeededSettings) -> Any:
    raise KeyError("url")


def open_hanging(_: SeededSettings) -> Any:
    time.sleep(LONG)


class CloseHangs(GoodSigner):
    async def aclose(self) -> None:
        await asyncio.sleep(LONG)


class CloseBlocks(GoodSigner):
    async def aclose(self) -> None:
        time.sleep(LONG)  # noqa: ASYNC251 - the fault


class CloseRaises(GoodSigner):
    async def aclose(self) -> None:
        raise ConnectionResetError(104, "reset")


class CloseSays(GoodSigner):
    async def aclose(self) -> Any:
        self.closed = True
        return True


class SynchronousClose(GoodSigner):
    def aclose(self) -> Any:
        self.closed = True


class UsedCloseRaises(GoodSigner):
    _used = False

    async def ask(self) -> None:
        await super().ask()
        self._used = True

    async def aclose(self) -> None:
        if self.closed and self._used:
            raise SignerUnavailable("closed")
        self.closed = True


# --- key versions ---------------------------------------------------------------------------------------


class KeysChanged(GoodSigner):
    """Returns what ``changed`` makes of a good reading."""

    async def key_versions(self) -> Any:
        return self.changed(list(await super().key_versions()))

    def changed(self, versions: list[KeyVersion]) -> Any:
        raise NotImplementedError


class KeysAsGenerator(KeysChanged):
    def changed(self, versions: list[KeyVersion]) -> Any:
        return (version for version in versions)


class KeysAsAsyncGenerator(GoodSigner):
    async def key_versions(self) -> AsyncIterator[KeyVersion]:  # type: ignore[override]  # the fault
        for version in await super().key_versions():
            yield version


class KeysAsSet(KeysChanged):
    def changed(self, versions: list[KeyVersion]) -> Any:
        return set(versions)


class NoneForKeys(KeysChanged):
    def changed(self, versions: list[KeyVersion]) -> Any:  # noqa: ARG002
        return None


class NoKeys(KeysChanged):
    def changed(self, versions: list[KeyVersion]) -> Any:  # noqa: ARG002
        return []


class TooManyKeys(KeysChanged):
    def changed(self, versions: list[KeyVersion]) -> Any:
        return versions * 5000


class LazyKeys(list[KeyVersion]):
    def __iter__(self) -> Iterator[KeyVersion]:
        raise ConnectionResetError(104, "reset")


class KeysFailLater(KeysChanged):
    def changed(self, versions: list[KeyVersion]) -> Any:
        return LazyKeys(versions)


class SynchronousKeys(GoodSigner):
    def key_versions(self) -> Any:
        return [self.version(key, created_at) for key, created_at in self.backend.pairs()]


class KeysHang(GoodSigner):
    async def key_versions(self) -> Sequence[KeyVersion]:
        await asyncio.sleep(LONG)
        return []


class KeysBlock(GoodSigner):
    async def key_versions(self) -> Sequence[KeyVersion]:
        time.sleep(LONG)  # noqa: ASYNC251 - the fault
        return []


class WaitsInThread(GoodSigner):
    async def key_versions(self) -> Sequence[KeyVersion]:
        await asyncio.to_thread(time.sleep, LONG)
        return []


class KeysRaise(GoodSigner):
    async def key_versions(self) -> Sequence[KeyVersion]:
        raise json.JSONDecodeError("Expecting value", "", 0)


class OtherVersion(GoodSigner):
    """Each version has ``fields`` changed."""

    fields: dict[str, Any]

    def version(self, key: jose.PrivateKey, created_at: float) -> KeyVersion:
        return msgspec.structs.replace(super().version(key, created_at), **self.fields)


def with_fields(**fields: Any) -> type[GoodSigner]:
    """Return a signer whose versions have these fields."""
    return type("OtherVersionHere", (OtherVersion,), {"fields": fields})


class JWKOfBytes(GoodSigner):
    def jwk(self, key: jose.PrivateKey) -> PublicJWK:
        jwk = super().jwk(key)
        assert isinstance(jwk, ECPublicJWK)
        return msgspec.structs.replace(jwk, x=jwk.x.encode())


class JWKAsDict(GoodSigner):
    def jwk(self, key: jose.PrivateKey) -> Any:
        return msgspec.to_builtins(super().jwk(key))


class KidAsBytes(GoodSigner):
    def version(self, key: jose.PrivateKey, created_at: float) -> KeyVersion:
        return msgspec.structs.replace(super().version(key, created_at), kid=kid_of(key).encode())


class KidWith(GoodSigner):
    """Each kid has ``more``."""

    more: str

    def version(self, key: jose.PrivateKey, created_at: float) -> KeyVersion:
        return msgspec.structs.replace(super().version(key, created_at), kid=kid_of(key) + self.more)

    def find(self, kid: str) -> jose.PrivateKey:
        return super().find(kid.removesuffix(self.more) if kid.endswith(self.more) else f"not {kid}")


class KidWithNewline(KidWith):
    more = "\n"


class KidWithControl(KidWith):
    more = "\x1b[31m"


class LongKid(KidWith):
    more = "x" * 256


class EmptyKid(KeysChanged):
    def changed(self, versions: list[KeyVersion]) -> Any:
        return [msgspec.structs.replace(versions[0], kid="")]


class KidOfEachCall(GoodSigner):
    def version(self, key: jose.PrivateKey, created_at: float) -> KeyVersion:
        kid = f"{kid_of(key)}-{os.urandom(8).hex()}"
        return msgspec.structs.replace(super().version(key, created_at), kid=kid)


class KeyOfEachCall(KeysChanged):
    def changed(self, versions: list[KeyVersion]) -> Any:
        new = jose.generate(Algorithm.ES256).public_key()
        return [msgspec.structs.replace(versions[0], public_jwk=jose.public_jwk(new))]


class OrderChanges(KeysChanged):
    _calls = 0

    def changed(self, versions: list[KeyVersion]) -> Any:
        self._calls += 1
        return versions[:: 1 if self._calls % 2 else -1]


class OrderOfEachProcess(KeysChanged):
    def changed(self, versions: list[KeyVersion]) -> Any:
        return versions[:: -1 if multiprocessing.parent_process() else 1]


class OrderOfEachSigner(KeysChanged):
    _opened = 0

    def __init__(self, settings: SeededSettings) -> None:
        super().__init__(settings)
        type(self)._opened += 1
        self._step = 1 if self._opened % 2 else -1

    def changed(self, versions: list[KeyVersion]) -> Any:
        return versions[:: self._step]


@functools.cache
def weak_jwk() -> PublicJWK:
    numbers = rsa.generate_private_key(65537, 1024).public_key().public_numbers()  # noqa: S505 - the fault
    return RSAPublicJWK(n=base64url(numbers.n.to_bytes(128)), e="AQAB")


class WeakKey(KeysChanged):
    def changed(self, versions: list[KeyVersion]) -> Any:
        weak = msgspec.structs.replace(
            versions[0], kid="weak", algorithm=Algorithm.RS256, public_jwk=weak_jwk()
        )
        return [*versions, weak]


# --- signatures -----------------------------------------------------------------------------------------


class SignHangs(GoodSigner):
    async def sign(self, kid: str, signing_input: bytes) -> bytes:  # noqa: ARG002
        await asyncio.sleep(LONG)
        return b""


class SignBlocks(GoodSigner):
    async def sign(self, kid: str, signing_input: bytes) -> bytes:  # noqa: ARG002
        time.sleep(LONG)  # noqa: ASYNC251 - the fault
        return b""


class SynchronousSign(GoodSigner):
    def sign(self, kid: str, signing_input: bytes) -> Any:
        return self.signature(self.find(kid), signing_input)


class NoSignature(GoodSigner):
    def signature(self, key: jose.PrivateKey, signing_input: bytes) -> Any:  # noqa: ARG002
        return None


class Octets(bytes):
    """Bytes of a vendor's own."""


class BytesOfItsOwn(GoodSigner):
    def signature(self, key: jose.PrivateKey, signing_input: bytes) -> Any:
        return Octets(jose.sign(key, signing_input))


class SignsCachedInput(GoodSigner):
    def signature(self, key: jose.PrivateKey, signing_input: bytes) -> Any:
        self._first: dict[jose.PrivateKey, bytes] = getattr(self, "_first", {})
        return jose.sign(key, self._first.setdefault(key, signing_input))


class CutsInputEarly(GoodSigner):
    def signature(self, key: jose.PrivateKey, signing_input: bytes) -> Any:
        return jose.sign(key, signing_input[:512])


class RaisesCancelled(GoodSigner):
    def signature(self, key: jose.PrivateKey, signing_input: bytes) -> Any:  # noqa: ARG002
        raise asyncio.CancelledError


class Slow(GoodSigner):
    async def ask(self) -> None:
        await super().ask()
        await asyncio.sleep(0.2)


class Blocks(GoodSigner):
    """No fault: the calls of a plugin in a process of its own are served one after the other."""

    async def ask(self) -> None:
        await super().ask()
        time.sleep(0.005)  # noqa: ASYNC251 - allowed


class RefusesTheNinth(GoodSigner):
    _running = 0

    async def ask(self) -> None:
        self._running += 1
        try:
            if self._running > 8:
                raise SignerUnavailable("all 8 sessions are in use", reason="busy")
            await super().ask()
        finally:
            self._running -= 1


class SharesItsWork(GoodSigner):
    _asking: asyncio.Task[None] | None = None

    async def ask(self) -> None:
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(super().ask())
        await self._asking  # without a shield: who is cancelled cancels it


class CleansUpForLong(GoodSigner):
    async def ask(self) -> None:
        try:
            await super().ask()
        except asyncio.CancelledError:
            await asyncio.sleep(LONG)
            raise


# --- faults of the backend ------------------------------------------------------------------------------


class ForFile(GoodSigner):
    """Does ``trouble`` while the backend has the file ``marker``."""

    marker: str

    async def ask(self) -> None:
        if (self.backend.folder / self.marker).exists():
            await self.trouble()
        await super().ask()

    async def trouble(self) -> None:
        raise NotImplementedError


class WaitsWhenDown(ForFile):
    marker = "down"

    async def trouble(self) -> None:
        await asyncio.sleep(LONG)


class RefusalWhenDown(ForFile):
    marker = "down"

    async def trouble(self) -> None:
        raise SignerRefused("no connection")


class BlocksWhenHanging(ForFile):
    marker = "hang"

    async def trouble(self) -> None:
        time.sleep(LONG)  # noqa: ASYNC251 - the fault


class RefusalAsUnavailable(ForFile):
    marker = "refuse"

    async def trouble(self) -> None:
        raise SignerUnavailable("permission denied")


class RetriesRefusal(ForFile):
    marker = "refuse"

    async def trouble(self) -> None:
        await asyncio.sleep(0.45)  # as often as fits
        raise SignerRefused("permission denied")


class VendorRefusal(ForFile):
    marker = "refuse"

    async def trouble(self) -> None:
        raise PermissionError(13, "permission denied")


class StaysRefused(ForFile):
    marker = "refuse"
    _refused = False

    async def ask(self) -> None:
        if self._refused and not self.closed:
            raise SignerRefused("permission denied")
        await super().ask()

    async def trouble(self) -> None:
        self._refused = True
        raise SignerRefused("permission denied")


class GarbageParsed(ForFile):
    marker = "garble"

    async def trouble(self) -> None:
        json.loads("<html>502 Bad Gateway</html>")


class GarbageSigned(GoodSigner):
    def signature(self, key: jose.PrivateKey, signing_input: bytes) -> Any:
        return jose.sign(key, signing_input)

    async def sign(self, kid: str, signing_input: bytes) -> Any:
        if (self.backend.folder / "garble").exists():
            return {"error": "502 Bad Gateway"}
        return await super().sign(kid, signing_input)


class GarbageIsNoKeys(GoodSigner):
    async def key_versions(self) -> Sequence[KeyVersion]:
        return [] if (self.backend.folder / "garble").exists() else await super().key_versions()


class WaitsForGarbage(ForFile):
    marker = "garble"

    async def trouble(self) -> None:
        await asyncio.sleep(LONG)


# --- secrets and output ---------------------------------------------------------------------------------


class Prints(GoodSigner):
    async def ask(self) -> None:
        await super().ask()
        print("asking")  # noqa: T201 - the fault


def prepare_revealed(settings: SeededSettings) -> Any:
    prepare(settings)
    return {"directory": settings.directory, "password": settings.credential.reveal()}


class OpensRevealed(GoodSigner):
    def __init__(self, state: dict[str, str]) -> None:
        super().__init__(SeededSettings(state["directory"], Secret(state["password"])))


class ShowsInCause(ForFile):
    marker = "down"

    async def trouble(self) -> None:
        try:
            raise ConnectionError(f"https://user:{self.settings.credential.reveal()}@acme.example")
        except ConnectionError as error:
            raise SignerUnavailable("no connection") from error


def prepare_asserting(settings: SeededSettings) -> Any:
    assert settings.credential.reveal().endswith("-end")
    return settings


# --- leaks and statistics -------------------------------------------------------------------------------


class _ClosesAtLast(GoodSigner):
    """The kit sees the leak, and the tests that follow have their descriptors."""

    def __init__(self, settings: SeededSettings) -> None:
        super().__init__(settings)
        self._leaked: list[int] = []

    def leak(self) -> None:
        self._leaked.append(os.dup(0))

    async def aclose(self) -> None:
        await super().aclose()
        while self._leaked:
            os.close(self._leaked.pop())


class LeaksDescriptors(_ClosesAtLast):
    def signature(self, key: jose.PrivateKey, signing_input: bytes) -> Any:
        self.leak()
        return super().signature(key, signing_input)


class LeaksDescriptorsWhenRead(_ClosesAtLast, KeysChanged):
    def changed(self, versions: list[KeyVersion]) -> Any:
        self.leak()
        return versions


class LeaksThreads(GoodSigner):
    def __init__(self, settings: SeededSettings) -> None:
        super().__init__(settings)
        self._end = threading.Event()

    def signature(self, key: jose.PrivateKey, signing_input: bytes) -> Any:
        threading.Thread(target=self._end.wait, args=[LONG], daemon=True).start()
        return super().signature(key, signing_input)

    async def aclose(self) -> None:
        await super().aclose()
        self._end.set()


class LeaksTasks(GoodSigner):
    def signature(self, key: jose.PrivateKey, signing_input: bytes) -> Any:
        self._tasks: list[asyncio.Task[None]] = getattr(self, "_tasks", [])
        self._tasks.append(asyncio.create_task(asyncio.sleep(LONG)))
        return super().signature(key, signing_input)

    async def aclose(self) -> None:
        await super().aclose()
        for task in getattr(self, "_tasks", []):
            task.cancel()


class LeavesThread(GoodSigner):
    def __init__(self, settings: SeededSettings) -> None:
        super().__init__(settings)
        threading.Thread(target=time.sleep, args=[LONG], name="renewal", daemon=True).start()


class StatisticsBlock(GoodSigner):
    def statistics(self) -> Any:
        time.sleep(0.1)
        return {}


class StatisticsRaise(GoodSigner):
    def statistics(self) -> Any:
        raise ZeroDivisionError


class StatisticsList(GoodSigner):
    def statistics(self) -> Any:
        return ["sessions", 3]


class StatisticsLater(GoodSigner):
    async def statistics(self) -> Any:  # type: ignore[override]  # the fault
        return {"sessions": 3}


class StatisticsNaN(GoodSigner):
    def statistics(self) -> Any:
        return {"sessions": float("nan")}


class StatisticsNames(GoodSigner):
    def statistics(self) -> Any:
        return {"Open Sessions": 3}


# --- workers --------------------------------------------------------------------------------------------

_prepared: list[SeededSettings] = []


def prepare_in_a_global(settings: SeededSettings) -> Any:
    _prepared[:] = [settings]
    return prepare(settings)


class NeedsGlobal(GoodSigner):
    def __init__(self, _: SeededSettings) -> None:
        super().__init__(_prepared[0])


class SeedsGlobalGenerator(GoodSigner):
    """No fault: it does not sign with that."""

    def __init__(self, settings: SeededSettings) -> None:
        super().__init__(settings)
        random.seed(7)


# --- all of them ----------------------------------------------------------------------------------------

_DECLARES = "declares-its-limits"
_PREFIX = "prefix-is-its-own"
_CLOSES = "opens-and-closes"
_TYPES = "offers-a-key"
_KIDS = "kids-are-unique"
_TIMES = "times-are-seconds"
_RAW = "raw-form"
_GROWS = "nothing-grows"
_STATISTICS = "statistics-are-numbers"


class SettingsOfTheService(SeededSettings, frozen=True):
    """Its process would get the token of another signer."""

    token: Annotated[str | None, Meta(extra={"variable": "MACP_AUTH_VAULT_TOKEN"})] = None


def declaring(check: str, says: str, **declares: Any) -> Bug:
    return Bug(signer=GoodSigner, check=check, says=says, declares=declares)


KIT_BUGS: dict[str, Bug] = {
    "other-api": declaring(_DECLARES, "api_version is 2: .* was written for version 2", api_version=2),
    "no-api": declaring(_DECLARES, "api_version is None", api_version=None),
    "api-as-text": declaring(_DECLARES, "api_version is '1'", api_version="1"),
    "no-time-to-sign": declaring(_DECLARES, "sign_seconds is 0: it must be over 0", sign_seconds=0),
    "much-time-to-sign": declaring(_DECLARES, "sign_seconds is 60: .* at most 5", sign_seconds=60),
    "time-as-text": declaring(_DECLARES, "sign_seconds is '1'", sign_seconds="1"),
    "no-concurrency": declaring(_DECLARES, "concurrent_signs is 0", concurrent_signs=0),
    "half-concurrency": declaring(_DECLARES, "concurrent_signs is 0.5", concurrent_signs=0.5),
    "environment-as-text": declaring(_DECLARES, "environment is 'AWS_", environment="AWS_*"),
    "star-in-the-middle": declaring(_DECLARES, "a star at most at the end", environment=("A*_KEY",)),
    "environment-of-the-service": declaring(
        _DECLARES,
        "environment includes MACP_AUTH_.*, a variable of the service",
        environment=("MACP_AUTH_*",),
    ),
    "no-function": declaring(_DECLARES, "diagnose is a str", diagnose="diagnose"),
    "no-prefix": declaring(_PREFIX, "its prefix is ''", settings_prefix=""),
    "lower-case-prefix": declaring(_PREFIX, "it must be MACP_AUTH_", settings_prefix="macp_auth_seeded_"),
    "prefix-without-end": declaring(_PREFIX, "and an underscore", settings_prefix="MACP_AUTH_SEEDED"),
    "prefix-of-all": declaring(_PREFIX, "its prefix is 'MACP_AUTH_'", settings_prefix="MACP_AUTH_"),
    "prefix-of-the-service": declaring(
        _PREFIX, "is a variable of the service", settings_prefix="MACP_AUTH_KEY_"
    ),
    "setting-of-the-service": declaring(
        "settings-are-usable",
        "its variables include MACP_AUTH_VAULT_TOKEN, a variable of the service",
        settings=SettingsOfTheService,
    ),
    "prefix-of-a-built-in-signer": declaring(
        _PREFIX, "MACP_AUTH_VAULT_TOKEN is a variable of the service", settings_prefix="MACP_AUTH_VAULT_"
    ),
    "prepare-raises": Bug(
        signer=GoodSigner,
        prepare=prepare_raising,
        check="state-travels",
        says=r"prepare\(\) raised FileNotFoundError \(kit_bugs.py:",
    ),
    "prepare-hangs": Bug(
        signer=GoodSigner,
        prepare=prepare_hanging,
        check="state-travels",
        says=r"prepare\(\) hangs",
        seconds=0.5,
    ),
    "opens-nothing": declaring(_CLOSES, "returned a NoneType", open=open_nothing),
    "opens-later": declaring(_CLOSES, "returned a coroutine", open=open_later),
    "opens-a-class": declaring(_CLOSES, "derived from Signer", open=open_class),
    "open-raises": declaring(_CLOSES, r"open\(\) raised KeyError", open=open_raising),
    "open-hangs": Bug(
        signer=GoodSigner,
        declares={"open": open_hanging},
        check=_CLOSES,
        says=r"open\(\) hangs",
        seconds=0.5,
    ),
    "close-hangs": Bug(signer=CloseHangs, check=_CLOSES, says=r"aclose\(\) hangs: .* after 2 s"),
    "close-blocks": Bug(signer=CloseBlocks, check=_CLOSES, says=r"aclose\(\) hangs: .* after 2 s"),
    "close-raises": Bug(signer=CloseRaises, check=_CLOSES, says=r"aclose\(\) raised ConnectionResetError"),
    "close-says": Bug(signer=CloseSays, check=_CLOSES, says=r"aclose\(\) returned a bool"),
    "synchronous-close": Bug(signer=SynchronousClose, check=_CLOSES, says="define it with async def"),
    "used-close-raises": Bug(
        signer=UsedCloseRaises, check="close-is-idempotent", says=r"call 2 of aclose\(\) raised"
    ),
    "keys-as-generator": Bug(signer=KeysAsGenerator, check=_TYPES, says="returned a generator"),
    "keys-as-async-generator": Bug(signer=KeysAsAsyncGenerator, check=_TYPES, says="without yield"),
    "keys-as-set": Bug(signer=KeysAsSet, check=_TYPES, says="returned a set: return a list"),
    "none-for-keys": Bug(signer=NoneForKeys, check=_TYPES, says="returned a NoneType"),
    "no-keys": Bug(signer=NoKeys, check=_TYPES, says="returns 0 versions"),
    "too-many-keys": Bug(signer=TooManyKeys, check=_TYPES, says="returned 10000 versions"),
    "keys-fail-later": Bug(signer=KeysFailLater, check=_TYPES, says="raised ConnectionResetError"),
    "synchronous-keys": Bug(signer=SynchronousKeys, check=_TYPES, says="returned a list without await"),
    "keys-hang": Bug(signer=KeysHang, check=_TYPES, says=r"key_versions\(\) hangs", seconds=0.5),
    "keys-block": Bug(signer=KeysBlock, check=_TYPES, says=r"key_versions\(\) hangs", seconds=0.5),
    "keys-raise": Bug(signer=KeysRaise, check=_TYPES, says=r"key_versions\(\) raised JSONDecodeError"),
    "can-sign-as-number": Bug(
        signer=with_fields(can_sign=1), check=_TYPES, says="Expected `bool`, got `int`"
    ),
    "algorithm-as-text": Bug(
        signer=with_fields(algorithm="ES256"), check=_TYPES, says="algorithm of a KeyVersion is a str"
    ),
    "time-is-true": Bug(signer=with_fields(created_at=True), check=_TYPES, says="got `bool`"),
    "time-is-text": Bug(signer=with_fields(created_at="2026-11-29"), check=_TYPES, says="got `str`"),
    "jwk-as-dict": Bug(signer=JWKAsDict, check=_TYPES, says="public_jwk of a KeyVersion is a dict"),
    "jwk-of-bytes": Bug(signer=JWKOfBytes, check=_TYPES, says="a member of public_jwk is a bytes"),
    "kid-as-bytes": Bug(signer=KidAsBytes, check=_TYPES, says="kid of a KeyVersion is a bytes"),
    "kid-with-newline": Bug(signer=KidWithNewline, check=_KIDS, says="no control characters"),
    "kid-with-control": Bug(signer=KidWithControl, check=_KIDS, says="is not a kid"),
    "long-kid": Bug(signer=LongKid, check=_KIDS, says="1 to 256 characters"),
    "empty-kid": Bug(signer=EmptyKid, check=_KIDS, says="'' is not a kid"),
    "wrong-algorithm": Bug(
        signer=with_fields(algorithm=Algorithm.RS256), check="published-keys-are-good", says="is invalid"
    ),
    "weak-key": Bug(signer=WeakKey, check="published-keys-are-good", says="'weak' is invalid: .*2048"),
    "time-is-no-number": Bug(signer=with_fields(created_at=float("nan")), check=_TIMES, says="is nan"),
    "created-later": Bug(
        signer=with_fields(created_at=time.time() + 200_000), check=_TIMES, says="in the future"
    ),
    "before-the-epoch": Bug(signer=with_fields(not_before=-1.0), check=_TIMES, says="not_before of .* is -1"),
    "ends-before-it-begins": Bug(
        signer=with_fields(not_before=2e9, not_after=1e9), check="not-after-is-later", says="never signs"
    ),
    "kid-of-each-call": Bug(signer=KidOfEachCall, check="readings-agree", says="there is a new kid"),
    "key-of-each-call": Bug(signer=KeyOfEachCall, check="readings-agree", says="names another key"),
    "order-changes": Bug(signer=OrderChanges, check="readings-agree", says="have another order"),
    "order-of-each-signer": Bug(
        signer=OrderOfEachSigner, check="kids-survive-a-worker", says="have another order"
    ),
    "order-of-each-process": Bug(
        signer=OrderOfEachProcess, check="spawned-worker", says="the versions in another order"
    ),
    "sign-hangs": Bug(signer=SignHangs, check=_RAW, says=r"sign\(\) hangs: .* after 2.5 s"),
    "sign-blocks": Bug(signer=SignBlocks, check=_RAW, says=r"sign\(\) hangs: .* after 2.5 s"),
    "synchronous-sign": Bug(signer=SynchronousSign, check=_RAW, says="returned a bytes without await"),
    "no-signature": Bug(signer=NoSignature, check=_RAW, says="returned a NoneType"),
    "bytes-of-its-own": Bug(signer=BytesOfItsOwn, check=_RAW, says="returned a Octets"),
    "signs-cached-input": Bug(signer=SignsCachedInput, check=_RAW, says="does not verify"),
    "raises-cancelled": Bug(signer=RaisesCancelled, check=_RAW, says="without a cancellation"),
    "cuts-input-early": Bug(signer=CutsInputEarly, check="every-byte-counts", says="does not verify"),
    "slow": Bug(
        signer=Slow,
        declares={"sign_seconds": 0.1},
        check="signs-in-time",
        says="takes 0.2. s, and the host abandons it after 0.1 s",
    ),
    "refuses-the-ninth": Bug(
        signer=RefusesTheNinth, check="many-at-once", says=r"sign\(\) raised SignerUnavailable: all 8"
    ),
    "shares-its-work": Bug(signer=SharesItsWork, check="cancellation", says="makes a concurrent one fail"),
    "cleans-up-for-long": Bug(
        signer=CleansUpForLong, check="cancellation", says="a cancelled sign.. continues"
    ),
    "waits-when-down": Bug(signer=WaitsWhenDown, check="backend-down-and-back", says="does not end within"),
    "refusal-when-down": Bug(
        signer=RefusalWhenDown, check="backend-down-and-back", says="sign.. raised SignerRefused"
    ),
    "blocks-when-hanging": Bug(signer=BlocksWhenHanging, check="hang-is-bounded", says=r"sign\(\) hangs"),
    "refusal-as-unavailable": Bug(
        signer=RefusalAsUnavailable,
        check="backend-refuses",
        says="raised SignerUnavailable: a retry does not",
    ),
    "retries-refusal": Bug(signer=RetriesRefusal, check="backend-refuses", says=r"sign\(\) takes 0.[45]"),
    "vendor-refusal": Bug(signer=VendorRefusal, check="backend-refuses", says="raised PermissionError"),
    "stays-refused": Bug(signer=StaysRefused, check="backend-refuses", says="still fails"),
    "garbage-parsed": Bug(
        signer=GarbageParsed, check="backend-answers-garbage", says="raised JSONDecodeError"
    ),
    "garbage-signed": Bug(
        signer=GarbageSigned, check="backend-answers-garbage", says=r"sign\(\) returned a dict"
    ),
    "garbage-is-no-keys": Bug(
        signer=GarbageIsNoKeys, check="backend-answers-garbage", says="returns other keys"
    ),
    "waits-for-garbage": Bug(
        signer=WaitsForGarbage, check="backend-answers-garbage", says=r"sign\(\) does not end"
    ),
    "prints": Bug(signer=Prints, check="prints-nothing", says="written to standard output: remove print"),
    "shows-state": Bug(
        signer=OpensRevealed, prepare=prepare_revealed, check="quiet-repr", says=r"what prepare\(\) returns"
    ),
    "shows-in-cause": Bug(signer=ShowsInCause, check="quiet-errors", says="shows a secret"),
    "asserting-refusal": Bug(
        signer=GoodSigner,
        prepare=prepare_asserting,
        check="quiet-refusal",
        says="prepare.. raised AssertionError",
    ),
    "leaks-descriptors": Bug(
        signer=LeaksDescriptors, check=_GROWS, says=r"calls of sign\(\) leave \d+ more descriptors"
    ),
    "leaks-descriptors-when-read": Bug(
        signer=LeaksDescriptorsWhenRead, check=_GROWS, says=r"key_versions\(\) leave \d+ more descriptors"
    ),
    "leaks-threads": Bug(signer=LeaksThreads, check=_GROWS, says="more threads"),
    "leaks-tasks": Bug(signer=LeaksTasks, check=_GROWS, says="more tasks"),
    "leaves-a-thread": Bug(signer=LeavesThread, check="nothing-is-left", says="the thread renewal"),
    "statistics-block": Bug(signer=StatisticsBlock, check=_STATISTICS, says="blocks for 1.. ms"),
    "statistics-raise": Bug(signer=StatisticsRaise, check=_STATISTICS, says="raised ZeroDivisionError"),
    "statistics-list": Bug(signer=StatisticsList, check=_STATISTICS, says="returned a list"),
    "statistics-later": Bug(signer=StatisticsLater, check=_STATISTICS, says="returned a coroutine"),
    "statistics-nan": Bug(signer=StatisticsNaN, check=_STATISTICS, says="'sessions': nan"),
    "statistics-names": Bug(signer=StatisticsNames, check=_STATISTICS, says="'Open Sessions': 3"),
    "needs-a-global": Bug(
        signer=NeedsGlobal,
        prepare=prepare_in_a_global,
        check="spawned-worker",
        says="in a worker process, the signer raised IndexError",
    ),
    "local-open": declaring(
        "spawned-worker",
        "another process can't find open",
        open=lambda settings: Blocks(settings),  # noqa: PLW0108 - it can't be pickled
    ),
}

GOOD: dict[str, type[GoodSigner]] = {"blocks": Blocks, "seeds": SeedsGlobalGenerator}
"""What is unusual, but no fault."""

WAITS_IN_THREAD = EntryPoint("waits-in-thread", Bug(signer=WaitsInThread, check="", says=""))
"""For a command: Python does not end before such a call."""
