"""What uvicorn's HTTP protocol leaves open: time limits, header limits, and a gentle end.

llhttp (Node's parser, through httptools) already refuses Content-Length with Transfer-Encoding,
bare LF, obsolete folding and repeated lengths. This adds, connection by connection:

* a request that does not arrive whole within :data:`RECEIVE_SECONDS` is cut, with a 408 where one
  can still be understood; so is a new connection that says nothing;
* header section and count limits (431), exactly one Host (RFC 9112, section 3.2), only the origin
  form of the request target, only HTTP/1.1 and HTTP/1.0, and no transfer coding but chunked;
* one request at a time: the parser gets a connection's bytes in pieces that hold no byte of a second
  request, and the next one when the last is answered. What waits is at most one read, and no more
  is read meanwhile. uvicorn would parse all of a read at once, and queue thousands of requests;
* a client that does not read its answers is cut, and no more of its requests are served meanwhile;
* JSON for every refusal, also of bytes that are no HTTP;
* when the server stops, a keep-alive connection is not closed under a request on its way: what
  arrives is answered with ``Connection: close``, and only silence is closed;
* a connection that is closed before its request was read whole is closed for writing first, so
  that the answer is not lost to a reset;
* a connection has a greatest age, and ends with its client's certificate; how many there may be,
  :mod:`macp_auth.entrypoints.server.connections` decides.
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

from macp_auth.entrypoints.server.client_chain import tls_extension
from macp_auth.entrypoints.server.connections import Connections
from macp_auth.entrypoints.server.flow import GatheringTransport, Turns

RECEIVE_SECONDS = 10.0
"""From a request's first byte (or the connection's start) to its last."""
WRITE_SECONDS = 10.0
"""How long answers may be held up by a client that does not read them."""
MAX_HEADER_BYTES = 16 * 1024
"""Request line and header section; Node's and nginx's limits are of this order."""
MAX_HEADERS = 100
"""Apache's LimitRequestFields."""
MAX_REQUEST_BYTES = 256 * 1024
"""All of a request, with what chunks and trailers add. The application's limit for a body is far lower."""
MAX_CHUNKS = 2048
"""Of a body in chunked coding. Each takes a microsecond, however little it holds."""
PARSE_BYTES = 2 * 1024
"""How much of one connection is parsed in a turn of the event loop. Most requests are shorter."""
READ_BUFFER_BYTES = 16 * 1024
"""How much of a TLS connection is read before it can be decrypted and parsed; the length of a record."""
WRITE_BUFFER_BYTES = 16 * 1024
"""How many bytes of answers may wait for a client to read them before it is served no further."""
_MAX_PARTS = 2 * MAX_REQUEST_BYTES // PARSE_BYTES
"""Of a body, beside its chunks: one for each turn, and as many that end in an empty line."""
DRAIN_IDLE_SECONDS = 1.0
"""How long a stopping server waits for the next request on an idle connection."""
DRAIN_RECEIVE_SECONDS = 5.0
"""How long a stopping server waits for the rest of a request, or for answers to be read."""
LINGER_SECONDS = 2.0
"""How long a refused client may take to read its answer and go."""


_TURNS = "macp_auth.turns"  # a key of the state that uvicorn gives to every connection
_HOST = re.compile(rb"[\w.~!$&'()*+,;=%\[\]:-]*")  # RFC 3986, section 3.2: reg-name, IP-literal and port
# The parser also takes RTSP, HTTP/0.9, HTTP/2.0, no version at all, and more than one space between.
_REQUEST_LINE = re.compile(rb"[\r\n]*[A-Z-]+ [^ \r\n]+ HTTP/1\.([01])\r\n")
# Of these, two readers could each believe another one. The parser refuses a second Content-Length.
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
        self._all = connections
        self._end: asyncio.TimerHandle | None = None
        self._shed = False
        self._receiving = False  # a request has begun and not ended
        self._in_headers = False  # and its header section has not
        self._ended = False  # a request has ended in what is being parsed
        self._received_bytes = 0  # of the request being received
        self._chunks = 0  # of its body, in chunked coding
        self._parts = 0  # of its body, in which it was parsed
        self._trailers = 0
        self._head = b""  # its header section, as far as it is here
        self._body_left = 0  # of a body of known length
        self._tail = b""  # the last bytes that were parsed, where an empty line may have begun
        self._piece = b""  # what is being parsed now
        self._read = b""  # what was read, as long as some of it is not parsed
        self._parsed = 0  # and how much of it is
        self._waits_for_turn = False
        self._deadline: asyncio.TimerHandle | None = None
        self._write_deadline: asyncio.TimerHandle | None = None
        self._refusal = (400, "malformed HTTP request")
        self._refused = False
        self._draining = False
        self._lingering = False
        self._tls: dict[object, Any] | None = None  # as ASGI's TLS extension has it

    # ruff: noqa: D102 - the methods of asyncio.Protocol and of the parser are documented there
    # --- asyncio ------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._gathering = GatheringTransport(transport, self.loop)
        super().connection_made(cast(asyncio.Transport, self._gathering))
        if self.client is not None:
            # On a socket of both families, IPv4 comes as IPv6 (RFC 4291, section 2.5.5.2).
            self.client = self.client[0].removeprefix("::ffff:"), self.client[1]
        transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        self.flow = self._flow = _HoldingFlow(transport)
        if (turns := self.app_state.get(_TURNS)) is None:
            turns = self.app_state[_TURNS] = Turns(self.loop)
        self._turns: Turns = turns
        if self.accepting is None:  # another server than ours has accepted it
            self._all.opened(self)
        self.accepting = None
        if self._shed:
            transport.abort()
            return
        seconds = self._all.lifetime()
        if (tls := transport.get_extra_info("ssl_object")) is not None:
            transport.set_read_buffer_limits(high=READ_BUFFER_BYTES)  # type: ignore[attr-defined]  # asyncio's too
            self._tls = tls_extension(tls)
            seconds = min(seconds, max(0.0, self._tls["client_cert_ends"] - time.time()))
        self._end = self.loop.call_later(seconds, self.retire)
        self._arm(RECEIVE_SECONDS)
        if self._draining or self._all.stopping:  # the handshake ended after that
            self._drain()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self._disarm_write()
        self._unset_keepalive_if_required()
        self._abandon_cycle()
        if self._end is not None:
            self._end.cancel()
        self._all.closed(self)
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
        self._all.waiting(self)  # for the client to read

    def resume_writing(self) -> None:
        self._disarm_write()
        super().resume_writing()
        if not self._receiving and not self._idle():
            self._all.working(self)

    def data_received(self, data: bytes) -> None:
        if self._refused or self._lingering:
            return
        self._unset_keepalive_if_required()
        if self._read:  # reading is paused, but TLS may have had this already
            self._read, self._parsed = self._read[self._parsed :] + data, 0
            return
        self._read = data
        if self._receiving or self._idle():
            self._parse()
        else:
            self._flow.hold()

    # --- parsing ----------------------------------------------------------------------------------

    def _parse(self) -> None:
        """Parse what was read: to the end of a request, and no more than one turn's part of it."""
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
                self._forget_read()
                return
        if at < len(data):
            self._flow.hold()
            if self._receiving or self._idle():
                self._await_turn()
        else:
            self._forget_read()
        if self._in_headers and self._received_bytes > MAX_HEADER_BYTES:
            self._refuse_in_turn(431, "request headers are too large")
        elif self._receiving and self._received_bytes > MAX_REQUEST_BYTES:
            self._refuse_in_turn(413, "the request is too large")
        elif (self._receiving or (self._idle() and not self._read)) and self._deadline is None:
            self._arm(DRAIN_RECEIVE_SECONDS if self._draining else RECEIVE_SECONDS)

    def _end_of_piece(self, data: bytes, at: int, end: int) -> int:
        """Return where the next piece ends: with the request, or with its header section, or before."""
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

    def _forget_read(self) -> None:
        self._read, self._parsed = b"", 0
        self._flow.release()

    # --- the parser's callbacks -----------------------------------------------------------------

    def on_message_begin(self) -> None:
        if not self._idle():  # never, by _end_of_piece; but what follows unseen must not be served
            self._raise(*self._refusal)
        super().on_message_begin()
        if self._tls is not None:
            self.scope["extensions"] = {"tls": self._tls}
        if not self._receiving:
            self._disarm()  # what runs is for the silence before
        self._receiving = self._in_headers = True
        self._chunks = self._parts = self._trailers = 0
        self._head = self._piece
        self._received_bytes = len(self._piece)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_headers:
            super().on_header(name, value)
            return
        # A trailer is no header of the request (RFC 9110, section 6.5.1), and nothing here reads it.
        self._trailers += 1
        if self._trailers > MAX_HEADERS:
            self._raise(431, "too many request headers")

    def on_headers_complete(self) -> None:
        self._check_headers()
        if self.parser.should_upgrade():
            return  # the parser stops here, and _unsupported_upgrade_warning goes on
        super().on_headers_complete()
        self._in_headers = False
        self._head = b""
        if self._draining or not self.cycle.keep_alive:
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
        if self._idle():  # it was answered before it was read whole, so no answer will start the idle time
            self._arm(DRAIN_IDLE_SECONDS if self._draining else self.timeout_keep_alive)
        elif not self.flow.write_paused:
            self._all.working(self)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._idle():
            self._all.waiting(self)
        if self._refused:
            self._refuse_in_turn(*self._refusal)
        elif self._read:
            self._await_turn()

    def _check_headers(self) -> None:
        """Check what two readers of this request could read differently, and what no request may have."""
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
            self.expect_100_continue = False  # it knows no interim answers (RFC 9110, section 10.1.1)
        elif b"expect" in headers and not self.expect_100_continue:
            self._raise(417, "only 100-continue can be expected")
        self._body_left = int(headers.get(b"content-length", 0))  # the parser has checked that it is digits

    def _check_repeated(self) -> None:
        seen = set()
        for name, _ in self.headers:
            if name in seen and name in _SINGLE:
                if name == b"host":
                    self._raise(400, "exactly one Host header is required")
                self._raise(400, f"the header {name.decode()} is repeated")
            seen.add(name)

    def _parse_without_upgrade(self) -> None:
        """Serve a request for an upgrade as if it had not asked (RFC 9110, section 7.8).

        ``curl --http2`` asks with every request, its body too. llhttp takes what follows the headers
        for another protocol, so they are parsed again, without the header that asks.
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
        self._feed(b"\r\n".join([*lines, b"", b""]))

    def _refuse_parts(self) -> NoReturn:
        self._raise(413, "the request has too many chunks")

    def _raise(self, status: int, message: str) -> NoReturn:
        self._refusal = (status, message)
        raise _Refused

    # --- refusals and limits ----------------------------------------------------------------------

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
        """Let the request on this connection, or one on its way, be the last. Called by the server."""
        self._drain()

    def retire(self) -> None:
        """Let it end as if the server stopped, while others go on."""
        if self.accepting is not None:
            self._draining = True  # once its handshake is over
        elif not self._draining:
            self._drain()

    def shed(self) -> None:
        """Make room for another connection."""
        self._shed = True
        if self.accepting is not None:
            self.accepting.cancel()
        else:
            self._gathering.flush()
            self.transport.abort()  # close() would wait for a TLS client to agree

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
        """Close, gently, when the newest request has been answered."""
        self.cycle.keep_alive = False
        self.cycle.transport = _GentlyClosed(self)  # type: ignore[assignment]  # has what a cycle uses

    def close_gently(self) -> None:
        """Close, once the client has had the chance to read what was sent."""
        if self._receiving or self._read:
            self._linger()
        else:
            self.transport.close()

    def _linger(self) -> None:
        """Stop writing, ignore what still comes, and close when the client does or time is up."""
        self._lingering = True
        self._abandon_cycle()
        self._forget_read()
        self.flow.resume_reading()  # unread bytes would turn the close into a reset
        self._unset_keepalive_if_required()
        if self._tls is not None:
            self.transport.close()  # which lingers by itself; see event_loop.CLOSE_SECONDS
            return
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._arm(LINGER_SECONDS)

    def _abandon_cycle(self) -> None:
        """Let the request that is served, if there is one, write no more."""
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.waiting_for_100_continue = False
            self.cycle.message_event.set()


class _HoldingFlow(FlowControl):
    """Reads no more while what was read waits to be parsed, although uvicorn reads on after each answer."""

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


class _GentlyClosed:
    """The transport as the last request on a connection sees it: all that a request cycle uses."""

    def __init__(self, protocol: StrictHTTPProtocol) -> None:
        self._protocol = protocol
        self.write = protocol.transport.write

    def is_closing(self) -> bool:
        return self._protocol.transport.is_closing()

    def close(self) -> None:
        self._protocol.close_gently()
