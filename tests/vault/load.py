"""Mints without pause from several connections, and keeps what came of it."""

from __future__ import annotations

import http.client
import json
import threading
import time
from typing import Self

from msgspec import Struct

from tools.support.bounded import HANG_SECONDS
from tools.support.service import Service, wait_until


class Attempt(Struct, frozen=True):
    """One request for a token."""

    began: float
    """By the monotonic clock."""
    seconds: float
    status: int
    """0 if the connection broke."""
    token: str
    retry_after: str | None


class Load:
    """Clients that mint one token after another. Use as a context manager."""

    def __init__(self, service: Service, *, clients: int = 4, ttl_seconds: int = 60) -> None:
        self._service = service
        self._body = json.dumps({"sender": "agent://load", "ttl_seconds": ttl_seconds})
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._mint_until_stopped) for _ in range(clients)]
        self.attempts: list[Attempt] = []

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def since(self, moment: float) -> list[Attempt]:
        """The attempts that began after ``moment``."""
        return [attempt for attempt in list(self.attempts) if attempt.began >= moment]

    @property
    def failed(self) -> list[Attempt]:
        return [attempt for attempt in list(self.attempts) if attempt.status != 200]

    def wait_for(self, attempts: int, *, within: float = 30) -> None:
        """Wait until so many more have ended."""
        enough = len(self.attempts) + attempts
        wait_until(lambda: len(self.attempts) >= enough, within=within, what=f"{attempts} attempts")

    def wait_for_token(self, *, since: float, within: float) -> float:
        """Wait for a token that was asked for after ``since``; return how long after it came."""
        wait_until(
            lambda: any(attempt.status == 200 for attempt in self.since(since)),
            within=within,
            what="a token",
        )
        good = next(attempt for attempt in self.since(since) if attempt.status == 200)
        return good.began + good.seconds - since

    def _mint_until_stopped(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._service.port, timeout=HANG_SECONDS)
        while not self._stopping.is_set():
            self.attempts.append(attempt := self._mint(connection))
            if attempt.status == 0:
                connection.close()
            if attempt.status != 200:
                self._stopping.wait(0.05)  # as a client that retries, only sooner
        connection.close()

    def _mint(self, connection: http.client.HTTPConnection) -> Attempt:
        began = time.monotonic()
        try:
            connection.request("POST", "/tokens", self._body, {"content-type": "application/json"})
            response = connection.getresponse()
            answer = json.load(response)
        except (OSError, http.client.HTTPException):
            return Attempt(began, time.monotonic() - began, 0, "", None)
        seconds = time.monotonic() - began
        return Attempt(
            began, seconds, response.status, answer.get("token", ""), response.getheader("retry-after")
        )
