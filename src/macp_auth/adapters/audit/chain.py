"""Links each line of a writer to the one before it. docs/audit.md says what that proves."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable

from macp_auth.domain.worker_state import AuditHead

HEAD_EVENT = "audit chain"
"""The event of the service log that has the head of a chain."""
_WRITER_BYTES = 6
"""Among 10,000 writers, two have the same id with a probability of 2 in 10 million."""
_MEMBERS = b',"writer":"%b","seq":%d,"prev":%b}'
_SHA256 = hashlib.sha256()  # copied, as in line.py


class Chain:
    """The chain of one writer, in the order of writing."""

    def __init__(self) -> None:
        self.head = AuditHead(secrets.token_hex(_WRITER_BYTES))
        """The last written line."""
        self._linked: list[AuditHead] = []

    def link(self, lines: Iterable[bytes], max_bytes: int) -> list[bytes]:
        """Return the first of ``lines`` with their links: at most ``max_bytes``, but at least one line.

        They count only when they are :meth:`written`.
        """
        writer, seq, sha256 = self.head.writer, self.head.seq, self.head.sha256
        linked: list[bytes] = []
        self._linked = []
        size = 0
        for line in lines:
            seq += 1
            whole = linked_line(line, writer, seq, sha256)
            size += len(whole)
            if linked and size > max_bytes:
                break
            sha256 = digest(whole)
            linked.append(whole)
            self._linked.append(AuditHead(writer, seq, sha256))
        return linked

    def written(self, count: int) -> None:
        """Count the first ``count`` lines of the last :meth:`link` as written."""
        if count:
            self.head = self._linked[count - 1]


def linked_line(line: bytes, writer: str, seq: int, prev: str | None) -> bytes:
    """Return ``line``, a JSON object and a line end, with the members of the chain at its end."""
    previous = b"null" if prev is None else b'"%b"' % prev.encode()
    return line[:-2] + _MEMBERS % (writer.encode(), seq, previous) + b"\n"


def digest(line: bytes) -> str:
    """Return the hexadecimal SHA-256 of ``line`` without its end."""
    hashed = _SHA256.copy()
    hashed.update(line.removesuffix(b"\n"))
    return hashed.hexdigest()


MAX_MEMBERS_BYTES = len(linked_line(b"{}\n", "w" * 2 * _WRITER_BYTES, 2**53, "0" * 64)) - len(b"{}\n")
"""How much longer a linked line is."""
