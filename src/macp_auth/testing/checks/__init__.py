"""The checks, by theme."""

from macp_auth.testing.checks import (
    cancelling,
    declarations,
    faults,
    keys,
    lifecycle,
    opening,
    rotation,
    secrecy,
    signatures,
    statistics,
    workers,
)
from macp_auth.testing.registry import Check

_THEMES = (
    *(declarations, opening, keys, signatures, rotation, cancelling),
    *(faults, secrecy, statistics, lifecycle, workers),
)

CHECKS = {
    check.name: check
    for theme in _THEMES
    for check in vars(theme).values()
    if isinstance(check, Check) and check.run.__module__ == theme.__name__
}
"""Every check by name, in the order of a run."""
