"""The bounds in SECURITY.md are those of the code."""

from __future__ import annotations

import pytest

from macp_auth.adapters.audit import writer
from macp_auth.adapters.sandbox.limits import Limits
from macp_auth.adapters.signers.vault_transit.signer import LIMITS
from macp_auth.entrypoints.server import flow, listening, protocol
from tests.docs.pages import read, rows, section

BOUNDS = {
    queue: f"{bound}; {beyond}" for queue, bound, beyond in rows(section(read("SECURITY.md"), "Bounds"))
}
KIB = 1024


@pytest.mark.parametrize(
    ("queue", "texts"),
    [
        ("wait in the kernel", [f"{listening.SOCKET_BUFFER_BYTES // KIB} KiB"]),
        ("parsed in a turn", [f"{protocol.PARSE_BYTES // KIB} KiB", f"{flow.EACH_TURN} of those that wait"]),
        ("TLS connection", [f"{protocol.READ_BUFFER_BYTES // KIB} KiB"]),
        (
            "does not read",
            [f"{protocol.WRITE_BUFFER_BYTES // KIB} KiB", f"after {protocol.WRITE_SECONDS:g} s"],
        ),
        ("wait for Vault", [str(LIMITS.requests)]),
        ("another package's signer", [str(Limits().pending_signs)]),
        ("audit lines", [f"{writer.MINTED_BYTES // KIB**2} MiB and {writer.REFUSED_BYTES // KIB**2} MiB"]),
    ],
)
def test_bounds_are_the_codes(queue: str, texts: list[str]) -> None:
    [row] = [row for name, row in BOUNDS.items() if queue in name]
    for text in texts:
        assert text in row
