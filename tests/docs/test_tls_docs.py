"""docs/tls.md: what it shows is what happens, and its numbers are those of the code."""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path

from macp_auth.domain import certificates
from macp_auth.entrypoints.server import event_loop, tls_reload
from tests.docs.pages import plain, read, rows, section
from tests.docs.terminal import Terminal, assert_as_shown, steps
from tools.support.bounded import HANG_SECONDS
from tools.support.programs import require_tool
from tools.support.service import clean_environment, free_port, wait_until
from tools.support.tls import make_certificates
from tools.support.tls_service import TLSService
from tools.support.wire import exchange, request_bytes

PAGE = read("docs/tls.md")


def test_a_reader_who_follows_the_page_gets_what_it_shows(tmp_path: Path) -> None:
    """An authority, two certificates, a service with them, and what callers get."""
    for tool in ("bash", "curl", "openssl"):
        require_tool(tool, tool)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    terminal = Terminal(tmp_path, clean_environment({"PATH": path}))
    (make, _), (serve, _), *asked = steps(section(PAGE, "Try it"))
    try:
        terminal.run(make)
        *assignments, _, _ = shlex.split(serve)
        env = {name: str(tmp_path / file) for name, _, file in (each.partition("=") for each in assignments)}
        with TLSService(tmp_path, tmp_path / "ca.pem", env) as service:
            wait_until(lambda: service.get("/readyz"), within=HANG_SECONDS, what="it is ready")
            for command, shown in asked:
                assert shown
                assert_as_shown(shown, terminal.run(command.replace(":3200", f":{service.port}")))
    finally:
        terminal.close()


def test_keys_without_tls(tmp_path: Path) -> None:
    """The command of the page: keys over plain HTTP, tokens over TLS."""
    made = make_certificates(tmp_path)
    [(serve, _)] = steps(section(PAGE, "The keys without TLS"))
    *assignments, _, _ = shlex.split(serve.replace("\\\n", " "))
    env = dict(each.split("=", 1) for each in assignments)
    port = free_port()
    env = {
        **env,
        "MACP_AUTH_JWKS_PORT": str(port),
        "MACP_AUTH_TLS_CERT_FILE": str(made.certificate),
        "MACP_AUTH_TLS_KEY_FILE": str(made.key),
    }
    with TLSService(tmp_path, made.ca, env) as service:
        keys = exchange(port, request_bytes("GET", "/.well-known/jwks.json", [("Host", "localhost")]))
        assert keys.json == service.jwks()


def test_the_variables_are_those_of_the_settings() -> None:
    """The first table has the three variables, as the table of the configuration does."""
    named = [plain(row[0]) for row in rows(section(PAGE, "TLS"))]
    documented = [plain(row[0]) for row in rows(section(read("docs/configuration.md"), "The service"))]
    assert named == [name for name in documented if name.startswith("MACP_AUTH_TLS_")]


def test_times_are_the_codes() -> None:
    """Seconds of a handshake, a close, and between two checks."""
    text = " ".join(PAGE.split())
    assert f"A handshake has {event_loop.HANDSHAKE_SECONDS:g} s" in text
    assert f"agree to a close has {event_loop.CLOSE_SECONDS:g} s" in text
    assert f"checked every {tls_reload.POLL_INTERVAL_SECONDS:g} seconds" in text


def test_events_are_the_codes() -> None:
    """What the page says the log says, it says."""
    source = "".join(
        Path(each).read_text(encoding="utf-8") for each in (tls_reload.__file__, certificates.__file__)
    )
    for event in re.findall(r"`(TLS [A-Za-z' ]+)`", PAGE):
        assert event in source
