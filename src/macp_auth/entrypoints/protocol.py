"""What uvicorn's HTTP protocol leaves open: time limits, header limits, and a gentle end.

llhttp (Node's parser, through httptools) already refuses Content-Length with Transfer-Encoding,
bare LF, obsolete folding and repeated lengths. This adds, connection by connection:

* a request that does not arrive whole within :data:`RECEIVE_SECONDS` is cut, with a 408 where one
  can still be understood; so is a new connection that says nothing;
* header section and count limits (431), exactly one Host (RFC 9112, section 3.2), and only the
  origin form of the request target;
* a client that does not read its answers is cut, and no more of its requests are read meanwhile;
* JSON for every refusal, also of bytes that are no HTTP;
* when the server stops, a keep-alive connection is not closed under a request on its way: what
  arrives is answered with ``Connection: close``, and only silence is closed;
* a connection that is closed before its request was read whole is closed for writing first, so
  that the answer is not lost to a reset.
"""

from __future__ import annotations

import asyncio
import http
import re
import ssl
import sys
from collections.abc import Collection
from typing import Any, cast

import httptools
import msgspec
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from macp_auth.entrypoints.gathering import GatheringTransport

RECEIVE_SECONDS = 10.0
"""From a request's first byte (or the connection's start) to its last."""
WRITE_SECONDS = 10.0
"""How long answers may be held up by a client that does not read them."""
MAX_HEADER_BYTES = 16 * 1024
"""Request line and header section; Node's and nginx's limits are of this order."""
MAX_HEADERS = 100
"""Apache's LimitRequestFields."""
MAX_REQUEST_BYTES = 1024 * 1024
"""All of a request, with what chunks and trailers add. The application's limit for a body is far lower."""
MAX_CHUNKS = 2048
"""Of a body in chunked coding. Each takes a microsecond, however little it holds."""
DRAIN_IDLE_SECONDS = 1.0
"""How long a stopping server waits for the next request on an idle connection."""
DRAIN_RECEIVE_SECONDS = 5.0
"""How long a stopping server waits for the rest of a request, or for answers to be read."""
LINGER_SECONDS = 2.0
"""How long a refused client may take to read its answer and go."""


_STOPPING = "macp_auth.stopping"  # a key of the state that uvicorn gives to every connection
_HOST = re.compile(rb"[\w.~!$&'()*+,;=%\[\]:-]*")  # RFC 3986, section 3.2: reg-name, IP-literal and port


class _Refused(Exception):
    """Carries a refusal out of a parser callback."""


class StrictHTTPProtocol(HttpToolsProtocol):
    """One client connection."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._running: RequestResponseCycle | None = None
        self._receiving = False  # a request has begun and not ended
        self._in_headers = False  # and its header section has not
        self._received_bytes = 0  # of the request being received; never too low
        self._header_bytes = 0  # of its header section; never too high
        self._chunks = 0  # of its body, in chunked coding
        self._chunk = b""  # what is being parsed now
        self._chunk_begun = False  # and whether it holds bytes of an earlier request
        self._deadline: asyncio.TimerHandle | None = None
        self._write_deadline: asyncio.TimerHandle | None = None
        self._parse_again = False
        self._refusal = (400, "malformed HTTP request")
        self._refused = False
        self._draining = False
        self._lingering = False
        self._tls: dict[object, object] | None = None  # as ASGI's TLS extension has it

    # ruff: noqa: D102 - the methods of asyncio.Protocol and of the parser are documented there
    # --- asyncio ------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._gathering = GatheringTransport(transport, self.loop)
        super().connection_made(cast(asyncio.Transport, self._gathering))
        if (
            self.client is not None
        ):  # on a socket of both families, IPv4 comes as IPv6 (RFC 4291, section 2.5.5.2)
            self.client = self.client[0].removeprefix("::ffff:"), self.client[1]
        self.flow = _OneByOne(transport, self.pipeline)
        if (tls := transport.get_extra_info("ssl_object")) is not None:
            certificate = tls.getpeercert(binary_form=True)
            self._tls = {
                "client_cert_chain": [] if certificate is None else [ssl.DER_cert_to_PEM_cert(certificate)]
            }
        if _STOPPING in self.app_state:  # a handshake that ended after the stop began
            self.shutdown()
        else:
            self._arm(RECEIVE_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self._disarm_write()
        self._unset_keepalive_if_required()
        self._abandon_cycles()
        super().connection_lost(exc)

    def eof_received(self) -> bool | None:  # type: ignore[override]
        self._gathering.flush()  # what this returns may close the real transport
        if self._receiving or self._idle() or self._tls is not None:  # there is no half of a TLS connection
            return None
        self._make_last()  # the client has said all, and still listens
        return True

    def pause_writing(self) -> None:
        super().pause_writing()
        self._arm_write(WRITE_SECONDS)

    def resume_writing(self) -> None:
        self._disarm_write()
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        if self._refused or self._lingering:
            return
        self._chunk = data
        self._chunk_begun = self._receiving
        self._received_bytes += len(data)
        self._header_bytes += len(data)
        self._parse_again = True
        while self._parse_again:
            self._parse_again = False
            super().data_received(self._chunk)
        if self._refused or self._lingering or self.transport.is_closing():
            return
        if self._in_headers and self._header_bytes > MAX_HEADER_BYTES:
            self._refuse_in_turn(431, "request headers are too large")
        elif self._receiving and self._received_bytes > MAX_REQUEST_BYTES:
            self._refuse_in_turn(413, "the request is too large")
        elif (self._receiving or self._idle()) and self._deadline is None:
            self._arm(DRAIN_RECEIVE_SECONDS if self._draining else RECEIVE_SECONDS)

    # --- the parser's callbacks -----------------------------------------------------------------

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._tls is not None:
            self.scope["extensions"] = {"tls": self._tls}
        if not self._receiving:
            self._disarm()  # what runs is for the silence before
        self._receiving = self._in_headers = True
        self._chunks = 0
        self._received_bytes = len(self._chunk)
        self._header_bytes = 0 if self._chunk_begun else len(self._chunk)
        self._chunk_begun = True

    def on_headers_complete(self) -> None:
        self._check_headers()
        if self.parser.should_upgrade():
            return  # the parser stops here, and _unsupported_upgrade_warning goes on
        super().on_headers_complete()
        self._in_headers = False
        self.headers = []  # trailers come next; they are not the request's headers (RFC 9110, section 6.5.1)
        if self._draining or not self.cycle.keep_alive:
            self._make_last()

    def on_chunk_header(self) -> None:
        self._chunks += 1
        if self._chunks > MAX_CHUNKS:
            self._raise(413, "the request has too many chunks")

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        self._receiving = False
        self._disarm()
        super().on_message_complete()
        if self._idle():  # it was answered before it was read whole, so no answer will start the idle time
            self._arm(DRAIN_IDLE_SECONDS if self._draining else self.timeout_keep_alive)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._refused:
            self._refuse_in_turn(*self._refusal)

    def _check_headers(self) -> None:
        headers = self.headers
        if len(headers) > MAX_HEADERS:
            self._raise(431, "too many request headers")
        # The sum is taken only where it could matter: a short request can't have long headers.
        if self._received_bytes > MAX_HEADER_BYTES:
            size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in headers)
            if size > MAX_HEADER_BYTES:
                self._raise(431, "request headers are too large")
        is_http_1_0 = self.parser.get_http_version() == "1.0"
        hosts = [value for name, value in headers if name == b"host"]
        if len(hosts) > 1 or not (hosts or is_http_1_0):
            self._raise(400, "exactly one Host header is required")
        if hosts and not _HOST.fullmatch(hosts[0]):
            self._raise(400, "the Host header is malformed")
        if not self.url.startswith(b"/") or self.parser.get_method() == b"CONNECT":
            self._raise(404, "not found")
        if is_http_1_0:
            self.expect_100_continue = False  # it knows no interim answers (RFC 9110, section 10.1.1)
        elif not self.expect_100_continue and any(name == b"expect" for name, _ in headers):
            self._raise(417, "only 100-continue can be expected")

    def _unsupported_upgrade_warning(self) -> None:
        # uvicorn calls this while it handles the parser's exception, which says where the headers end.
        stopped = sys.exception()
        assert isinstance(stopped, httptools.HttpParserUpgrade)  # noqa: S101 - the only caller
        self._parse_without_upgrade(self._chunk[stopped.args[0] :])

    def _parse_without_upgrade(self, rest: bytes) -> None:
        """Serve a request for an upgrade as if it had not asked (RFC 9110, section 7.8).

        ``curl --http2`` asks with every request, its body too. llhttp takes what follows the headers
        for another protocol, so the request is parsed again, without the header that asks.
        """
        kept = [header for header in self.headers if header[0] != b"upgrade"]
        if len(kept) == len(self.headers):  # what else made it an upgrade would make it one again, for ever
            self._refuse_in_turn(400, "malformed HTTP request")
            return
        version = self.parser.get_http_version().encode()
        lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, version)]
        lines += [b"%s: %s" % header for header in kept]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's own
        self._chunk = b"\r\n".join([*lines, b"", rest])
        self._parse_again = True

    def _raise(self, status: int, message: str) -> None:
        self._refusal = (status, message)
        raise _Refused

    # --- refusals and limits ----------------------------------------------------------------------

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's words; ours say what is wrong
        """Answer what the parser, or one of its callbacks, refused."""
        self._refuse_in_turn(*self._refusal)

    def _refuse_in_turn(self, status: int, message: str) -> None:
        """Refuse, and read no more; but first let the requests before it be answered."""
        self._refused = True
        self._refusal = (status, message)
        self._disarm()
        if self._lingering or self.transport.is_closing():
            return
        if self._awaits_an_answer():
            self._refuse(status, message)
        elif self._idle():  # it has been answered already
            self._linger()

    def _refuse(self, status: int, message: str) -> None:
        body = msgspec.json.encode({"error": message})
        head = (
            f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self._linger()

    def _too_slow(self) -> None:
        self._deadline = None
        if self.transport.is_closing():
            return
        if self._receiving and not self._lingering and self._awaits_an_answer():
            self._refuse(408, "the request did not arrive in time")
        elif self._lingering:
            self.transport.abort()  # close() would wait for the answer to be read
        else:
            self.transport.close()

    def _awaits_an_answer(self) -> bool:
        """Whether the next bytes that the client reads would be the answer to what it is sending."""
        if self._in_headers or not self._receiving:  # else what was wrong came after a whole request
            return self._idle()
        return not self.pipeline and not self.cycle.response_started

    def _idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _arm(self, seconds: float) -> None:
        self._disarm()
        self._deadline = self.loop.call_later(seconds, self._too_slow)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _arm_write(self, seconds: float) -> None:
        self._disarm_write()
        self._write_deadline = self.loop.call_later(seconds, self.transport.abort)

    def _disarm_write(self) -> None:
        if self._write_deadline is not None:
            self._write_deadline.cancel()
            self._write_deadline = None

    # --- the end ----------------------------------------------------------------------------------

    def shutdown(self) -> None:
        """Let the request on this connection, or one on its way, be the last. Called by the server."""
        self._draining = True
        self.app_state[_STOPPING] = True
        if self.flow.write_paused:
            self._arm_write(DRAIN_RECEIVE_SECONDS)
        if self._lingering:
            return
        if not self._idle():
            self._make_last()
        if self._receiving:
            self._arm(DRAIN_RECEIVE_SECONDS)
        elif self._idle():
            self._unset_keepalive_if_required()
            self._arm(DRAIN_IDLE_SECONDS)

    def _make_last(self) -> None:
        """Close, gently, when the newest request has been answered."""
        self.cycle.keep_alive = False
        self.cycle.transport = _GentlyClosed(self)  # type: ignore[assignment]  # has what a cycle uses

    def close_gently(self) -> None:
        """Close, once the client has had the chance to read what was sent."""
        if self._receiving:
            self._linger()
        else:
            self.transport.close()

    def _linger(self) -> None:
        """Stop writing, ignore what still comes, and close when the client does or time is up."""
        self._lingering = True
        self._abandon_cycles()
        self.flow.resume_reading()  # unread bytes would turn the close into a reset
        self._unset_keepalive_if_required()
        if self._tls is not None:
            self.transport.close()  # which lingers by itself; see event_loop.CLOSE_SECONDS
            return
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._arm(LINGER_SECONDS)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _abandon_cycles(self) -> None:
        """Let no cycle write any more: not the one that runs, not a later one that is being received."""
        for cycle in (self._running, self.cycle):
            if cycle is not None:
                cycle.disconnected = True
                cycle.message_event.set()
        self.pipeline.clear()


class _OneByOne(FlowControl):
    """Reads no more while requests are queued: uvicorn reads on after each answer, and the queue grows."""

    def __init__(self, transport: asyncio.Transport, queue: Collection[object]) -> None:
        super().__init__(transport)
        self._queue = queue

    def resume_reading(self) -> None:
        if not self._queue:
            super().resume_reading()


class _GentlyClosed:
    """The transport as the last request on a connection sees it: all that a request cycle uses."""

    def __init__(self, protocol: StrictHTTPProtocol) -> None:
        self._protocol = protocol
        self.write = protocol.transport.write

    def is_closing(self) -> bool:
        return self._protocol.transport.is_closing()

    def close(self) -> None:
        self._protocol.close_gently()
