"""The lifetime of a token."""

from __future__ import annotations

import math

from msgspec import Struct

from macp_auth.domain.errors import InvalidTTL


class TTLPolicy(Struct, frozen=True):
    """The lifetimes that may be minted, in whole seconds, as ``iat`` and ``exp`` are."""

    default: int
    """Used when the request has none."""
    maximum: int
    """Longer requests are reduced to this."""

    def resolve(self, requested: object) -> int:
        """Return the lifetime to mint: rounded half up, at least 1, at most :attr:`maximum`.

        Raises:
            InvalidTTL: ``requested`` is not a finite number above zero.
        """
        if requested is None:
            return self.default
        # bool is an int in Python, but not in JSON.
        if (
            isinstance(requested, bool)
            or not isinstance(requested, int | float)
            or not 0 < requested < math.inf
        ):
            raise InvalidTTL("ttl_seconds must be a positive number")
        if requested >= self.maximum:
            return self.maximum
        return max(1, math.floor(requested + 0.5))
