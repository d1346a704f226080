"""A TCP proxy on loopback that turns into a bad network while it runs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Collection, Coroutine
from contextlib import suppress
from typing import Any, Self

from msgspec import Struct


class _Behaviour(Struct, frozen=True):
    refuses: bool = False
    answer: bytes = b""
    """What each new connection gets, whatever it asks."""
    delay: float = 0
    piece: int = 2**16
    """The most bytes of an answer at a time."""


class Proxy:
    """Passes everything to ``target``, a port on loopback, until changed. Use as a context manager.

    A change applies to open connections as well as to new ones.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._behaviour = _Behaviour()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._moving = asyncio.Event()  # cleared while it hangs
        self._moving.set()
        self._connections: set[asyncio.Task[None]] = set()
        self.accepted = 0
        """How many connections there have been."""

    def __enter__(self) -> Self:
        self._thread.start()
        self._server: asyncio.Server = self._run(asyncio.start_server(self._accept, "127.0.0.1", 0))
        self.port: int = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._run(self._close())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def let_pass(self) -> None:
        """Pass everything again; what hung moves on."""
        self._run(self._behave(_Behaviour()))

    def refuse(self) -> None:
        """Close every connection, and each new one at once."""
        self._run(self._behave(_Behaviour(refuses=True)))
        self.cut()

    def answer(self, answer: bytes) -> None:
        """Send ``answer`` on every new connection, and close it; close those that there are."""
        self._run(self._behave(_Behaviour(answer=answer)))
        self.cut()

    def hang(self) -> None:
        """Accept connections, and move no byte."""
        self._run(self._behave(_Behaviour(), moving=False))

    def delay(self, seconds: float) -> None:
        """Hold each answer back for so long."""
        self._run(self._behave(_Behaviour(delay=seconds)))

    def trickle(self, seconds: float) -> None:
        """Let one byte of an answer through every so many seconds."""
        self._run(self._behave(_Behaviour(delay=seconds, piece=1)))

    def cut(self) -> None:
        """Drop the connections that there are. New ones fare as before."""
        self._run(self._cut())

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _behave(self, behaviour: _Behaviour, *, moving: bool = True) -> None:
        self._behaviour = behaviour
        if moving:
            self._moving.set()
        else:
            self._moving.clear()

    async def _close(self) -> None:
        self._server.close()
        while tasks := asyncio.all_tasks() - {asyncio.current_task()}:  # also one that accepts just now
            await _cancel(tasks)

    async def _cut(self) -> None:
        await _cancel(self._connections)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        connection = self._loop.create_task(self._connect(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)
        connection.add_done_callback(lambda _: writer.close())  # also of one cancelled before it began

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers = [writer]
        try:
            if self._behaviour.refuses:
                return
            if answer := self._behaviour.answer:
                await reader.read(2**16)
                writer.write(answer)
                await writer.drain()
                return
            await self._moving.wait()
            answers, target = await asyncio.open_connection("127.0.0.1", self._target)
            writers.append(target)
            asking = self._loop.create_task(self._ask(reader, target))
            try:
                await self._answer(answers, writer)
            finally:
                asking.cancel()
                await asyncio.gather(asking, return_exceptions=True)
        except OSError:
            pass  # one side is gone, so the other goes
        except asyncio.CancelledError:
            for each in writers:
                each.transport.abort()
        finally:
            for each in writers:
                each.close()
            for each in writers:
                with suppress(OSError):
                    await each.wait_closed()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(2**16):
            await self._moving.wait()
            writer.write(data)
            await writer.drain()
        writer.write_eof()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(2**16):
            while data:
                behaviour = self._behaviour
                await asyncio.sleep(behaviour.delay)
                await self._moving.wait()
                writer.write(data[: behaviour.piece])
                await writer.drain()
                data = data[behaviour.piece :]


async def _cancel(tasks: Collection[asyncio.Task[Any] | None]) -> None:
    cancelled = [task for task in tasks if task and task.cancel()]
    await asyncio.gather(*cancelled, return_exceptions=True)
