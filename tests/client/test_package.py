"""The distribution: typed, small, and without the server."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path

import macp_auth_client
from tests.client.support import SENDER
from tools.support.callers import claims_of
from tools.support.service import Service, clean_environment

_WITHOUT_THE_SERVER = """
import sys
sys.modules["macp_auth"] = None  # an import of it fails
import httpx
before = set(sys.modules)
import macp_auth_client
loaded = {name.partition(".")[0] for name in set(sys.modules) - before}
source = macp_auth_client.TokenSource(sys.argv[1], sys.argv[2], {})
print(source.token(), *sorted(loaded - set(sys.stdlib_module_names)))
"""


def test_it_works_where_the_server_is_not_installed(service: Service) -> None:
    """In a fresh process: it loads itself, httpx and the standard library."""
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", _WITHOUT_THE_SERVER, service.url, SENDER],
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    token, *loaded = run.stdout.split()
    assert claims_of(token)["sub"] == SENDER
    assert loaded == ["macp_auth_client"]


def test_it_depends_on_httpx_only() -> None:
    """As pip sees it."""
    assert requires("macp-auth-client") == ["httpx>=0.28"]


def test_it_is_typed_and_its_names_are_exported() -> None:
    """Each name of ``__all__`` is there, and has a docstring."""
    folder = Path(macp_auth_client.__file__).parent
    assert (folder / "py.typed").exists()
    for name in macp_auth_client.__all__:
        assert getattr(macp_auth_client, name).__doc__
