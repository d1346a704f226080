"""Logs, on standard error: for a person on a terminal, as JSON lines otherwise.

Never a key and never a token: what is logged is named at each call, and tracebacks are plain
ones, without local variables.

A peer may cause a line by each of its requests, and its text may be in it. So each event has so many
lines in an interval, a line is so long at most, and no character of it moves a terminal.
"""

from __future__ import annotations

import logging
import sys
import time
from typing import Any, TextIO, cast

import msgspec
import structlog

from macp_auth.adapters.allowance import Allowance
from macp_auth.adapters.standard_error import StandardError
from macp_auth.domain.visible import escaped, escaped_lines
from macp_auth.entrypoints.request_context import add_request

LINES, LINES_SECONDS = 50, 10
"""So many of one event are logged in so many seconds."""
MAX_TEXT_CHARS = 8192
"""Of one field; a traceback of usual depth has 2,000 to 6,000."""
MAX_LINE_BYTES = 65536
_MAX_EVENTS = 256  # that are told apart; the service has some fifty, a library may put values into its own
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
    # At WARNING, uvicorn logs a line for each malformed request: whoever sends them could fill the disk.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)


class _Limit:
    """Drops what is logged too often, and says in the next line how many were dropped."""

    def __init__(self, output: StandardError) -> None:
        self._output = output
        self._said = 0
        self._allowances: dict[str, Allowance] = {}
        self._suppressed: dict[str, int] = {}

    def __call__(
        self, _logger: object, _method: str, event: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        """Let pass what is within the limit (a structlog processor)."""
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
        """Return whether ``record`` is within the limit (a filter of the standard library's)."""
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
    """Leave out the middle of texts that are too long."""
    half = MAX_TEXT_CHARS // 2
    for name, value in event.items():
        if isinstance(value, str) and len(value) > MAX_TEXT_CHARS:
            event[name] = f"{value[:half]} [...] {value[-half:]}"
    return event


def _escape(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Escape what would move the terminal, but for the line ends of a traceback."""
    for name, value in event.items():
        if isinstance(value, str):
            event[name] = escaped_lines(value) if name == "exception" else escaped(value)
    return event


def _to_json(event: structlog.typing.EventDict, **_: Any) -> str:
    try:
        encoded = msgspec.json.encode(event, enc_hook=repr)
    except UnicodeEncodeError:  # half a character, in what a backend or a library says
        encoded = msgspec.json.encode({name: ascii(value) for name, value in event.items()})
    if len(encoded) > MAX_LINE_BYTES:
        kept = {name: event[name] for name in ("event", "level", "timestamp") if name in event}
        encoded = msgspec.json.encode({**kept, "truncated": True}, enc_hook=repr)
    return escaped(encoded.decode())
