"""uvicorn's HTTP protocol with time limits, size limits, and graceful closing.

llhttp (Node's parser, through httptools) already refuses Content-Length with Transfer-Encoding,
bare LF, obsolete folding and repeated lengths. This adds, per connection:

* a request must arrive within :data:`RECEIVE_SECONDS`, or the connection is closed, with a 408 if the
  client can still understand it; the same limit applies to a new connection without a request;
* limits of the header section (431), exactly one Host (RFC 9112, section 3.2), only the origin form of
  the request target, only HTTP/1.1 and HTTP/1.0, and no transfer coding except chunked;
* one request at a time: the parser gets bytes in pieces that never contain a part of a second request,
  and the next request only after the response. At most one read is buffered, and reading is paused
  meanwhile. uvicorn would parse a whole read at once, and queue thousands of requests;
* a client that does not read its responses is disconnected; until then its requests wait;
* every refusal is JSON, also of bytes that are not HTTP;
* when the server stops, a request on its way to a keep-alive connection is still answered, with
  ``Connection: close``; only an idle connection is closed;
* a connection that is closed before its request was read is closed for writing first, so that a reset
  does not destroy the response;
* a connection has a maximum age, and ends when its client's certificate expires;
  :mod:`macp_auth.entrypoints.server.connections` limits their number.
"""

from __future__ import annotations

import asyncio
import http
import re
import time
from typing import Any, NoReturn, cast

import httptools
import msgspec
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from macp_auth.entrypoints.server.client_chain import client_certificate
from macp_auth.entrypoints.server.connections import Connections
from macp_auth.entrypoints.server.flow import CoalescingTransport, Turns

RECEIVE_SECONDS = 10.0
"""From a request's first byte (or the connection's start) to its last."""
WRITE_SECONDS = 10.0
"""How long responses may wait for a client that does not read them."""
MAX_HEADER_BYTES = 16 * 1024
"""Request line and header section; Node's and nginx's limits are of this order."""
MAX_HEADERS = 100
"""Apache's LimitRequestFields."""
MAX_REQUEST_BYTES = 256 * 1024
"""A whole request, with its chunk headers and trailers. The application's limit of a body is far lower."""
MAX_CHUNKS = 2048
"""Per body. Each takes a microsecond, whatever its size."""
PARSE_BYTES = 2 * 1024
"""How much of one connection is parsed per iteration of the event loop. Most requests are shorter."""
READ_BUFFER_BYTES = 16 * 1024
"""How much of a TLS connection is read before it is decrypted and parsed: one record."""
WRITE_BUFFER_BYTES = 16 * 1024
"""How many bytes of responses may wait for a client before its next requests wait too."""
_MAX_PARTS = 2 * MAX_REQUEST_BYTES // PARSE_BYTES
"""Per body, in addition to its chunks: one for each turn, and as many that end in an empty line."""
DRAIN_IDLE_SECONDS = 1.0
"""How long a stopping server waits for the next request on an idle connection."""
DRAIN_RECEIVE_SECONDS = 5.0
"""How long a stopping server waits for the rest of a request, or until responses are read."""
LINGER_SECONDS = 2.0
"""How long a refused client may take to read the response and close."""


_TURNS = "macp_auth.turns"  # a key of uvicorn's state, which all connections share
_HOST = re.compile(rb"[\w.~!$&'()*+,;=%\[\]:-]*")  # RFC 3986, section 3.2: reg-name, IP-literal and port
# The parser also accepts RTSP, HTTP/0.9, HTTP/2.0, no version, and several spaces.
_REQUEST_LINE = re.compile(rb"[\r\n]*[A-Z-]+ [^ \r\n]+ HTTP/1\.([01])\r\n")
# If repeated, two readers could use different ones. The parser refuses a second Content-Length.
_SINGLE = frozenset(
    (
        *(b"authorization", b"content-encoding", b"content-type", b"expect", b"host", b"origin"),
        *(b"sec-fetch-site", b"transfer-encoding"),
    )
)
_EMPTY_LINE = b"\r\n\r\n"  # ends a header section, and a chunked body with its trailers


class _Refused(Exception):
    """Carries a refusal out of a parser callback."""


class StrictHTTPProtocol(HttpToolsProtocol):
    """One client connection."""

    def __init__(self, *args: Any, connections: Connections, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.accepting: asyncio.Task[Any] | None = None  # until the handshake is over
        self._connections = connections
        self._end: asyncio.TimerHandle | None = None
        self._shed = False
        self._receiving = False  # a request has begun and not ended
        self._in_headers = False  # its header section has not ended
        self._ended = False  # a request has ended in the current turn
        self._received_bytes = 0  # of the current request
        self._chunks = 0  # of its body
        self._parts = 0  # calls of on_body
        self._trailers = 0
        self._head = b""  # the received part of its header section
        self._body_left = 0  # bytes, if the length is known
        self._tail = b""  # the last parsed bytes, where an empty line may have begun
        self._piece = b""  # the bytes in the parser
        self._read = b""  # the last read, until all of it is parsed
        self._parsed = 0  # how many bytes of it are parsed
        self._waits_for_turn = False
        self._deadline: asyncio.TimerHandle | None = None
        self._write_deadline: asyncio.TimerHandle | None = None
        self._refusal = (400, "malformed HTTP request")
        self._refused = False
        self._draining = False
        self._lingering = False
        self._tls: dict[object, Any] | None = None  # the scope's extension

    # ruff: noqa: D102 - the methods of asyncio.Protocol and of the parser are documented there
    # --- asyncio ------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._coalescing = CoalescingTransport(transport, self.loop)
        super().connection_made(cast(asyncio.Transport, self._coalescing))
        if self.client is not None and self.server is not None:
            # On a socket of both families, IPv4 comes as IPv6 (RFC 4291, section 2.5.5.2).
            self.client = self.client[0].removeprefix("::ffff:"), self.client[1]
            self.server = self.server[0].removeprefix("::ffff:"), self.server[1]
        transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        self.flow = self._flow = _HoldingFlow(transport)
        if (turns := self.app_state.get(_TURNS)) is None:
            turns = self.app_state[_TURNS] = Turns(self.loop)
        self._turns: Turns = turns
        if self.accepting is None:  # accepted by another event loop than ours
            self._connections.opened(self)
        self.accepting = None
        if self._shed:
            transport.abort()
            return
        seconds = self._connections.lifetime()
        if (tls := transport.get_extra_info("ssl_object")) is not None:
            transport.set_read_buffer_limits(high=READ_BUFFER_BYTES)  # type: ignore[attr-defined]  # asyncio's too
            certificate = client_certificate(tls)
            self._tls = {"client_certificate": certificate}
            if certificate is not None:
                seconds = min(seconds, max(0.0, certificate.not_after - time.time()))
        self._end = self.loop.call_later(seconds, self.retire)
        self._arm(RECEIVE_SECONDS)
        if self._draining or self._connections.stopping:  # since before the end of the handshake
            self._drain()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self._disarm_write()
        self._unset_keepalive_if_required()
        self._abandon_cycle()
        if self._end is not None:
            self._end.cancel()
        self._connections.closed(self)
        super().connection_lost(exc)
        self.cycle = None  # type: ignore[assignment]  # a reference cycle would keep the TLS buffers

    def eof_received(self) -> bool | None:  # type: ignore[override]
        self._coalescing.flush()  # the return value may close the real transport
        if self._receiving or self._idle() or self._tls is not None:  # TLS has no half-closed connections
            return None
        self._make_last()  # the client sends no more, but still reads
        return True

    def pause_writing(self) -> None:
        super().pause_writing()
        self._arm_write(WRITE_SECONDS)
        self._connections.waiting(self)  # for the client to read

    def resume_writing(self) -> None:
        self._disarm_write()
        super().resume_writing()
        if not self._receiving and not self._idle():
            self._connections.working(self)

    def data_received(self, data: bytes) -> None:
        if self._refused or self._lingering:
            return
        self._unset_keepalive_if_required()
        if self._read:  # reading is paused, but TLS may have had this in its buffer
            self._read, self._parsed = self._read[self._parsed :] + data, 0
            return
        self._read = data
        if self._receiving or self._idle():
            self._parse()
        else:
            self._flow.hold()

    # --- parsing ----------------------------------------------------------------------------------

    def _parse(self) -> None:
        """Parse up to the end of a request, and at most :data:`PARSE_BYTES`."""
        data, at = self._read, self._parsed
        end = min(len(data), at + PARSE_BYTES)
        self._ended = False
        while at < end and not self._ended:
            after = self._end_of_piece(data, at, end)
            piece = data[at:after]
            at = self._parsed = after
            self._received_bytes += len(piece)
            if self._in_headers:
                self._head += piece
            self._feed(piece)
            if self._refused or self._lingering or self.transport.is_closing():
                self._clear_read()
                return
        if at < len(data):
            self._flow.hold()
            if self._receiving or self._idle():
                self._await_turn()
        else:
            self._clear_read()
        if self._in_headers and self._received_bytes > MAX_HEADER_BYTES:
            self._refuse_in_turn(431, "request headers are too large")
        elif self._receiving and self._received_bytes > MAX_REQUEST_BYTES:
            self._refuse_in_turn(413, "the request is too large")
        elif (self._receiving or (self._idle() and not self._read)) and self._deadline is None:
            self._arm(DRAIN_RECEIVE_SECONDS if self._draining else RECEIVE_SECONDS)

    def _end_of_piece(self, data: bytes, at: int, end: int) -> int:
        """Return the end of the next piece: at most the end of the header section, or of the request."""
        if self._body_left:
            after = min(end, at + self._body_left)
            self._body_left -= after - at
            return after
        if self._tail:
            seam = (self._tail + data[at : at + len(_EMPTY_LINE) - 1]).find(_EMPTY_LINE)
            if seam >= 0:
                after = at + seam + len(_EMPTY_LINE) - len(self._tail)
                self._tail = b""
                return after
        found = data.find(_EMPTY_LINE, at, end)
        if found >= 0:
            self._tail = b""
            return found + len(_EMPTY_LINE)
        self._tail = (self._tail + data[max(at, end - len(_EMPTY_LINE) + 1) : end])[1 - len(_EMPTY_LINE) :]
        return end

    def _feed(self, piece: bytes) -> None:
        self._piece = piece
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserError:
            self._refuse_in_turn(*self._refusal)
        except httptools.HttpParserUpgrade:
            self._parse_without_upgrade()

    def _await_turn(self) -> None:
        if not self._waits_for_turn:
            self._waits_for_turn = True
            self._turns.wait(self._parse_on)

    def _parse_on(self) -> None:
        self._waits_for_turn = False
        if self._read and not self.transport.is_closing():
            self._unset_keepalive_if_required()
            self._parse()

    def _clear_read(self) -> None:
        self._read, self._parsed = b"", 0
        self._flow.release()

    # --- the parser's callbacks -----------------------------------------------------------------

    def on_message_begin(self) -> None:
        if not self._idle():  # _end_of_piece prevents it; a smuggled request must not be served
            self._raise(*self._refusal)
        super().on_message_begin()
        if self._tls is not None:
            self.scope["extensions"] = {"tls": self._tls}
        if not self._receiving:
            self._disarm()  # the limit of the idle time
        self._receiving = self._in_headers = True
        self._chunks = self._parts = self._trailers = 0
        self._head = self._piece
        self._received_bytes = len(self._piece)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_headers:
            super().on_header(name, value)
            return
        # A trailer is not a header (RFC 9110, section 6.5.1), and is only counted.
        self._trailers += 1
        if self._trailers > MAX_HEADERS:
            self._raise(431, "too many request headers")

    def on_headers_complete(self) -> None:
        self._check_headers()
        if self.parser.should_upgrade():
            return  # the parser stops here; _parse_without_upgrade continues
        super().on_headers_complete()
        self.cycle.transport = _GracefullyClosed(self)  # type: ignore[assignment]  # has what a cycle uses
        self._in_headers = False
        self._head = b""
        if self._draining:
            self._make_last()

    def on_chunk_header(self) -> None:
        self._chunks += 1
        if self._chunks > MAX_CHUNKS:
            self._refuse_parts()

    def on_body(self, body: bytes) -> None:
        self._parts += 1
        if self._parts - self._chunks > _MAX_PARTS:
            self._refuse_parts()
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        self._receiving = False
        self._ended = True
        self._disarm()
        super().on_message_complete()
        if self._idle():  # answered before it was read, so no response will start the idle time
            self._arm(DRAIN_IDLE_SECONDS if self._draining else self.timeout_keep_alive)
        elif not self.flow.write_paused:
            self._connections.working(self)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._idle():
            self._connections.waiting(self)
        if self._refused:
            self._refuse_in_turn(*self._refusal)
        elif self._read:
            self._await_turn()

    def _check_headers(self) -> None:
        """Refuse what two readers could interpret differently, and what no request may have."""
        if len(self.headers) > MAX_HEADERS:
            self._raise(431, "too many request headers")
        if self._received_bytes > MAX_HEADER_BYTES:
            self._raise(431, "request headers are too large")
        if (line := _REQUEST_LINE.match(self._head)) is None:
            self._raise(*self._refusal)
        is_http_1_0 = line[1] == b"0"
        headers = dict(self.headers)
        if len(headers) < len(self.headers):
            self._check_repeated()
        host = headers.get(b"host")
        if host is None and not is_http_1_0:
            self._raise(400, "exactly one Host header is required")
        if host is not None and not _HOST.fullmatch(host):
            self._raise(400, "the Host header is malformed")
        if not self.url.startswith(b"/") or self.parser.get_method() == b"CONNECT":
            self._raise(404, "not found")
        self._check_body_headers(headers, is_http_1_0=is_http_1_0)

    def _check_body_headers(self, headers: dict[bytes, bytes], *, is_http_1_0: bool) -> None:
        coding = headers.get(b"transfer-encoding")
        if coding is not None and (is_http_1_0 or coding.strip().lower() != b"chunked"):
            self._raise(*self._refusal)
        if is_http_1_0:
            self.expect_100_continue = False  # it has no interim responses (RFC 9110, section 10.1.1)
        elif b"expect" in headers and not self.expect_100_continue:
            self._raise(417, "only 100-continue can be expected")
        self._body_left = int(headers.get(b"content-length", 0))  # the parser accepts only digits

    def _check_repeated(self) -> None:
        seen = set()
        for name, _ in self.headers:
            if name in seen and name in _SINGLE:
                if name == b"host":
                    self._raise(400, "exactly one Host header is required")
                self._raise(400, f"the header {name.decode()} is repeated")
            seen.add(name)

    def _parse_without_upgrade(self) -> None:
        """Ignore a request to upgrade the protocol (RFC 9110, section 7.8).

        ``curl --http2`` sends one with every request, also with a body. llhttp assumes that another
        protocol follows the headers, so they are parsed again without ``Upgrade``.
        """
        kept = [header for header in self.headers if header[0] != b"upgrade"]
        if len(kept) == len(self.headers):  # upgraded by another header: this would not end
            self._refuse_in_turn(400, "malformed HTTP request")
            return
        version = self.parser.get_http_version().encode()
        lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, version)]
        lines += [b"%s: %s" % header for header in kept]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's own
        self._feed(b"\r\n".join([*lines, b"", b""]))

    def _refuse_parts(self) -> NoReturn:
        self._raise(413, "the request has too many chunks")

    def _raise(self, status: int, message: str) -> NoReturn:
        self._refusal = (status, message)
        raise _Refused

    # --- refusals and limits ----------------------------------------------------------------------

    def _refuse_in_turn(self, status: int, message: str) -> None:
        """Stop reading, and refuse after the responses to earlier requests."""
        self._refused = True
        self._refusal = (status, message)
        self._disarm()
        if self._lingering or self.transport.is_closing():
            return
        if self._awaits_an_answer():
            self._refuse(status, message)
        elif self._idle():  # it has been answered already
            self.close_gracefully()

    def _refuse(self, status: int, message: str) -> None:
        body = msgspec.json.encode({"error": message})
        head = (
            f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.close_gracefully()

    def _too_slow(self) -> None:
        self._deadline = None
        if self.transport.is_closing():
            return
        if self._receiving and not self._lingering and self._awaits_an_answer():
            self._refuse(408, "the request did not arrive in time")
        elif self._lingering:
            self.transport.abort()  # close() would wait until the response is read
        else:
            self.transport.close()

    def _awaits_an_answer(self) -> bool:
        """Whether the client would read the next bytes as the response to its current request."""
        if self._in_headers or not self._receiving:  # in the second case, the fault follows a whole request
            return self._idle()
        return not self.cycle.response_started

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
        """Close after the current request, or one on its way. Called by uvicorn."""
        self._drain()

    def retire(self) -> None:
        """End this connection as if the server stopped."""
        if self.accepting is not None:
            self._draining = True  # takes effect after the handshake
        elif not self._draining:
            self._drain()

    def shed(self) -> None:
        """Make room for another connection."""
        self._shed = True
        if self.accepting is not None:
            self.accepting.cancel()
        else:
            self._coalescing.flush()
            self.transport.abort()  # close() would wait for a TLS client's close_notify

    def _drain(self) -> None:
        self._draining = True
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
            if not self._read:
                self._arm(DRAIN_IDLE_SECONDS)

    def _make_last(self) -> None:
        """Close gracefully after the response to the newest request."""
        self.cycle.keep_alive = False

    def close_gracefully(self) -> None:
        """Stop writing, ignore further bytes, and close when the client does or the time is over.

        So it has time to read the last response: it may be sending more, and a reset can destroy what it has
        not read.
        """
        self._lingering = True
        self._abandon_cycle()
        self._clear_read()
        self.flow.resume_reading()  # unread bytes would turn the close into a reset
        self._unset_keepalive_if_required()
        if self._tls is not None:
            self.transport.close()  # lingers itself; see event_loop.CLOSE_SECONDS
            return
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._arm(LINGER_SECONDS)

    def _abandon_cycle(self) -> None:
        """Disconnect the current request, if there is one, so that it writes no more."""
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.waiting_for_100_continue = False
            self.cycle.message_event.set()


class _HoldingFlow(FlowControl):
    """Pauses reading while a read waits to be parsed, although uvicorn resumes it after each response."""

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__(transport)
        self._held = False

    def hold(self) -> None:
        self._held = True
        self.pause_reading()

    def release(self) -> None:
        if self._held:
            self._held = False
            if not self._transport.is_closing():
                self.resume_reading()

    def resume_reading(self) -> None:
        if not self._held:
            super().resume_reading()


class _GracefullyClosed:
    """The transport of a request cycle, which closes it if it is the last; has only what a cycle uses."""

    def __init__(self, protocol: StrictHTTPProtocol) -> None:
        self._protocol = protocol
        self.write = protocol.transport.write

    def is_closing(self) -> bool:
        return self._protocol.transport.is_closing()

    def close(self) -> None:
        self._protocol.close_gracefully()
