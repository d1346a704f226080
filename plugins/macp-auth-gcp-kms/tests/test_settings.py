"""The settings, as the service reads them from its environment."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys

import msgspec
import pytest

from macp_auth import Signer
from macp_auth_gcp_kms import GCPKMSSettings, macp_auth_signer

KEY = "projects/example/locations/global/keyRings/macp/cryptoKeys/tokens"


def settings(**texts: str) -> GCPKMSSettings:
    return msgspec.convert({"key": KEY, **texts}, GCPKMSSettings, strict=False)


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("key", ""),
        ("key", "tokens"),
        ("key", f"{KEY}/cryptoKeyVersions/1"),
        ("key", KEY.replace("macp", "m" * 64)),
        ("endpoint", "http://cloudkms.example"),
        ("endpoint", "http://127.0.0.1.example"),
        ("endpoint", "https://user@cloudkms.example"),
        ("endpoint", "cloudkms.googleapis.com"),
        ("timeout_seconds", "0.4"),
        ("timeout_seconds", "nan"),
    ],
)
def test_bad_settings(field: str, text: str) -> None:
    """What could not work, and plain HTTP to another machine, are refused."""
    with pytest.raises(msgspec.ValidationError):
        settings(**{field: text})


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("key", "projects/example.com:old-1/locations/us-east1/keyRings/A_b-1/cryptoKeys/C_d-2"),
        ("endpoint", "https://cloudkms-macp.p.googleapis.com"),
        ("endpoint", "http://[::1]:5000/"),
    ],
)
def test_good_settings(field: str, text: str) -> None:
    """Projects of a domain, names in either case; HTTPS anywhere, plain HTTP on loopback."""
    assert getattr(settings(**{field: text}), field) == text


def test_bad_setting_stops_the_start() -> None:
    """``macp-auth serve`` ends with exit status 2 and names the variable, without its value."""
    env = {**os.environ, "MACP_AUTH_SIGNER": "gcp-kms", "MACP_AUTH_GCP_KMS_KEY": "not a key"}
    command = [sys.executable, "-m", "macp_auth", "serve"]
    ended = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert "MACP_AUTH_GCP_KMS_KEY must be projects/" in ended.stderr
    assert "not a key" not in ended.stderr


def test_state_can_be_handed_to_a_worker() -> None:
    """What ``prepare`` returns is pickled, and a signer opens from it without a word to Google."""
    plugin = macp_auth_signer()
    state = plugin.prepare(GCPKMSSettings(key=KEY))
    assert isinstance(plugin.open(pickle.loads(pickle.dumps(state))), Signer)  # noqa: S301 - our own bytes
