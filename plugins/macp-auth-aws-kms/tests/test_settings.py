"""The settings, as the service reads them from its environment."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys

import msgspec
import pytest

from macp_auth import Signer
from macp_auth_aws_kms import AWSKMSSettings, macp_auth_signer


def settings(**texts: str) -> AWSKMSSettings:
    return msgspec.convert({"keys": "alias/a", **texts}, AWSKMSSettings, strict=False)


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("keys", ""),
        ("keys", "alias/a,,alias/b"),
        ("keys", "alias/a alias/b"),
        ("keys", ",".join(["alias/a"] * 17)),
        ("endpoint_url", "http://kms.example"),
        ("endpoint_url", "http://127.0.0.1.example"),
        ("endpoint_url", "https://user@kms.example"),
        ("timeout_seconds", "0.4"),
        ("timeout_seconds", "nan"),
        ("max_calls", "0"),
    ],
)
def test_bad_settings(field: str, text: str) -> None:
    """What could not work, and plain HTTP to another machine, are refused."""
    with pytest.raises(msgspec.ValidationError):
        settings(**{field: text})


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("keys", "arn:aws:kms:eu-central-1:111122223333:alias/a_B-1 , alias/b"),
        ("endpoint_url", "https://vpce-1.kms.eu-central-1.vpce.amazonaws.com"),
        ("endpoint_url", "http://[::1]:5000/"),
    ],
)
def test_good_settings(field: str, text: str) -> None:
    """Aliases, ARNs and spaces between; HTTPS anywhere, plain HTTP on loopback."""
    assert getattr(settings(**{field: text}), field) == text


def test_bad_setting_stops_the_start() -> None:
    """``macp-auth serve`` ends with exit status 2 and names the variable, without its value."""
    env = {**os.environ, "MACP_AUTH_SIGNER": "aws-kms", "MACP_AUTH_AWS_KMS_KEYS": "not a key"}
    command = [sys.executable, "-m", "macp_auth", "serve"]
    ended = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert "MACP_AUTH_AWS_KMS_KEYS must be 1 to 16 key ids" in ended.stderr
    assert "not a key" not in ended.stderr


def test_state_can_be_handed_to_a_worker() -> None:
    """What ``prepare`` returns is pickled, and a signer opens from it without a word to AWS."""
    plugin = macp_auth_signer()
    state = plugin.prepare(AWSKMSSettings(keys="alias/a, alias/b"))
    assert isinstance(plugin.open(pickle.loads(pickle.dumps(state))), Signer)  # noqa: S301 - our own bytes
