"""Requests that open a connection each and are never repeated, as of the least patient client."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from contextlib import suppress
from typing import Self

from tools.support.service import wait_until

_PAUSE = 0.02  # of each thread, between two requests
_STEADY = 30  # requests, over three pods
_TIMEOUT = 5.0  # the MACP runtime's own for a JWKS fetch
MINT = json.dumps({"sender": "risk-agent"})


class Load:
    """Requests to one address from a few threads, until the context ends.

    Args:
        host: the address.
        path: what is requested.
        body: a POST's; a GET has none.
    """

    def __init__(self, host: str, path: str, body: str | None = None, port: int = 3200) -> None:
        self._host, self._port, self._path, self._body = host, port, path, body
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._ask_until_stopped) for _ in range(4)]
        self._lock = threading.Lock()
        self.answers: Counter[str] = Counter()
        """How often each status or error came."""

    def __enter__(self) -> Self:
        wait_until(self._answers_steadily, within=60, what=f"{self._path} answers")
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    @property
    def total(self) -> int:
        return self.answers.total()

    @property
    def failed(self) -> dict[str, int]:
        return {answer: count for answer, count in self.answers.items() if answer != "200"}

    def wait_for(self, more: int) -> None:
        """Wait until ``more`` requests have been answered or failed from now on."""
        wanted = self.total + more
        wait_until(lambda: self.total >= wanted, within=120, what=f"{more} requests")

    def _answers_steadily(self) -> bool:
        # A Service is there before each node's proxy routes to all of its pods.
        return all(self._ask() == "200" for _ in range(_STEADY))

    def _ask_until_stopped(self) -> None:
        while not self._stopping.is_set():
            answer = self._ask()
            with self._lock:
                self.answers[answer] += 1
            time.sleep(_PAUSE)

    def _ask(self) -> str:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=_TIMEOUT)
        try:
            headers = {"content-type": "application/json"} if self._body else {}
            connection.request("POST" if self._body else "GET", self._path, self._body, headers)
            response = connection.getresponse()
            response.read()
        except (OSError, http.client.HTTPException) as error:
            return f"{type(error).__name__}: {error}"
        else:
            return str(response.status)
        finally:
            with suppress(OSError):
                connection.close()
