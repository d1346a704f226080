"""A service that speaks TLS, and connections to it."""

from __future__ import annotations

import json
import socket
import ssl
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cryptography import x509

from tools.support.bounded import HANG_SECONDS
from tools.support.service import Service
from tools.support.tls import Pair
from tools.support.wire import Answer, read_answer


def trusting(authority: Path, client: Pair | None = None) -> ssl.SSLContext:
    """What a client uses that trusts the file ``authority``, and presents ``client``."""
    context = ssl.create_default_context(cafile=authority)
    if client is not None:
        context.load_cert_chain(client.certificate, client.key)
    return context


class TLSService(Service):
    """A running service whose certificate an authority vouches for."""

    def __init__(
        self,
        directory: Path,
        authority: Path,
        env: Mapping[str, str],
        *args: str,
        prefix: Sequence[str | Path] = (),
    ) -> None:
        self.trusting = trusting(authority)
        super().__init__(directory, env, *args, prefix=prefix)
        self.url = f"https://localhost:{self.port}"

    def get(self, path: str) -> tuple[int, Any]:
        with urllib.request.urlopen(self.url + path, timeout=HANG_SECONDS, context=self.trusting) as response:
            return response.status, json.load(response)

    @contextmanager
    def connection(self, context: ssl.SSLContext | None = None) -> Iterator[ssl.SSLSocket]:
        """A connection after its handshake."""
        with (
            socket.create_connection(("127.0.0.1", self.port), timeout=HANG_SECONDS) as plain,
            (context or self.trusting).wrap_socket(plain, server_hostname="localhost") as secured,
        ):
            yield secured

    def exchange(self, raw: bytes, context: ssl.SSLContext | None = None) -> Answer:
        """The answer to ``raw``, on a connection of its own."""
        with self.connection(context) as sock:
            sock.sendall(raw)
            return read_answer(sock)


def tls_settings(pair: Pair) -> dict[str, str]:
    return {"MACP_AUTH_TLS_CERT_FILE": str(pair.certificate), "MACP_AUTH_TLS_KEY_FILE": str(pair.key)}


def serial_of(sock: ssl.SSLSocket) -> int:
    """The serial number of the certificate that the service showed on this connection."""
    certificate = sock.getpeercert(binary_form=True)
    assert certificate is not None
    return x509.load_der_x509_certificate(certificate).serial_number
