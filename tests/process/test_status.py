"""The status page of a running service of two workers."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path

from tests.support.metrics import metrics_env
from tools.support.bounded import HANG_SECONDS
from tools.support.service import Service, wait_until
from tools.support.wire import Answer, exchange, request_bytes

StartService = Callable[..., Service]
TOKENS = 20


def ask(port: int, method: str = "GET") -> Answer:
    return exchange(port, request_bytes(method, "/status", [("Host", "x")]), method=method)


def page(port: int) -> str:
    return ask(port).body.decode()


def heads_in(shown: str) -> set[tuple[str, int, str]]:
    """Writer, number of lines and SHA-256 of each head on the page."""
    found = re.findall(r"<th[^>]*>([0-9a-f]{12})</th><td[^>]*>(\d+)</td><td[^>]*>([0-9a-f]{64})</td>", shown)
    return {(writer, int(lines), digest) for writer, lines, digest in found}


def heads_of(log: Path) -> set[tuple[str, int, str]]:
    """The same, of the last line of each writer in the log."""
    lines = {json.loads(line)["writer"]: line for line in log.read_bytes().splitlines()}
    return {
        (writer, json.loads(line)["seq"], hashlib.sha256(line).hexdigest()) for writer, line in lines.items()
    }


def test_the_page_is_of_the_whole_service(start_service: StartService, tmp_path: Path) -> None:
    """Both workers, their tokens together, the head of each one's audit log; read-only, on this port only."""
    log, env = tmp_path / "audit.log", metrics_env()
    service = start_service({**env, "MACP_AUTH_AUDIT_LOG": str(log)}, "--workers", "2")
    port = int(env["MACP_AUTH_METRICS_PORT"])
    wait_until(lambda: '"badge good">ready<' in page(port), within=HANG_SECONDS, what="both are ready")
    for _ in range(TOKENS):
        service.mint()
    wait_until(lambda: len(log.read_bytes().splitlines()) == TOKENS, within=HANG_SECONDS, what="all lines")
    wait_until(
        lambda: heads_in(page(port)) >= heads_of(log), within=HANG_SECONDS, what="the heads of the log"
    )
    answer = ask(port)
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-security-policy"].startswith("default-src 'none'; style-src 'sha256-")
    shown = answer.body.decode()
    assert f'<th scope="row" class="strong">all requests</th><td class="number">{TOKENS}</td>' in shown
    assert "dev-key-1 signs. No change of the signing key is planned." in shown
    assert shown.count('<td class="good">ready</td>') == 2
    assert 'role="img"' in shown
    head = ask(port, "HEAD")
    assert (head.status, head.body) == (200, b"")
    assert ask(port, "POST").status == 405
    assert ask(service.port).status == 404
