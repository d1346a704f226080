"""A signer in a process of its own, which is replaced when it ends or no longer works."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import structlog
from msgspec import Struct

from macp_auth.adapters.sandbox.bulkhead import Bulkhead
from macp_auth.adapters.sandbox.limits import Limits
from macp_auth.adapters.sandbox.messages import (
    PROTOCOL,
    Description,
    Hello,
    Nothing,
    Numbers,
    Open,
    Sign,
    Signature,
    Versions,
)
from macp_auth.adapters.sandbox.process import Launch, SignerProcess
from macp_auth.adapters.sandbox.translation import PluginFault
from macp_auth.domain.errors import SignerError, SignerMisconfigured, SignerUnavailable
from macp_auth.domain.keys import KeyVersion
from macp_auth.domain.secret import Secret
from macp_auth.domain.signer import Signer
from macp_auth.domain.statistics import Statistics, sound_statistics

T = TypeVar("T")

START_SECONDS = 60.0
"""To start the program and import a plugin, on a machine that is slow or throttled."""
HEARTBEAT_SECONDS = 2.0
HEARTBEATS = 5
"""So many pass without an answer before a process is replaced: while the whole service stands still, as on a
suspended machine, only one passes."""
SILENT_SECONDS = HEARTBEAT_SECONDS * HEARTBEATS
"""How long a process may answer no heartbeat, or no call: as long as a reading of the keys may take."""
MAX_BACK_OFF_SECONDS = 4.0
"""With the time of a start, a recovered plugin signs within 5 s."""
_FIRST_BACK_OFF_SECONDS = 0.25
CLOSE_SECONDS = 1.5
"""Less than the deadline of ``aclose()``, which includes the end of the process."""
_NO_REQUEST = contextvars.Context()
"""For tasks that outlive the request that caused them: their log lines have no request id."""
_log = structlog.get_logger()


class Opening(Struct, frozen=True):
    """What a process needs to open its signer."""

    launch: Launch
    environment: Mapping[str, str]
    state: Secret[bytes]
    concurrent_signs: int
    first: SignerProcess | None = None
    """The first process, if it has started."""


async def greeted(process: SignerProcess, name: str) -> Description:
    """Return what the signer in ``process`` declares.

    Raises:
        SignerMisconfigured: it is another signer.
        SignerError: it can't be loaded, or the process ended.
    """
    description = await process.connection.call("hello", Hello(), Description)
    if description.protocol != PROTOCOL:
        raise SignerMisconfigured(
            f"the process of the signer {name!r} speaks version {description.protocol} of the signer "
            f"protocol, and this macp-auth speaks version {PROTOCOL}"
        )
    if description.name != name:
        raise SignerMisconfigured(
            f"the process of the signer {name!r} has another signer, {description.name!r}; "
            "set MACP_AUTH_SIGNER to its name"
        )
    return description


def pause_after(ends: int) -> float:
    """Return the seconds before the next start, after so many ends before this one."""
    growth = min(ends, 10)  # the power of a large number can't be converted
    return min(_FIRST_BACK_OFF_SECONDS * 2**growth, MAX_BACK_OFF_SECONDS) if ends else 0.0


def _after(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


async def _asked(process: SignerProcess, method: str) -> None:
    with suppress(SignerError):
        await process.connection.call(method, Nothing(), Nothing)


class HostedSigner(Signer):
    """Passes calls to the process, which starts at once: it loads while a worker builds its application.

    A process that answers no heartbeat for :data:`SILENT_SECONDS`, or that for so long fails to sign, or to
    read its keys while it signs nothing, with anything but an error of the port, is replaced. Between two
    starts is a growing pause.
    Made in the event loop that uses it.

    Each call has a deadline, and ends when it is cancelled. A signature of which the process has not answered
    the cancellation keeps its turn: what a process works on at once is limited.

    Args:
        opening: what the process needs.
        limits: the deadlines, and the number of calls that may be pending.
    """

    def __init__(self, opening: Opening, limits: Limits) -> None:
        self._opening = opening
        self._name = opening.launch.name
        self._process: SignerProcess | None = None
        self._watching: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._closed = False
        self._limits = limits
        self._bulkhead = Bulkhead(
            self._name, concurrent=opening.concurrent_signs, pending=limits.pending_signs
        )
        self._ends = 0  # of processes, since the last signature
        self._starts = 0
        self._start_at = 0.0
        self._failing_since: dict[str, float] = {}  # by method
        self._numbers: Statistics = {}
        self._reading_numbers: asyncio.Task[None] | None = None
        self._starting: asyncio.Task[SignerProcess] | None = None
        self._first = opening.first
        with suppress(SignerUnavailable):  # a call says why
            self._starting = self._start()

    async def key_versions(self) -> Sequence[KeyVersion]:
        """Return the versions that the process offers.

        Raises:
            SignerUnavailable: not in time.
        """
        seconds = self._limits.read_seconds
        try:
            return (await self._call("key_versions", Nothing(), Versions, _after(seconds))).versions
        except TimeoutError:
            raise self._late("key_versions", seconds) from None

    async def sign(self, kid: str, signing_input: bytes) -> bytes:
        """Return the signature that the process made.

        Raises:
            SignerBusy: too many other signatures are pending, or it had no turn in time. The backend may be
                well, so this opens no circuit.
            SignerUnavailable: not in time.
        """
        seconds, sign = self._limits.sign_seconds, Sign(kid, signing_input)
        deadline = _after(seconds)
        await self._bulkhead.take_turn(seconds)
        try:
            signature = await self._call("sign", sign, Signature, deadline, self._bulkhead.end_turn)
        except TimeoutError:
            raise self._late("sign", seconds) from None
        self._ends = 0
        return signature.signature

    def _late(self, operation: str, seconds: float) -> SignerUnavailable:
        return SignerUnavailable(
            f"the signer {self._name!r} did not end {operation} within {seconds:g} s", reason="deadline"
        )

    async def aclose(self) -> None:
        """Close the signer, and end the process; abandon both after a time, so that the service can end."""
        self._closed = True
        try:
            async with asyncio.timeout(self._limits.close_seconds):
                await self._close()
        except TimeoutError:
            _log.warning("the signer did not close", signer=self._name)

    async def _close(self) -> None:
        await asyncio.sleep(0)  # a start begins: cancelled before, it would not end its process
        process, self._process = self._process, None
        started = [
            each for each in (self._starting, self._watching, self._reading_numbers) if each is not None
        ]
        for task in started:
            task.cancel()
        if process is not None:
            await asyncio.wait([asyncio.create_task(_asked(process, "close"))], timeout=CLOSE_SECONDS)
            await process.kill()
        if ending := [*started, *self._ending]:
            await asyncio.wait(ending)

    def statistics(self) -> Statistics:
        """Return the signer's numbers from its last answer, and how often its process was replaced."""
        process = self._process
        if process is not None and (self._reading_numbers is None or self._reading_numbers.done()):
            self._reading_numbers = asyncio.create_task(self._read_numbers(process))
        return {
            **self._numbers,
            "process_restarts_total": max(0, self._starts - 1),
            "signatures_in_flight": self._bulkhead.pending,
        }

    async def _read_numbers(self, process: SignerProcess) -> None:
        with suppress(SignerError):
            numbers = await process.connection.call("statistics", Nothing(), Numbers)
            self._numbers = sound_statistics(numbers.numbers)

    async def _call(
        self,
        method: str,
        params: Any,
        expected: type[T],
        deadline: float,
        when_ended: Callable[[], None] = lambda: None,
    ) -> T:
        try:
            if (process := self._process) is None:
                async with asyncio.timeout_at(deadline):
                    process = await self._running()
        except BaseException:
            when_ended()
            raise
        try:
            result = await process.connection.call(method, params, expected, when_ended, deadline)
        except (asyncio.CancelledError, TimeoutError):
            self._failed(process, method, "it did not end in time")
            raise
        except PluginFault as error:
            self._failed(process, method, str(error))
            raise
        except SignerError:
            self._answered(method)
            raise
        self._answered(method)
        return result

    async def _running(self) -> SignerProcess:
        """Return the process, with an open signer."""
        if self._closed:
            raise SignerUnavailable(f"the signer {self._name!r} is closed", reason="closed")
        if self._process is not None:
            return self._process
        if self._starting is None:
            if (pause := self._start_at - time.monotonic()) > 0:
                raise SignerUnavailable(
                    f"the process of the signer {self._name!r} ended; it starts again in {pause:.1f} s",
                    reason="process-ended",
                )
            self._starting = self._start()
        return await asyncio.shield(self._starting)  # a caller may give up, and the start goes on

    def _start(self) -> asyncio.Task[SignerProcess]:
        self._starts += 1
        process, self._first = self._first or SignerProcess(self._opening.launch), None
        try:
            process.spawn()
        except SignerUnavailable:
            self._pause()
            raise
        starting = asyncio.create_task(self._open(process), context=_NO_REQUEST)
        starting.add_done_callback(self._started)
        return starting

    async def _open(self, process: SignerProcess) -> SignerProcess:
        opening = self._opening

        async def open_signer() -> None:
            await greeted(process, self._name)
            opened = Open(opening.environment, opening.state.reveal())
            await process.connection.call("open", opened, Nothing)

        try:
            await process.connect(lambda reason: self._lost(process, reason))
            await process.within(START_SECONDS, open_signer())
            process.connection.check()  # it may have ended since
        except asyncio.CancelledError:  # by aclose()
            await process.kill()
            raise
        except BaseException as error:
            self._pause()
            await self._end(process, str(error) or type(error).__name__)
            if isinstance(error, TimeoutError):
                raise SignerUnavailable(
                    f"the process of the signer {self._name!r} did not start within {START_SECONDS:g} s",
                    reason="deadline",
                ) from None
            raise
        self._process = process
        self._failing_since.clear()
        self._watching = asyncio.create_task(self._watch(process), context=_NO_REQUEST)
        return process

    def _started(self, task: asyncio.Task[SignerProcess]) -> None:
        self._starting = None
        if not task.cancelled():
            task.exception()  # retrieved: every caller may have given up

    async def _watch(self, process: SignerProcess) -> None:
        """Replace a process that does not answer heartbeats."""
        while True:
            answer = asyncio.create_task(_asked(process, "ping"))
            for _ in range(HEARTBEATS):
                await asyncio.sleep(HEARTBEAT_SECONDS)
                if answer.done():
                    break
            else:
                self._replace(process, f"it answered nothing for {SILENT_SECONDS:g} s")

    def _answered(self, method: str) -> None:
        if method == "sign":
            self._failing_since.clear()
        else:  # one that reads its keys well may be unable to sign
            self._failing_since.pop(method, None)

    def _failed(self, process: SignerProcess, method: str, fault: str) -> None:
        now = time.monotonic()
        if now - self._failing_since.setdefault(method, now) > SILENT_SECONDS:
            self._replace(process, f"each {method} failed for {SILENT_SECONDS:g} s; the last: {fault}")

    def _replace(self, process: SignerProcess, fault: str) -> None:
        _log.error("signer process does not work", signer=self._name, detail=fault)
        process.connection.close()  # calls `_lost`

    def _lost(self, process: SignerProcess, reason: str) -> None:
        if process is not self._process:  # while it starts or closes, somebody waits for it
            return
        self._process = None
        if self._watching is not None:
            self._watching.cancel()
        self._pause()
        ending = asyncio.create_task(self._end(process, reason), context=_NO_REQUEST)
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)

    async def _end(self, process: SignerProcess, reason: str) -> None:
        await process.kill()
        _log.error("signer process ended", signer=self._name, detail=reason, exit_status=process.exit_status)

    def _pause(self) -> None:
        self._start_at = time.monotonic() + pause_after(self._ends)
        self._ends += 1
