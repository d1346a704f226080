"""Watches the calls of one check: which one hangs, and whose fault an exception is.

A check gets the author's subject and its signers wrapped in these classes. So nothing is guessed: what the
signer raises becomes a Nonconformity, what the subject raises a SubjectFault; the rest is the kit's fault.
"""

from __future__ import annotations

import asyncio
import copy
import inspect
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from macp_auth.adapters.well_formed import MAX_VERSIONS
from macp_auth.domain.errors import MACPAuthError, SignerError
from macp_auth.domain.keys import Algorithm, ECPublicJWK, KeyVersion, RSAPublicJWK
from macp_auth.domain.signer import Signer
from macp_auth.testing.registry import Nonconformity, Skipped
from macp_auth.testing.subject import SignerSubject

T = TypeVar("T")

OBEY_SECONDS = 1.0
"""How soon a call must end after its cancellation."""
START_SECONDS = 10.0
"""For ``prepare`` and ``open``."""
READ_SECONDS = 10.0
"""For ``key_versions``, as in the host."""
CLOSE_SECONDS = 2.0
"""For ``aclose``, as in the host."""
_NOT_CONVERTED: dict[str, tuple[type, ...]] = {
    "kid": (str,),
    "algorithm": (Algorithm,),
    "public_jwk": (RSAPublicJWK, ECPublicJWK),
}
"""The types of fields for which msgspec would convert another type to a valid one."""
SUBJECT_SECONDS = 30.0
"""For a method of the subject, which may restart a server."""


class SubjectFault(Exception):
    """A method of the author's subject failed. The text names it and the place."""


class Calls:
    """The calls in progress, for the thread that supervises the check."""

    def __init__(self) -> None:
        self._running: dict[object, tuple[str, str, float]] = {}
        self._moved = time.monotonic()
        self.refused: dict[BaseException, str] = {}
        """The operation of each SignerError that a signer raised."""

    def hung(self) -> str | None:
        """Name the call that hangs: since its limit, no call began or ended.

        So calls that a signer serves one after the other do not hang while it makes progress.
        """
        idle = time.monotonic() - self._moved
        for operation, remedy, limit in list(self._running.values()):
            if idle > limit:
                return f"{operation} hangs: it has not ended after {limit:g} s; {remedy}"
        return None

    def in_progress(self) -> str | None:
        """Return the name of a call in progress."""
        return next((operation for operation, *_ in list(self._running.values())), None)

    @contextmanager
    def _running_as(self, operation: str, remedy: str, limit: float) -> Iterator[None]:
        token = object()
        self._running[token] = operation, remedy, limit
        self._moved = time.monotonic()
        try:
            yield
        finally:
            self._moved = time.monotonic()
            del self._running[token]

    @contextmanager
    def of_signer(self, operation: str, limit: float) -> Iterator[None]:
        """Blame the signer for an exception that is not a SignerError."""
        with self._running_as(operation, "set a timeout on what it waits for", limit):
            try:
                yield
            except (Nonconformity, Skipped, GeneratorExit):
                raise
            except SignerError as error:
                self.refused[error] = operation
                raise
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise
                raise Nonconformity(
                    f"{operation} raised CancelledError without a cancellation: translate it"
                ) from None
            except BaseException as error:
                raise Nonconformity(
                    f"{operation} raised {type(error).__name__} ({place(error)}), which is not a "
                    "SignerError: translate it where the backend is called"
                ) from error

    @contextmanager
    def of_subject(self, operation: str) -> Iterator[None]:
        """Blame the subject for any exception."""
        with self._running_as(f"{operation} of the subject", "fix the test", SUBJECT_SECONDS):
            try:
                yield
            except (Nonconformity, Skipped):
                raise
            except Exception as error:
                raise SubjectFault(
                    f"{operation} of the subject raised {type(error).__name__} ({place(error, 2)}): fix the "
                    "test; the signer was not checked"
                ) from error


def place(error: BaseException, frame: int = -1) -> str:
    """Return the file and line of a frame of ``error``: 0 is where it was caught, -1 where it was raised.

    What a subject raises was caught in :class:`Calls` and passed through this module: 2 is its own frame.
    """
    frames = traceback.extract_tb(error.__traceback__)
    found = frames[frame] if frame < len(frames) else frames[-1]
    return f"{Path(found.filename).name}:{found.lineno}"


class WatchedSigner(Signer):
    """A signer whose results have the right types, with as many signatures at once as its plugin declares."""

    def __init__(self, signer: Signer, subject: SignerSubject, calls: Calls) -> None:
        self._signer: Any = signer
        self._calls = calls
        self._sign_seconds = subject.plugin.sign_seconds + OBEY_SECONDS + 1
        self._places = asyncio.Semaphore(subject.plugin.concurrent_signs)

    def __repr__(self) -> str:
        return repr(self._signer)

    def __str__(self) -> str:
        return str(self._signer)

    async def key_versions(self) -> Sequence[KeyVersion]:
        """Return the signer's versions."""
        versions: object = await self._call("key_versions()", READ_SECONDS, self._signer.key_versions)
        with self._calls.of_signer("key_versions()", READ_SECONDS):  # the sequence may be the signer's own
            return _well_typed(versions)

    async def sign(self, kid: str, signing_input: bytes) -> bytes:
        """Return what the signer returns, of any type."""
        async with self._places:
            return await self._call(
                "sign()", self._sign_seconds, lambda: self._signer.sign(kid, signing_input)
            )

    async def aclose(self) -> None:
        """Close the signer."""
        outcome: object = await self._call("aclose()", CLOSE_SECONDS, self._signer.aclose)
        if outcome is not None:
            raise Nonconformity(f"aclose() returned a {type(outcome).__name__}: return None")

    def statistics(self) -> Any:
        """Return what the signer returns, of any type."""
        with self._calls.of_signer("statistics()", CLOSE_SECONDS):
            return self._signer.statistics()

    async def _call(self, operation: str, limit: float, call: Callable[[], Awaitable[T]]) -> T:
        with self._calls.of_signer(operation, limit):
            called: object = call()
            if not inspect.isawaitable(called):
                raise Nonconformity(
                    f"{operation} returned a {type(called).__name__} without await: define it with async def"
                    ", and without yield"
                )
            result: T = await called
            return result


def _well_typed(versions: object) -> Sequence[KeyVersion]:
    """Return ``versions`` with the right types: msgspec does not check a struct that Python code makes."""
    if not isinstance(versions, Sequence) or isinstance(versions, str | bytes):
        raise Nonconformity(
            f"key_versions() returned a {type(versions).__name__}: return a list of KeyVersions"
        )
    if len(versions) > MAX_VERSIONS:
        raise Nonconformity(
            f"key_versions() returned {len(versions)} versions: return at most {MAX_VERSIONS}"
        )
    for version in versions:
        if type(version) is not KeyVersion:
            raise Nonconformity(
                f"key_versions() returned a {type(version).__name__} in the list: return KeyVersions"
            )
        for name, types in _NOT_CONVERTED.items():
            if not isinstance(value := getattr(version, name), types):
                wanted = " or ".join(each.__name__ for each in types)
                raise Nonconformity(f"{name} of a KeyVersion is a {type(value).__name__}: use {wanted}")
        for value in msgspec.structs.astuple(version.public_jwk):
            if not isinstance(value, str):
                raise Nonconformity(f"a member of public_jwk is a {type(value).__name__}: use base64url text")
        try:
            msgspec.convert(msgspec.to_builtins(version), KeyVersion)
        except (msgspec.ValidationError, TypeError, ValueError) as error:
            raise Nonconformity(f"a field of a KeyVersion has a wrong type: {error}") from None
    return versions


class WatchedSubject(SignerSubject):
    """The author's subject, watched.

    Args:
        subject: the author's subject.
        calls: where its calls are recorded.
    """

    def __init__(self, subject: SignerSubject, calls: Calls) -> None:
        super().__init__(subject.plugin, subject.environ)
        self._subject = subject
        self._calls = calls

    async def rotate(self) -> None:
        """Call the subject's."""
        await self._on_backend("rotate()", self._subject.rotate)

    async def break_backend(self) -> None:
        """Call the subject's."""
        await self._on_backend("break_backend()", self._subject.break_backend)

    async def hang_backend(self) -> None:
        """Call the subject's."""
        await self._on_backend("hang_backend()", self._subject.hang_backend)

    async def refuse_backend(self) -> None:
        """Call the subject's."""
        await self._on_backend("refuse_backend()", self._subject.refuse_backend)

    async def garble_backend(self) -> None:
        """Call the subject's."""
        await self._on_backend("garble_backend()", self._subject.garble_backend)

    async def restore_backend(self) -> None:
        """Call the subject's."""
        await self._on_backend("restore_backend()", self._subject.restore_backend)

    async def _on_backend(self, operation: str, call: Callable[[], Awaitable[None]]) -> None:
        with self._calls.of_subject(operation):
            await call()

    def secrets(self) -> Collection[str | bytes]:
        """Call the subject's."""
        with self._calls.of_subject("secrets()"):
            return list(self._subject.secrets())

    def with_environ(self, environ: Mapping[str, str]) -> WatchedSubject:
        """Return a copy with other variables. Its class may have any constructor, so it is not called."""
        changed = copy.copy(self._subject)
        changed.environ = environ
        return WatchedSubject(changed, self._calls)

    def settings(self) -> Struct:
        """Return the subject's settings."""
        return self._subject.settings()

    async def prepare(self) -> bytes:
        """Return the pickled state."""
        with self._calls.of_signer("prepare()", START_SECONDS):
            try:
                return await self._subject.prepare()
            except MACPAuthError as error:
                self._calls.refused[error] = "prepare()"
                refused = error
        raise refused  # outside, because a ConfigurationError is the host's

    def open(self, prepared: bytes) -> WatchedSigner:
        """Return the signer, watched."""
        with self._calls.of_signer("open()", START_SECONDS):
            signer: object = self._subject.open(prepared)
            if not isinstance(signer, Signer):
                if inspect.iscoroutine(signer):
                    signer.close()
                raise Nonconformity(
                    f"open() returned a {type(signer).__name__}: return an object whose class is derived "
                    "from Signer"
                )
        return WatchedSigner(signer, self, self._calls)

    @asynccontextmanager
    async def opened(self, prepared: bytes | None = None) -> AsyncIterator[WatchedSigner]:
        """Open a signer, and close it at the end. A fault of the check comes before one of ``aclose``."""
        signer = self.open(prepared if prepared is not None else await self.prepare())
        try:
            yield signer
        except BaseException:
            with suppress(Exception):
                await signer.aclose()
            raise
        await signer.aclose()
