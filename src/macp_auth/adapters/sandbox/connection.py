"""The side of the protocol that is in the service: requests to the process of a signer.

All that comes from the process is untrusted: each part is decoded to its type, and its texts are redacted.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

import msgspec

from macp_auth.adapters.sandbox.messages import (
    Call,
    Cancel,
    Code,
    Failure,
    FrameReader,
    FrameTooLong,
    Reply,
    frame,
    raw,
)
from macp_auth.adapters.sandbox.translation import PluginFault
from macp_auth.domain.errors import (
    SignerError,
    SignerMisconfigured,
    SignerRefused,
    SignerUnavailable,
    UnknownKid,
)

T = TypeVar("T")

ENDED = "it ended"
CANCELLED_SECONDS = 10.0
"""How long a process may take to answer a cancelled call."""
_STEPS = 5
"""In so many steps: while the whole service stands still, as on a suspended machine, only one passes."""
_ERRORS: Mapping[int, type[SignerError]] = {
    Code.UNAVAILABLE: SignerUnavailable,
    Code.REFUSED: SignerRefused,
    Code.MISCONFIGURED: SignerMisconfigured,
    Code.FAULT: PluginFault,
}
_UNDECODABLE = (msgspec.DecodeError, UnicodeError, RecursionError)
_decode = msgspec.json.Decoder(Reply).decode


def _expire(reply: asyncio.Future[Reply]) -> None:
    if not reply.done():
        reply.set_exception(TimeoutError())


class ProcessEnded(SignerUnavailable):
    """The process of the signer ended, or broke the protocol, while a call waited."""

    default_reason = "process-ended"


class Connection(asyncio.Protocol):
    """The connection to the process of the signer ``name``.

    Args:
        name: the signer's name in messages.
        when_lost: called once when no more replies can come, with the reason.
    """

    def __init__(self, name: str, when_lost: Callable[[str], None]) -> None:
        self._name = name
        self._when_lost = when_lost
        self._reader = FrameReader()
        self._numbers = itertools.count(1)
        self._waiting: dict[int, tuple[asyncio.Future[Reply], Callable[[], None]]] = {}
        self._notified: dict[str, Callable[[msgspec.Raw], None]] = {}
        self._transport: asyncio.Transport | None = None
        self.lost: str | None = None
        """Why no more replies can come; None while they can."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's has another class

    def connection_lost(self, _: Exception | None) -> None:
        """Fail the waiting calls."""
        self._lose(ENDED)

    def data_received(self, data: bytes) -> None:
        """Pass each reply to its call."""
        try:
            for body in self._reader.feed(data):
                self._take(_decode(body))
        except (FrameTooLong, *_UNDECODABLE) as error:
            self._lose(f"it broke the protocol: {error}")

    def check(self) -> None:
        """Check that replies can come.

        Raises:
            ProcessEnded: they can't.
        """
        if self.lost is not None or self._transport is None:
            raise self._ended()

    def on(self, method: str, notified: Callable[[msgspec.Raw], None]) -> None:
        """Call ``notified`` with the parameters of each notification ``method``."""
        self._notified[method] = notified

    async def call(
        self,
        method: str,
        params: Any,
        expected: type[T],
        when_ended: Callable[[], None] = lambda: None,
        deadline: float | None = None,
    ) -> T:
        """Send a request, and return its result.

        Cancelled or late, it cancels the request and does not wait. A process that does not answer that is
        lost.

        Args:
            method: what is requested.
            params: its parameters.
            expected: the type of the result.
            when_ended: called once, when the process no longer works on the request: for a cancelled one,
                later than this function ends.
            deadline: when it is late, in the time of the event loop.

        Raises:
            TimeoutError: it is late.
            ProcessEnded: there will be no reply.
            SignerError: the error that the process replied.
        """
        number = next(self._numbers)
        loop = asyncio.get_running_loop()
        reply: asyncio.Future[Reply] = loop.create_future()
        self._waiting[number] = reply, when_ended
        # Not asyncio.timeout(), which takes three times as long.
        timer = None if deadline is None else loop.call_at(deadline, _expire, reply)
        try:
            self.check()
            self._send(Call(method, raw(params), number))
            return self._result(method, await reply, expected, params)
        except (asyncio.CancelledError, TimeoutError):
            if number in self._waiting:
                self._send(Call("cancel", raw(Cancel(number))))
                self._expect_end(number, method, _STEPS)
            raise
        except BaseException:
            self._end_call(number)  # if it was not sent
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def _send(self, call: Call) -> None:
        assert self._transport is not None  # noqa: S101 - checked
        self._transport.write(frame(call))

    def _expect_end(self, number: int, method: str, steps: int) -> None:
        """Lose a process that does not answer a cancelled call in so many steps."""
        if number not in self._waiting:
            return
        if steps == 0:
            self._lose(f"it did not end a cancelled {method} within {CANCELLED_SECONDS:g} s")
            return
        loop = asyncio.get_running_loop()
        loop.call_later(CANCELLED_SECONDS / _STEPS, self._expect_end, number, method, steps - 1)

    def _end_call(self, number: int) -> asyncio.Future[Reply] | None:
        """End a call, and return its future; None if nobody waits for it."""
        if number not in self._waiting:
            return None
        reply, when_ended = self._waiting.pop(number)
        when_ended()
        return None if reply.done() else reply

    def close(self) -> None:
        """Close the connection, without waiting for replies."""
        self._lose("it was stopped")

    def _take(self, reply: Reply) -> None:
        if isinstance(reply.method, str):
            if (notified := self._notified.get(reply.method)) is not None and isinstance(
                reply.params, msgspec.Raw
            ):
                notified(reply.params)
            return
        if reply.id is not None and (waiting := self._end_call(reply.id)) is not None:
            waiting.set_result(reply)

    def _result(self, method: str, reply: Reply, expected: type[T], params: Any) -> T:
        if isinstance(reply.error, Failure):
            raise self._error(reply.error, params)
        if isinstance(reply.result, msgspec.Raw):
            try:
                return msgspec.json.decode(reply.result, type=expected)
            except _UNDECODABLE as error:
                fault = str(error)
        else:
            fault = "neither a result nor an error"
        raise PluginFault(f"the signer {self._name!r} answers {method} with an invalid result: {fault}")

    def _error(self, failure: Failure, params: Any) -> SignerError:
        if failure.code == Code.UNKNOWN_KID:
            return UnknownKid(getattr(params, "kid", ""))
        kind = _ERRORS.get(failure.code, PluginFault)
        reason = failure.data.reason if isinstance(failure.data, msgspec.Struct) else None
        return kind(failure.message, reason=reason)

    def _lose(self, reason: str) -> None:
        if self.lost is not None:
            return
        self.lost = reason
        if self._transport is not None:
            self._transport.abort()
        for number in list(self._waiting):
            if (reply := self._end_call(number)) is not None:
                reply.set_exception(self._ended())
                reply.exception()  # retrieved: its caller may be cancelled
        self._when_lost(reason)

    def _ended(self) -> ProcessEnded:
        return ProcessEnded(f"the process of the signer {self._name!r} can't answer: {self.lost}")
