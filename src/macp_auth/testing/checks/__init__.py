"""The checks, by theme."""

from macp_auth.testing.checks import (
    concurrency,
    faults,
    keys,
    lifecycle,
    secrecy,
    settings,
    signatures,
    workers,
)
from macp_auth.testing.registry import Check

_THEMES = (settings, signatures, keys, concurrency, faults, secrecy, lifecycle, workers)

CHECKS = {
    check.name: check for theme in _THEMES for check in vars(theme).values() if isinstance(check, Check)
}
"""Every check by name, in the order of a run."""
