"""The benchmarks as they are called, in their shortest form."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.docs.pages import ROOT
from tools.support.service import clean_environment

PEER = Path(__file__).with_name("peer.py")
SHORT = {
    "tools.bench": ("--seconds", "1", "--runs", "1", "--alg", "ES256", "--signer", "ephemeral"),
    "tools.bench.growth": ("--seconds", "1", "--runs", "1", "--series", "plugins"),
    "tools.bench.callers": ("--runs", "1", "--grants", "100"),
    "tools.bench.plugins": ("--runs", "1"),
    "tools.bench.vault": ("--seconds", "1", "--runs", "1"),
}
_SECONDS = 120


def call(module: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env={**clean_environment(), **environment},
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )


def call_short(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return call(module, *arguments, *SHORT[module])


def with_peer(way: str) -> tuple[str, ...]:
    """The options that name the stand-in as a peer."""
    return ("--peer", f"{sys.executable} '{PEER}' {way}", "--peer-env", "GREETING=good day")
