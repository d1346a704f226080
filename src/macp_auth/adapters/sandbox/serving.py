"""The side of the protocol that is in the process of a signer: answers requests on a socket.

Calls begin one after the other, with a look at the socket between them. So a signer may block: its other
calls wait, and one that is cancelled while it waits never begins.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, cast

import msgspec
from msgspec import Struct

from macp_auth.adapters.sandbox.messages import (
    MAX_RESULT_BYTES,
    Call,
    Cancel,
    Code,
    Failure,
    FailureData,
    FrameReader,
    Reply,
    frame,
    raw,
)
from macp_auth.adapters.sandbox.translation import PluginFault, place_of
from macp_auth.domain.errors import (
    MACPAuthError,
    SignerError,
    SignerMisconfigured,
    SignerRefused,
    SignerUnavailable,
    UnknownKid,
    reason_of,
)


class Method(Struct, frozen=True):
    """The type of the parameters, and the function that takes them and returns the result."""

    params: type[Any]
    function: Callable[[Any], Awaitable[Any]]


CODES: Mapping[type[SignerError], Code] = {
    SignerUnavailable: Code.UNAVAILABLE,
    SignerRefused: Code.REFUSED,
    SignerMisconfigured: Code.MISCONFIGURED,
    UnknownKid: Code.UNKNOWN_KID,
    PluginFault: Code.FAULT,
}
_decode = msgspec.json.Decoder(Call).decode


class Server(asyncio.Protocol):
    """Answers the requests of the service.

    Args:
        methods: the methods, by name.
        when_closed: called when the service is gone.
    """

    def __init__(self, methods: Mapping[str, Method], when_closed: Callable[[], None]) -> None:
        self._methods = methods
        self._when_closed = when_closed
        self._reader = FrameReader()
        self._transport: asyncio.Transport | None = None
        self._queue: deque[Call] = deque()
        self._running: dict[int, asyncio.Task[None]] = {}
        self._beginning = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's has another class

    def connection_lost(self, _: Exception | None) -> None:
        """End the process."""
        self._when_closed()

    def data_received(self, data: bytes) -> None:
        """Take requests."""
        for body in self._reader.feed(data):
            call = _decode(body)
            if call.method == "cancel":
                self._cancel(msgspec.json.decode(call.params, type=Cancel).id)
            else:
                self._queue.append(call)
        if not self._beginning:
            self._begin_next()

    def notify(self, method: str, params: Any) -> None:
        """Send a notification."""
        self._send(Reply(method=method, params=raw(params)))

    def _begin_next(self) -> None:
        self._beginning = False
        if not self._queue:
            return
        call = self._queue.popleft()
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._answer(call))
        if isinstance(call.id, int):
            self._running[call.id] = task
            task.add_done_callback(partial(self._ended, call.id))
        if self._queue:
            # After two turns of the loop: the call runs until it waits, then the socket is read.
            self._beginning = True
            loop.call_soon(loop.call_soon, self._begin_next)

    def _ended(self, number: int, task: asyncio.Task[None]) -> None:
        del self._running[number]
        if task.cancelled():  # perhaps before it began
            self._send(_failed(number, SignerUnavailable("cancelled", reason="cancelled")))

    def _cancel(self, number: int) -> None:
        if (task := self._running.get(number)) is not None:
            task.cancel()
            return
        for call in self._queue:
            if call.id == number:
                self._queue.remove(call)
                self._send(_failed(number, SignerUnavailable("cancelled", reason="cancelled")))
                return

    async def _answer(self, call: Call) -> None:
        number = call.id if isinstance(call.id, int) else None
        reply: Reply
        try:
            reply = await self._reply(call, number)
        except MACPAuthError as error:
            reply = _failed(number, error)
        except Exception as error:  # noqa: BLE001 - each request has a reply; a result may be of any type
            raised = f"{type(error).__name__} in {call.method}{place_of(error)}"
            reply = _failed(number, PluginFault(f"the signer's process raised {raised}; fix its package"))
        if number is not None:
            self._send(reply)

    async def _reply(self, call: Call, number: int | None) -> Reply:
        if call.method not in self._methods:
            error = Failure(Code.METHOD_NOT_FOUND, f"there is no method {call.method[:100]!r}")
            return Reply(number, error=error)
        method = self._methods[call.method]
        try:
            params = msgspec.json.decode(call.params, type=method.params)
        except msgspec.ValidationError as error:
            return Reply(number, error=Failure(Code.INVALID_PARAMS, str(error)))
        result = raw(await method.function(params))
        if len(result) > MAX_RESULT_BYTES:
            raise SignerMisconfigured(
                f"the answer to {call.method} has {len(result)} bytes; at most {MAX_RESULT_BYTES} are read"
            )
        return Reply(number, result=result)

    def _send(self, reply: Reply) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frame(reply))


def _failed(number: int | None, error: MACPAuthError) -> Reply:
    code = next((code for kind, code in CODES.items() if isinstance(error, kind)), Code.FAULT)
    if isinstance(error, SignerError):
        return Reply(number, error=Failure(code, str(error), FailureData(reason_of(error))))
    # A ConfigurationError: a text of our own, which names a variable.
    return Reply(number, error=Failure(Code.MISCONFIGURED, str(error)))
