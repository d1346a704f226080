"""Token sources: the current token, and one request for the next one, whatever the number of callers."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

from macp_auth_client.errors import MintError, MintUnavailable
from macp_auth_client.minting import Minter, request_body, tokens_url
from macp_auth_client.schedule import Schedule

_log = logging.getLogger("macp_auth_client")
_LOST_SECONDS = 120.0
"""After this time, another request may begin beside one that does not end: httpx bounds the time of each
read, not their sum."""
_POLL_SECONDS = 0.05
"""How often a task looks whether the request of another event loop, which it can't await, has ended."""
_Flight = TypeVar("_Flight")


class _Source(ABC, Generic[_Flight]):
    """What both kinds share: the schedule, and the request in flight."""

    def __init__(  # noqa: PLR0913 - all but the first three are optional
        self,
        url: str,
        sender: str,
        scopes: Mapping[str, Any],
        *,
        ttl_seconds: float | None = None,
        audience: str | None = None,
        bearer_file: str | Path | None = None,
        cert: str | Path | None = None,
        key: str | Path | None = None,
        cacert: str | Path | None = None,
        allow_plain_http: bool = False,
        timeout: float = 5.0,
        max_wait: float = 30.0,
    ) -> None:
        """Make a source. Nothing is requested before the first call of ``token``.

        Args:
            url: of the service, without ``/tokens``. Redirects are not followed, and proxies of the
                environment are not used.
            sender: who the token is for.
            scopes: what the token allows. An absent scope may grant: set all five.
            ttl_seconds: the requested lifetime; if None, the service's default.
            audience: one of those in the caller's grant; if None, the first of them.
            bearer_file: a file with a bearer credential (a JWT, or a secret). Read for each request.
            cert: a client certificate with its chain (PEM). Read for each request.
            key: its private key, without a password; if None, it is in the file ``cert``.
            cacert: the authorities of the service's certificate (PEM); if None, those of httpx. Read for
                each request.
            allow_plain_http: send a bearer credential over plain http to an address that is not loopback.
                For a mesh that encrypts the connection.
            timeout: seconds for each step of a request: to connect, to send, to wait for data.
            max_wait: seconds after which a call of ``token`` fails at the latest, while no token lives;
                ``math.inf`` to wait for ever.

        Raises:
            ValueError: an argument can't work, such as a URL without a host.
        """
        if key is not None and cert is None:
            raise ValueError("key is set without cert")
        if "" in {bearer_file, cert, key, cacert}:
            raise ValueError("the path of a file is empty")
        if not 0 < timeout <= threading.TIMEOUT_MAX:
            raise ValueError("timeout must be a positive number of seconds")
        if not max_wait >= 0:
            raise ValueError("max_wait must be a number of seconds, 0 or more")
        self.sender = sender
        self._minter = Minter(
            url=tokens_url(
                url,
                bearer=bearer_file is not None,
                cert=cert is not None,
                allow_plain_http=allow_plain_http,
            ),
            sender=sender,
            body=request_body(sender, scopes, ttl_seconds=ttl_seconds, audience=audience),
            bearer_file=bearer_file,
            cert=cert,
            key=key,
            cacert=cacert,
            timeout=timeout,
        )
        self._max_wait = min(max_wait, threading.TIMEOUT_MAX)
        self._schedule = Schedule()
        self._clock = time.monotonic
        self._reset()
        _sources.add(self)

    def _reset(self) -> None:
        # Reentrant: a signal handler, or a task that starts eagerly, may come back here in the same thread.
        self._lock = threading.RLock()
        self._flight: _Flight | None = None
        self._lost_at = 0.0

    def invalidate(self, token: str) -> None:
        """Drop ``token`` after a verifier refused it. Does nothing if it is no longer the current one.

        When many callers see the same refusal, and all call this, one request is made.
        """
        with self._lock:
            self._schedule.invalidate(token)

    @abstractmethod
    def _launch(self) -> _Flight:
        """Begin a request, or raise RuntimeError."""

    @abstractmethod
    def _is_running(self, flight: _Flight) -> bool: ...

    def _next_step(self) -> str | _Flight | float:
        """Return the token, or a request to wait for, or the seconds until one may begin.

        Begins a request if it is time for one.
        """
        now = self._clock()
        with self._lock:
            running = self._flight is not None and self._is_running(self._flight) and now < self._lost_at
            if not running and self._schedule.due(now):
                try:
                    self._flight, self._lost_at, running = self._launch(), now + _LOST_SECONDS, True
                except RuntimeError as error:  # as at the interpreter's exit
                    self._schedule.failed(MintUnavailable(f"cannot begin a request: {error}"), now)
            if token := self._schedule.live(now):
                return token
            return self._flight if self._flight is not None and running else self._schedule.pause(now)

    def _checked_pause(self, seconds: float, give_up: float) -> float:
        """Return ``seconds`` if waiting may help in time; otherwise raise the last failure."""
        failure = self._schedule.failure
        if failure and not failure.retryable:
            raise failure.again()
        if self._clock() + seconds > give_up:
            raise failure.again() if failure else self._too_late()
        return seconds

    def _too_late(self) -> MintError:
        last = f"; last failure: {self._schedule.failure}" if self._schedule.failure else ""
        return MintUnavailable(f"no token for {self.sender} within {self._max_wait} s{last}")

    def _failed(self, error: Exception) -> None:
        if not isinstance(error, MintError):
            _log.error("unexpected error while minting for %s", self.sender, exc_info=error)
            error = MintUnavailable(f"unexpected {type(error).__name__} while minting")
        now = self._clock()
        with self._lock:
            self._schedule.failed(error, now)
            left = self._schedule.remaining(now)
        _log.warning("no new token for %s; the current one lives for %.0f s; %s", self.sender, left, error)


_sources: weakref.WeakSet[_Source[Any]] = weakref.WeakSet()


def _after_fork() -> None:
    """Forget what other threads of the parent process held: the child does not have them."""
    for source in list(_sources):
        source._reset()  # noqa: SLF001 - of this module


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class TokenSource(_Source[threading.Event]):
    """A live token for threads. A background thread mints the next one; see :meth:`token`."""

    def token(self) -> str:
        """Return a token that lives.

        While one lives, this returns it at once. After two thirds of its lifetime, a call also begins a
        request for the next one in a background thread. While none lives, all callers wait for one request,
        which is repeated until ``max_wait`` if that may help.

        Raises:
            MintRefused: the service refuses this request.
            MintError: there was no token within ``max_wait``; the last failure, if there was one.
        """
        give_up = self._clock() + self._max_wait
        while True:
            match self._next_step():
                case str(token):
                    return token
                case float(seconds):
                    time.sleep(self._checked_pause(seconds, give_up))
                case flight:
                    if not flight.wait(max(0.0, give_up - self._clock())):
                        raise self._too_late()

    def _launch(self) -> threading.Event:
        done = threading.Event()
        threading.Thread(target=self._mint, args=(done,), name="macp-auth-client", daemon=True).start()
        return done

    def _is_running(self, flight: threading.Event) -> bool:
        return not flight.is_set()

    def _mint(self, done: threading.Event) -> None:
        try:
            token = self._minter.mint(self._clock)
            with self._lock:
                self._schedule.minted(token)
        except Exception as error:  # noqa: BLE001 - the callers get it
            self._failed(error)
        finally:
            done.set()


class AsyncTokenSource(_Source[asyncio.Task[None]]):
    """A live token for tasks of asyncio. A task mints the next one; see :meth:`token`."""

    async def token(self) -> str:
        """Return a token that lives, as :meth:`TokenSource.token` does, with a task in the thread's place.

        A caller that is cancelled does not cancel the request that others wait for.

        Raises:
            MintRefused: the service refuses this request.
            MintError: there was no token within ``max_wait``; the last failure, if there was one.
        """
        give_up = self._clock() + self._max_wait
        while True:
            match self._next_step():
                case str(token):
                    return token
                case float(seconds):
                    await asyncio.sleep(self._checked_pause(seconds, give_up))
                case flight if flight.get_loop() is not asyncio.get_running_loop():
                    if self._clock() > give_up:
                        raise self._too_late()
                    await asyncio.sleep(_POLL_SECONDS)
                case flight:
                    done, _ = await asyncio.wait([flight], timeout=max(0.0, give_up - self._clock()))
                    if not done:
                        raise self._too_late()

    def _launch(self) -> asyncio.Task[None]:
        return asyncio.get_running_loop().create_task(self._mint(), name="macp-auth-client")

    def _is_running(self, flight: asyncio.Task[None]) -> bool:
        return not flight.done() and flight.get_loop().is_running()

    async def _mint(self) -> None:
        try:
            token = await self._minter.mint_async(self._clock)
            with self._lock:
                self._schedule.minted(token)
        except Exception as error:  # noqa: BLE001 - the callers get it
            self._failed(error)
