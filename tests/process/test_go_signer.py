"""The signer in Go, as its README runs it, in a real service."""

from __future__ import annotations

import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.docs.pages import blocks
from tests.docs.terminal import Terminal
from tests.support import go_signer
from tools.support.bounded import HANG_SECONDS
from tools.support.programs import require_tools
from tools.support.service import Service, clean_environment, wait_until
from tools.support.verifiers import verify_with_pyjwt

pytestmark = pytest.mark.slow  # compiles a program


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    """A shell in a checkout that has only the example."""
    require_tools("bash", "openssl")
    go_signer.build(tmp_path)  # skips without Go
    shutil.copytree(go_signer.SOURCE, tmp_path / "plugins" / "go-example")
    env = clean_environment({"GOTOOLCHAIN": "local", "GOPROXY": "off"})
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
    opened = Terminal(tmp_path, env)
    yield opened
    opened.close()


def test_the_commands_of_its_readme_mint_tokens(
    terminal: Terminal, start_service: Callable[..., Service], tmp_path: Path
) -> None:
    """The service mints with the key in the file, PyJWT verifies, and no process is left at the end."""
    (commands,) = [block.text for block in blocks((go_signer.SOURCE / "README.md").read_text())]
    before, serve, after = commands.rpartition("macp-auth serve\n")
    assert (serve, after) == ("macp-auth serve\n", "")
    assert "0 failures" in terminal.run(before, within=go_signer.BUILD_SECONDS)
    folder = tmp_path / "plugins" / "go-example"
    service = start_service(
        {
            "MACP_AUTH_SIGNER": "go-example",
            "MACP_AUTH_SIGNER_COMMAND": str(folder / "macp-auth-go-example"),
            "MACP_AUTH_GO_EXAMPLE_KEY_FILE": str(tmp_path / "go-example.pem"),
        },
        *("--workers", "2"),
    )
    (key,) = service.jwks()["keys"]
    for _ in range(8):
        claims = verify_with_pyjwt(service.mint()["token"], service.jwks(), issuer="macp-auth-service")
        assert claims["sub"] == "agent://risk"
    assert key["alg"] == "ES256"
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(HANG_SECONDS) == 0
    wait_until(lambda: not _running(folder), within=HANG_SECONDS, what="the program has ended")


def _running(folder: Path) -> list[str]:
    """The processes whose program is in ``folder``."""
    found = []
    for link in Path("/proc").glob("[0-9]*/exe"):
        try:
            if link.readlink().is_relative_to(folder):
                found.append(link.parts[2])
        except OSError:
            continue
    return found
