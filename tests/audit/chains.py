"""The lines of one writer, without their links."""

from __future__ import annotations

import json
from collections.abc import Iterable

from macp_auth.adapters.audit.chain import digest, linked_line


def unlinked(lines: Iterable[bytes]) -> list[bytes]:
    """Return ``lines`` as the writer got them; fails the test if their chain is not whole from line 1 on."""
    records: list[bytes] = []
    before = None
    writer = ""
    for number, line in enumerate(lines, 1):
        record = line[: line.rindex(b',"writer":"')] + b"}\n"
        writer = writer or json.loads(line)["writer"]
        assert line == linked_line(record, writer, number, before)
        before = digest(line)
        records.append(record)
    return records
