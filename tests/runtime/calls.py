"""Agents that mint, and call the runtime with their newest token and with older ones."""

from __future__ import annotations

import threading
import time
from collections import deque
from functools import partial
from typing import Self

import jwt
from macp_sdk import AuthConfig, MacpClient
from msgspec import Struct

from macp_auth_client import TokenSource
from tools.support.bounded import HANG_SECONDS
from tools.support.macp_runtime import MacpRuntime, outcome
from tools.support.service import Service, wait_until

_BEFORE_END = 2  # seconds before a token's end in which it is no longer used
_PAUSE = 0.02


class Token(Struct, frozen=True):
    text: str
    kid: str
    exp: int


class Call(Struct, frozen=True):
    """One call of the runtime. Times in seconds since the epoch."""

    token: Token
    began: float
    ended: float
    answer: str

    @property
    def live(self) -> bool:
        """Whether its token was, all the while; on a busy machine a call may take seconds."""
        return self.ended < self.token.exp


class ClientCalls:
    """One agent that calls with macp-auth-client's token until stopped. Use as a context manager.

    After UNAUTHENTICATED it invalidates the token, and calls once more.
    """

    def __init__(self, service: Service, runtime: MacpRuntime, sender: str) -> None:
        self._source = TokenSource(service.url, sender, {}, max_wait=HANG_SECONDS)
        self._runtime = runtime
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.answers: list[tuple[str, ...]] = []
        """Of each call: one, or that of the second attempt, too."""
        self.kid = ""
        """That of the last token which the runtime accepted."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def wait_for(self, number: int) -> None:
        """Wait until so many more have been made."""
        enough = len(self.answers) + number
        wait_until(lambda: len(self.answers) > enough, within=HANG_SECONDS, what=f"{number} calls")

    def _run(self) -> None:
        with self._runtime.client("none") as client:
            while not self._stopping.wait(_PAUSE):
                token, answer = self._call(client)
                if answer == "status UNAUTHENTICATED":
                    self._source.invalidate(token)
                    self.answers.append((answer, self._call(client)[1]))
                else:
                    self.answers.append((answer,))

    def _call(self, client: MacpClient) -> tuple[str, str]:
        token = self._source.token()
        answer = outcome(partial(client.list_sessions, auth=AuthConfig.for_bearer(token)))
        if answer == "accepted":
            self.kid = jwt.get_unverified_header(token)["kid"]
        return token, answer


class Calls:
    """Mint and call until stopped. Use as a context manager."""

    def __init__(self, service: Service, runtime: MacpRuntime, agents: int = 3) -> None:
        self._service = service
        self._runtime = runtime
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(f"agent-{n}",)) for n in range(agents)]
        self.made: list[Call] = []
        self.minted: list[Token] = []
        self.failed_mints: list[float] = []
        """When each began that got no token."""

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, number: int) -> None:
        """Wait until so many more have been made."""
        enough = len(self.made) + number
        wait_until(lambda: len(self.made) > enough, within=HANG_SECONDS, what=f"{number} calls")

    def _run(self, sender: str) -> None:
        held: deque[Token] = deque()
        with self._runtime.client("none") as client:
            while not self._stopping.wait(_PAUSE):
                self._mint(sender, held)
                while held and held[0].exp - time.time() < _BEFORE_END:
                    held.popleft()
                for token in {held[0], held[len(held) // 2], held[-1]} if held else ():
                    self._call(client, sender, token)

    def _mint(self, sender: str, held: deque[Token]) -> None:
        began = time.time()
        try:
            text = self._service.mint(sender=sender)["token"]
        except OSError:
            self.failed_mints.append(began)
            return
        exp = jwt.decode(text, options={"verify_signature": False})["exp"]
        token = Token(text, jwt.get_unverified_header(text)["kid"], exp)
        held.append(token)
        self.minted.append(token)

    def _call(self, client: MacpClient, sender: str, token: Token) -> None:
        """A call and a message: the runtime authenticates in each."""
        auth = AuthConfig.for_bearer(token.text)
        signal = partial(client.send_signal, signal_type="try", data=b"x", correlation_session_id="x")
        for call in (client.list_sessions, partial(signal, sender=sender)):
            began = time.time()
            answer = outcome(partial(call, auth=auth))
            self.made.append(Call(token, began, time.time(), answer))
