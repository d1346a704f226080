"""How long tokens live."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from macp_auth.domain.errors import InvalidTTL
from macp_auth.domain.ttl import TTLPolicy

POLICY = TTLPolicy(default=300, maximum=3600)


@pytest.mark.parametrize(
    ("requested", "lifetime"),
    [
        (None, 300),
        *((1, 1), (3600, 3600), (3601, 3600), (2**80, 3600), (1e21, 3600)),
        *(
            (0.4, 1),
            (0.5, 1),
            (1e-7, 1),
            (5e-324, 1),
            (1.49, 1),
            (1.5, 2),
            (2.5, 3),
            (3599.5, 3600),
            (3600.5, 3600),
        ),
    ],
)
def test_resolve(requested: object, lifetime: int) -> None:
    """Rounded half up, at least one second, cut to the maximum."""
    assert POLICY.resolve(requested) == lifetime


@pytest.mark.parametrize(
    "requested", [0, -0.0, -5, "300", True, False, {}, [], math.inf, -math.inf, math.nan], ids=repr
)
def test_no_positive_number(requested: object) -> None:
    """Anything but a finite number above zero is refused."""
    with pytest.raises(InvalidTTL, match="^ttl_seconds must be a positive number$"):
        POLICY.resolve(requested)


@given(st.floats(min_value=0, exclude_min=True, allow_infinity=False) | st.integers(min_value=1))
def test_always_within_bounds(requested: float) -> None:
    """For any request, the lifetime is a whole number from 1 to the maximum."""
    lifetime = POLICY.resolve(requested)
    assert type(lifetime) is int
    assert 1 <= lifetime <= POLICY.maximum
