"""The distribution, as pip and the host see it."""

from __future__ import annotations

import ast
from importlib.metadata import entry_points
from pathlib import Path

import macp_auth
import macp_auth_pkcs11


def test_entry_point_leads_to_the_plugin() -> None:
    """The installed entry point has the signer's name and loads its module."""
    (entry_point,) = entry_points(group="macp_auth", name="pkcs11")
    plugin = entry_point.load().macp_auth_signer()
    assert (plugin.name, plugin.api_version) == ("pkcs11", macp_auth.API_VERSION)


def test_only_the_public_api_is_used() -> None:
    """Nothing is imported from inside macp_auth, and nothing that it does not export."""
    for path in Path(macp_auth_pkcs11.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert not any(alias.name.startswith("macp_auth.") for alias in node.names), path
            elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "macp_auth":
                assert node.module == "macp_auth", path
                assert {alias.name for alias in node.names} <= set(macp_auth.__all__), path
