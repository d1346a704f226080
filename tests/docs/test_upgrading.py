"""The steps from the reference service lead to ours, beside a stand-in with its key and its answers."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest

from macp_auth.domain.errors import ConfigurationError
from macp_auth.entrypoints.plan import plan_service
from tests.contract.test_boot_probes import REFUSED, boot_environment
from tests.docs.pages import plain, read, rows, section
from tests.docs.terminal import Terminal, assert_as_shown, steps
from tests.support import jwks
from tools.support.programs import require_tools
from tools.support.service import BOOT_SECONDS, clean_environment, free_port, wait_until

PAGE = read("docs/upgrading.md")
KEY = jwks.rsa()
# The variables of the reference in the Compose files of MACP, and a key.
VARIABLES = f"""PORT=3200
MACP_AUTH_ISSUER=macp-auth-service
MACP_AUTH_AUDIENCE=macp-runtime
MACP_AUTH_DEFAULT_TTL_SECONDS=3600
MACP_AUTH_MAX_TTL_SECONDS=7200
MACP_AUTH_SIGNING_ALG=RS256
MACP_AUTH_SIGNING_KEY_JSON='{json.dumps(KEY)}'
"""


class Reference(BaseHTTPRequestHandler):
    """Publishes and signs as recorded: a key without a kid has ``key-1``."""

    def do_GET(self) -> None:
        assert self.path == "/.well-known/jwks.json"
        self._answer({"keys": [{**jwks.public(KEY), "kid": "key-1", "alg": "RS256", "use": "sig"}]})

    def do_POST(self) -> None:
        assert self.path == "/tokens"
        sender = json.loads(self.rfile.read(int(self.headers["content-length"])))["sender"]
        now = int(time.time())
        claims = {"macp_scopes": {}, "sub": sender, "iss": "macp-auth-service", "aud": "macp-runtime"}
        claims |= {"iat": now, "exp": now + 3600}
        token = jwt.encode(claims, jwt.PyJWK(KEY, "RS256"), "RS256", {"kid": "key-1"})
        self._answer({"token": token, "sender": sender, "expires_in_seconds": 3600})

    def _answer(self, body: Any) -> None:
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def reference() -> Iterator[int]:
    """The port of the stand-in."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Reference)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    (tmp_path / "auth-service.env").write_text(VARIABLES)
    opened = Terminal(tmp_path, clean_environment({"PATH": path}))
    yield opened
    opened.close()


def test_the_steps_are_as_the_page_says(terminal: Terminal, reference: int) -> None:
    """Tokens of one verify with the keys of the other, and the key moves into a file under its kid."""
    require_tools("bash", "curl", "jq")
    port = free_port()
    for commands, shown in steps(PAGE):
        output = terminal.run(commands.replace("3200", str(reference)).replace("3210", str(port)))
        if "serve" in commands:
            answers = f"curl -sf http://localhost:{port}/readyz"
            wait_until(lambda c=answers: terminal.look(c)[0] == 0, within=BOOT_SECONDS, what="it is ready")
        elif "doctor" in commands:
            assert "FAIL" not in output
        elif shown:
            assert_as_shown(shown, output)
    assert "key-1" in terminal.run("macp-auth keys list")


def test_each_refused_configuration_has_its_remedy() -> None:
    """All that the reference started with and ours does not; and no row is about something else."""
    remedies = {plain(row[0]) for row in rows(section(PAGE, "1. Check the configuration"))}
    used = set()
    for probe in REFUSED:
        if probe["reference"]["exited"] is not None:
            continue
        with pytest.raises(ConfigurationError) as refused:
            plan_service(boot_environment(probe))
        found = {fragment for fragment in remedies if fragment in str(refused.value)}
        assert found, f"{probe['id']}: {refused.value}"
        used |= found
    assert used == remedies
