"""Tests that need IPv6."""

from __future__ import annotations

import socket

import pytest

needs_ipv6 = pytest.mark.skipif(
    not socket.has_dualstack_ipv6(), reason="this kernel has no IPv6; start it without ipv6.disable=1"
)
