"""Callers of a token source, and the service that they call: counted, stopped, resumed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Protocol, Self, TypeVar

from macp_auth_client import AsyncTokenSource, MintError, TokenSource
from tools.support.bounded import HANG_SECONDS
from tools.support.processes import family
from tools.support.service import Service, wait_until

SENDER = "risk-agent"
SCOPES = {
    "can_start_sessions": False,
    "can_manage_mode_registry": False,
    "is_observer": False,
    "allowed_modes": ["macp.mode.decision.v1", ""],
    "max_open_sessions": 0,
}
ES256 = {"MACP_AUTH_SIGNING_ALG": "ES256"}
_T = TypeVar("_T")


class Source(Protocol):
    """Either source, as a thread sees it."""

    def token(self) -> str: ...

    def invalidate(self, token: str) -> None: ...


class OnALoop:
    """An AsyncTokenSource on an event loop in a thread of its own. Each call is a task."""

    def __init__(self, url: str, sender: str = SENDER, scopes: Any = None, **options: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._source = AsyncTokenSource(url, sender, SCOPES if scopes is None else scopes, **options)

    def token(self) -> str:
        return self.run(self._source.token())

    def invalidate(self, token: str) -> None:
        self._source.invalidate(token)

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(HANG_SECONDS)

    def close(self) -> None:
        async def cancel_all() -> None:
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._loop.shutdown_default_executor()

        self.run(cancel_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def in_threads(url: str, sender: str = SENDER, scopes: Any = None, **options: Any) -> TokenSource:
    return TokenSource(url, sender, SCOPES if scopes is None else scopes, **options)


def at_once(count: int, call: Callable[[], _T]) -> list[_T]:
    """What ``count`` threads got that called at the same time."""
    barrier = threading.Barrier(count)

    def one(_: int) -> _T:
        barrier.wait(HANG_SECONDS)
        return call()

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


def outcome(call: Callable[[], str]) -> str | MintError:
    """The token, or the error."""
    try:
        return call()
    except MintError as error:
        return error


class Load:
    """Threads that ask for a token again and again. Use as a context manager."""

    def __init__(self, source: Source, threads: int = 8) -> None:
        self._source = source
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(threads)]
        self.calls = 0
        self.failures: list[MintError] = []

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.01):
            got = outcome(self._source.token)
            self.calls += 1
            if isinstance(got, MintError):
                self.failures.append(got)


@contextmanager
def stopped(service: Service) -> Iterator[None]:
    """SIGSTOP for all processes of ``service``: it accepts connections, and answers nothing."""
    processes = family(service)
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            process.resume()


def requests_for(service: Service, sender: str = SENDER) -> list[dict[str, Any]]:
    """The audit lines of ``sender``, complete: a later request of another sender is there, too."""
    marker = f"marker-{len(service.audit_lines)}"
    service.mint(sender=marker)
    wait_until(
        lambda: any(line.get("sender") == marker for line in service.audit_lines),
        within=HANG_SECONDS,
        what="the audit log has all",
    )
    return [line for line in service.audit_lines if line.get("sender") == sender]
