"""Asks Envoy to let each token pass: python -m tools.drill.judges.envoy_client PORT.

A few connections stay open; each carries one request at a time, as Envoy loses pipelined ones.
"""

from __future__ import annotations

import itertools
import socket
import sys
import time
from contextlib import ExitStack

from tools.drill.judges.protocol import Verdict, serve
from tools.support.wire import request_bytes

CONNECTIONS = 8
_ANSWER_SECONDS = 15


class Connection:
    """A connection to Envoy; what it is asked is answered in turn."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._answers = sock.makefile("rb")

    def ask(self, token: str) -> None:
        headers = [("Host", "localhost"), ("Authorization", f"Bearer {token}")]
        self._sock.sendall(request_bytes("GET", "/", headers))

    def verdict(self) -> Verdict:
        """200 lets the token pass, and any other status comes with the reason."""
        status = int(self._answers.readline().split()[1])
        headers = dict(line.lower().split(b": ", 1) for line in iter(self._answers.readline, b"\r\n"))
        body = self._answers.read(int(headers[b"content-length"]))
        return time.time(), None if status == 200 else f"{status}: {body.decode()}"


def main() -> None:
    address = ("127.0.0.1", int(sys.argv[1]))
    with ExitStack() as stack:
        connections = [
            Connection(stack.enter_context(socket.create_connection(address, timeout=_ANSWER_SECONDS)))
            for _ in range(CONNECTIONS)
        ]

        def judge(tokens: list[str]) -> list[Verdict]:
            verdicts: list[Verdict] = []
            remaining = iter(tokens)
            while some := list(itertools.islice(remaining, CONNECTIONS)):
                asked = list(zip(connections, some, strict=False))
                for connection, token in asked:
                    connection.ask(token)
                verdicts.extend(connection.verdict() for connection, _ in asked)
            return verdicts

        serve(judge)


if __name__ == "__main__":
    main()
