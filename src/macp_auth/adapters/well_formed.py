"""Checks the form of the key versions that a signer offers.

The process of a plugin does this, too, so it imports little.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import msgspec

from macp_auth.domain.errors import SignerMisconfigured
from macp_auth.domain.keys import ECPublicJWK, KeyVersion, RSAPublicJWK, is_kid

MAX_VERSIONS = 5000
"""Of one key: half a year of Vault's shortest ``auto_rotate_period``, an hour."""


def well_formed_versions(offered: object, name: str) -> Iterator[KeyVersion]:
    """Yield a checked copy of each version that the signer ``name`` offers, which are untrusted.

    A copy, so that what is checked is what is published, even if the sequence changes.

    Raises:
        SignerMisconfigured: one is malformed or contains more than a public key, or there are too many.
    """
    if not isinstance(offered, Sequence):
        raise SignerMisconfigured(f"the signer {name!r} offers no sequence of key versions")
    for number, anything in enumerate(iter(offered)):
        if number == MAX_VERSIONS:
            raise bad_offer(name, f"over {MAX_VERSIONS} key versions; withdraw old ones in the backend")
        yield _well_formed(anything, name)


def _well_formed(version: object, name: str) -> KeyVersion:
    if type(version) is not KeyVersion:
        raise bad_offer(name, f"a {type(version).__name__} for a key version")
    if (kind := type(version.public_jwk)) not in (RSAPublicJWK, ECPublicJWK):
        raise bad_offer(name, f"a {kind.__name__} for a public key: it could hold a private one")
    try:
        # msgspec does not check types when Python code creates a struct.
        copy = msgspec.convert(msgspec.to_builtins(version), KeyVersion)
    except (TypeError, ValueError, RecursionError):  # msgspec's own errors are ValueErrors
        raise bad_offer(name, "a key version with a part of a wrong type") from None
    if not is_kid(copy.kid):
        raise bad_offer(name, "a key version whose kid is empty, too long, or not all visible")
    times = (copy.created_at, copy.not_before, copy.not_after)
    if not all(time is None or math.isfinite(time) for time in times):
        raise bad_offer(name, f"a time that is no number for {copy.kid!r}")
    return copy


def bad_offer(name: str, offer: str) -> SignerMisconfigured:
    """Return the error for what the signer ``name`` offers."""
    return SignerMisconfigured(f"the signer {name!r} offers {offer}")
