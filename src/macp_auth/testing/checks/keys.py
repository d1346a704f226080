"""Keys: what key_versions() returns."""

from __future__ import annotations

import asyncio
import math
import time

import msgspec

from macp_auth.domain.keys import MAX_KID_CHARS, ECPublicJWK, RSAPublicJWK, is_kid
from macp_auth.testing.bench import compare, signing_versions
from macp_auth.testing.checks.opening import opens_and_closes
from macp_auth.testing.judge import public_key
from macp_auth.testing.registry import Nonconformity, check
from macp_auth.testing.watched import WatchedSubject

_PUBLIC_MEMBERS = {"kty", "n", "e", "crv", "x", "y"}
_YEAR_5138 = 1e11  # in seconds; in milliseconds, it is 1973
_DAY = 24 * 3600


@check(
    "key_versions() returns KeyVersions; at least one can sign",
    source="the Signer port",
    needs=(opens_and_closes,),
)
async def offers_a_key(subject: WatchedSubject) -> None:
    """Read the keys; the watched signer checks the types of each reading."""
    async with subject.opened() as signer:
        await signing_versions(signer)


@check("The published JWK has only public members", source="RFC 7517, section 9.2", needs=(offers_a_key,))
async def public_members_only(subject: WatchedSubject) -> None:
    """Check the members of each JWK in the JWKS."""
    async with subject.opened() as signer:
        for version in await signer.key_versions():
            kind = type(version.public_jwk)
            members = set(msgspec.to_builtins(version.public_jwk))
            if extra := members - _PUBLIC_MEMBERS:
                raise Nonconformity(
                    f"the JWK of {version.kid!r} would publish {', '.join(sorted(extra))}: return only the "
                    "public members"
                )
            if kind not in (RSAPublicJWK, ECPublicJWK):
                raise Nonconformity(
                    f"the JWK of {version.kid!r} is a {kind.__name__}: use RSAPublicJWK or ECPublicJWK"
                )


@check(
    "A published key is RSA with at least 2048 bits, or P-256 with coordinates of 32 bytes",
    source="RFC 7518, sections 3.3 and 6.2.1.2",
    needs=(public_members_only,),
)
async def published_keys_are_good(subject: WatchedSubject) -> None:
    """Read each key as a verifier would."""
    async with subject.opened() as signer:
        for version in await signer.key_versions():
            public_key(version)


@check(
    "A kid has 1 to 256 visible characters, and is unique",
    source="RFC 7515, section 4.1.4",
    needs=(offers_a_key,),
)
async def kids_are_unique(subject: WatchedSubject) -> None:
    """Check the kids of one call."""
    async with subject.opened() as signer:
        kids = [version.kid for version in await signer.key_versions()]
        for kid in kids:
            if not is_kid(kid):
                raise Nonconformity(
                    f"{kid!r} is not a kid: it must have 1 to {MAX_KID_CHARS} characters, all visible, and "
                    "no control characters"
                )
            if kids.count(kid) > 1:
                raise Nonconformity(
                    f"two versions have the kid {kid!r}: a verifier can't tell which key signed"
                )


@check("Times are in seconds since the epoch", source="the Signer port", needs=(offers_a_key,))
async def times_are_seconds(subject: WatchedSubject) -> None:
    """Detect milliseconds, and creation times in the future."""
    async with subject.opened() as signer:
        for version in await signer.key_versions():
            for name in ("created_at", "not_before", "not_after"):
                value = getattr(version, name)
                if value is not None and not (math.isfinite(value) and 0 <= value < _YEAR_5138):
                    raise Nonconformity(
                        f"{name} of {version.kid!r} is {value!r}: return seconds since the epoch, or None"
                    )
            if version.created_at is not None and version.created_at > time.time() + _DAY:
                raise Nonconformity(
                    f"created_at of {version.kid!r} is more than a day in the future: is it in UTC?"
                )


@check("not_after is later than not_before", source="the Signer port", needs=(times_are_seconds,))
async def not_after_is_later(subject: WatchedSubject) -> None:
    """Compare the times of each version."""
    async with subject.opened() as signer:
        for version in await signer.key_versions():
            before, after = version.not_before, version.not_after
            if before is not None and after is not None and after <= before:
                raise Nonconformity(
                    f"{version.kid!r} leaves the JWKS at {after:g}, before it may sign, at {before:g}: it "
                    "never signs; are not_before and not_after swapped?"
                )


@check(
    "key_versions() is stable between calls",
    source="the Signer port; replicas agree because they compute the same",
    needs=(kids_are_unique, not_after_is_later, published_keys_are_good),
)
async def readings_agree(subject: WatchedSubject) -> None:
    """Read the keys twice with one signer: kids, keys, order and times must be equal."""
    async with subject.opened() as signer:
        before = await signer.key_versions()
        await asyncio.sleep(1.01 - time.time() % 1)  # so that the time of the call, in whole seconds, differs
        compare(before, await signer.key_versions(), "two calls")
