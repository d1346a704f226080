"""Logging to standard error: readable on a terminal, JSON lines otherwise.

Keys and tokens are never logged: each call names its fields, and tracebacks have no local variables.

A peer can cause a log line with each request, and its text may be in the line. So the number of lines per
event and interval and the length of a line are limited, and terminal control characters are escaped.
"""

from __future__ import annotations

import logging
import sys
import time
from typing import Any, TextIO, cast

import msgspec
import structlog

from macp_auth.adapters.standard_error import StandardError
from macp_auth.domain.allowance import Allowance
from macp_auth.domain.visible import escaped, escaped_lines
from macp_auth.entrypoints.request_context import add_request

LINES, LINES_SECONDS = 50, 10
"""The limit of lines per event, and its interval in seconds."""
MAX_TEXT_CHARS = 8192
"""Of one field; a typical traceback has 2,000 to 6,000."""
MAX_LINE_BYTES = 65536
_MAX_EVENTS = 256  # counted separately; the service has about fifty, but a library may have more
_MAX_NAME_CHARS = 128


def configure_logs(level: int = logging.INFO) -> None:
    """Set up structlog from ``level`` on, and send what libraries log through the same renderer."""
    output = StandardError()
    limit = _Limit(output)
    shared: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        add_request,
    ]
    renderer: list[structlog.typing.Processor] = [structlog.processors.format_exc_info, _bound]
    if sys.stderr.isatty():
        renderer += [
            _escape,
            structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
        ]
    else:
        renderer += [structlog.processors.JSONRenderer(_to_json)]
    structlog.configure(
        processors=[limit, *shared, *renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(cast(TextIO, output)),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(cast(TextIO, output))
    handler.addFilter(limit.lets_pass)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    # At WARNING, uvicorn logs each malformed request: a client could fill the disk.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)


class _Limit:
    """Drops lines of too frequent events, and adds the number of dropped lines to the next one."""

    def __init__(self, output: StandardError) -> None:
        self._output = output
        self._said = 0
        self._allowances: dict[str, Allowance] = {}
        self._suppressed: dict[str, int] = {}

    def __call__(
        self, _logger: object, _method: str, event: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        """Drop an event over the limit (a structlog processor)."""
        name = self._name(str(event["event"]))
        if not self._take(name):
            raise structlog.DropEvent
        if suppressed := self._suppressed.pop(name, 0):
            event["suppressed"] = suppressed
        if unwritten := self._output.dropped - self._said:
            self._said += unwritten
            event["unwritten"] = unwritten
        return event

    def lets_pass(self, record: logging.LogRecord) -> bool:
        """Return whether ``record`` is within the limit (a standard library filter)."""
        return self._take(self._name(f"{record.name} {record.msg}"))

    def _name(self, name: str) -> str:
        name = name[:_MAX_NAME_CHARS]
        return name if name in self._allowances or len(self._allowances) < _MAX_EVENTS else ""

    def _take(self, name: str) -> bool:
        if (allowance := self._allowances.get(name)) is None:
            allowance = self._allowances[name] = Allowance(LINES, LINES_SECONDS)
        if allowance.take(time.monotonic()):
            return True
        self._suppressed[name] = self._suppressed.get(name, 0) + 1
        return False


def _bound(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Cut out the middle of long texts."""
    half = MAX_TEXT_CHARS // 2
    for name, value in event.items():
        if isinstance(value, str) and len(value) > MAX_TEXT_CHARS:
            event[name] = f"{value[:half]} [...] {value[-half:]}"
    return event


def _escape(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Escape terminal control characters, except the line ends of a traceback."""
    for name, value in event.items():
        if isinstance(value, str):
            event[name] = escaped_lines(value) if name == "exception" else escaped(value)
    return event


def _to_json(event: structlog.typing.EventDict, **_: Any) -> str:
    try:
        encoded = msgspec.json.encode(event, enc_hook=repr)
    except UnicodeEncodeError:  # a lone surrogate, in a text of a backend or a library
        encoded = msgspec.json.encode({name: ascii(value) for name, value in event.items()})
    if len(encoded) > MAX_LINE_BYTES:
        kept = {name: event[name] for name in ("event", "level", "timestamp") if name in event}
        encoded = msgspec.json.encode({**kept, "truncated": True}, enc_hook=repr)
    return escaped(encoded.decode())
