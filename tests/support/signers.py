"""Environments of services that sign with a plugin, and with a file of keys that rotates."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.docs.pages import ROOT
from tools.support.service import clean_environment


def example_signer(directory: Path) -> dict[str, str]:
    """The plugin `macp_auth/plugin_template`, whose signer is hosted."""
    pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (directory / "key.pem").write_bytes(pem)
    (directory / "key.pem").chmod(0o600)
    return {"MACP_AUTH_SIGNER": "example", "MACP_AUTH_EXAMPLE_KEY_FILE": str(directory / "key.pem")}


def rotated_file(directory: Path) -> dict[str, str]:
    """A file of keys with a rotation in progress, so that there is a next change."""
    path = directory / "keys.json"
    for _ in range(2):
        rotate = [sys.executable, "-m", "macp_auth", "keys", "rotate", str(path)]
        subprocess.run(rotate, check=True, env=clean_environment(), timeout=30)
    return {"MACP_AUTH_SIGNER": "jwk-file", "MACP_AUTH_SIGNING_KEYS_FILE": str(path)}


def with_plugins(folder: Path, distribution: str, plugins: Mapping[str, str]) -> dict[str, str]:
    """Make ``folder`` a distribution of plugins that are in the tests, as if it were installed.

    Args:
        folder: must not be there yet.
        distribution: its name.
        plugins: for each name the entry point, as ``tests.conformance.seeded_bugs:bug_der``.
    """
    info = folder / f"{distribution}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    lines = [f"{name} = {place}" for name, place in plugins.items()]
    (info / "entry_points.txt").write_text("\n".join(["[macp_auth]", *lines]))
    return {"PYTHONPATH": f"{folder}:{ROOT}"}
