"""Keys: which are published, their kids, and which one signs."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence

import msgspec

from macp_auth.domain.errors import SignerRefused, UnknownKid
from macp_auth.domain.keys import MAX_KID_CHARS, ECPublicJWK, KeyVersion, PublicJWK, RSAPublicJWK, is_kid
from macp_auth.domain.signer import Signer
from macp_auth.testing.bench import BACK_SECONDS, attempt, new_input, sign_and_judge, signing_versions, until
from macp_auth.testing.judge import judge, public_key
from macp_auth.testing.registry import Nonconformity, Skipped, check
from macp_auth.testing.subject import SignerSubject

_PUBLIC_MEMBERS = {"kty", "n", "e", "crv", "x", "y"}
_YEAR_5138 = 1e11  # in seconds; in milliseconds, it is 1973
_DAY = 24 * 3600


@check("key_versions() returns KeyVersions; at least one can sign", source="the Signer port")
async def offers_a_key(subject: SignerSubject) -> None:
    """Check the types: msgspec does not check those of a struct that Python code makes."""
    async with subject.opened() as signer:
        versions = await signer.key_versions()
        if not isinstance(versions, Sequence):
            raise Nonconformity(
                f"key_versions() returned a {type(versions).__name__}: return a list of KeyVersions"
            )
        for version in versions:
            if type(version) is not KeyVersion:
                raise Nonconformity(
                    f"key_versions() returned a {type(version).__name__} in the list: return KeyVersions"
                )
            try:
                msgspec.convert(msgspec.to_builtins(version), KeyVersion)
            except (msgspec.ValidationError, TypeError) as error:
                raise Nonconformity(f"a field of a KeyVersion has a wrong type: {error}") from None
        await signing_versions(signer)


@check("The published JWK has only public members", source="RFC 7517, section 9.2")
async def public_members_only(subject: SignerSubject) -> None:
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
)
async def published_keys_are_good(subject: SignerSubject) -> None:
    """Read each key as a verifier would."""
    async with subject.opened() as signer:
        for version in await signer.key_versions():
            public_key(version)


@check(
    "A kid has 1 to 256 visible characters, and is unique",
    source="RFC 7515, section 4.1.4",
)
async def kids_are_unique(subject: SignerSubject) -> None:
    """Check the kids of one call."""
    async with subject.opened() as signer:
        kids = [version.kid for version in await signer.key_versions()]
        for kid in kids:
            if not isinstance(kid, str) or not is_kid(kid):
                raise Nonconformity(
                    f"{kid!r} is not a kid: it must be a string of 1 to {MAX_KID_CHARS} visible characters"
                )
            if kids.count(kid) > 1:
                raise Nonconformity(
                    f"two versions have the kid {kid!r}: a verifier can't tell which key signed"
                )


@check(
    "key_versions() is stable between calls",
    source="the Signer port; replicas agree because they compute the same",
)
async def readings_agree(subject: SignerSubject) -> None:
    """Read the keys twice with one signer, and with a second one: kids, keys and times must be equal."""
    prepared = await subject.prepare()
    async with subject.opened(prepared) as first, subject.opened(prepared) as second:
        before = list(await first.key_versions())
        await asyncio.sleep(1.1)  # so that the time of the call, in whole seconds, differs
        for after in (list(await first.key_versions()), list(await second.key_versions())):
            _compare(before, after, "two calls")
            for one, other in zip(before, after, strict=True):
                times = [(v.created_at, v.not_before, v.not_after) for v in (one, other)]
                if times[0] != times[1]:
                    raise Nonconformity(
                        f"the times of {one.kid!r} differ between calls: return the backend's times, or "
                        "None; a key with a created_at of now never becomes old enough to sign"
                    )


@check("Times are in seconds since the epoch", source="the Signer port")
async def times_are_seconds(subject: SignerSubject) -> None:
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


@check(
    "A kid names the same key after a worker is restarted", source="the Signer port: a kid is never reused"
)
async def kids_survive_a_worker(subject: SignerSubject) -> None:
    """Open twice from one prepared state, as worker processes do."""
    prepared = await subject.prepare()
    _compare(await _read(subject, prepared), await _read(subject, prepared), "a worker's restart")


@check(
    "A kid names the same key after the service is restarted", source="the Signer port: a kid is never reused"
)
async def kids_survive_a_restart(subject: SignerSubject) -> None:
    """Prepare and open twice, as two starts of the service do."""
    if not subject.plugin.durable:
        raise Skipped("the plugin declares durable=False: its keys end with the service")
    before = await _read(subject, await subject.prepare())
    _compare(before, await _read(subject, await subject.prepare()), "a restart of the service")


@check(
    "After a rotation there is a new kid, and the old key can still sign",
    source="docs/rotation.md: a key is published before it signs",
)
async def rotation_is_seen(subject: SignerSubject) -> None:
    """Rotate while a signer is open, and read the keys until there is a new one."""
    async with subject.opened() as signer:
        before = {version.kid: version.public_jwk for version in await signer.key_versions()}
        await subject.rotate()
        versions = await _more_versions(signer, before)
        for version in versions:
            if before.get(version.kid, version.public_jwk) != version.public_jwk:
                raise Nonconformity(
                    f"after a rotation the kid {version.kid!r} names another key: give each key a new kid, "
                    "for example with its thumbprint"
                )
        if gone := before.keys() - {version.kid for version in versions}:
            raise Nonconformity(
                f"a rotation removed {', '.join(sorted(gone))}: keep it while its tokens are valid"
            )
        if len(versions) <= len(before):
            raise Nonconformity(
                f"{BACK_SECONDS:g} s after a rotation, key_versions() returns no new version: ask the "
                "backend in each call"
            )
        for version in await signing_versions(signer):
            await sign_and_judge(signer, version, new_input(), versions)


async def _more_versions(signer: Signer, before: dict[str, PublicJWK]) -> Sequence[KeyVersion]:
    async def seen() -> Sequence[KeyVersion] | None:
        versions = await signer.key_versions()
        kids = {version.kid: version.public_jwk for version in versions}
        return versions if kids != before else None

    return await until(seen, BACK_SECONDS) or await signer.key_versions()


@check("sign() uses exactly the requested version", source="the Signer port: never the latest")
async def exact_version_signs(subject: SignerSubject) -> None:
    """Sign with every version, in sequence and concurrently; each signature must be by its version."""
    async with subject.opened() as signer:
        if len(await signing_versions(signer)) == 1:
            await subject.rotate()
        versions = await signing_versions(signer)
        if len(versions) == 1:
            raise Skipped("only one version can sign")
        for version in [*versions, *reversed(versions)]:
            await sign_and_judge(signer, version, new_input(), versions)
        inputs = [(version, new_input()) for version in versions * 4]
        signatures = await asyncio.gather(*(signer.sign(version.kid, text) for version, text in inputs))
        for (version, text), signature in zip(inputs, signatures, strict=True):
            judge(version, text, signature, versions)


@check("sign() with an unknown kid raises UnknownKid", source="the Signer port")
async def unknown_kid(subject: SignerSubject) -> None:
    """Sign with kids of no version, and of versions that can't sign."""
    async with subject.opened() as signer:
        versions = await signer.key_versions()
        known = {version.kid for version in versions}
        near = {mutated for kid in known for mutated in (kid + "x", kid[:-1])} - known
        for kid in ["no-such-kid", "", "../keys/other", "k\n", *sorted(near)]:
            outcome = await attempt(signer.sign(kid, new_input()), "sign() with an unknown kid")
            if not isinstance(outcome, UnknownKid):
                what = f"raised {type(outcome).__name__}" if isinstance(outcome, Exception) else "signed"
                raise Nonconformity(
                    f"sign({kid!r}, ...) {what}, but there is no such version: raise UnknownKid"
                )
        for version in versions:
            if not version.can_sign:
                outcome = await attempt(
                    signer.sign(version.kid, new_input()), "sign() with a verify-only kid"
                )
                if not isinstance(outcome, UnknownKid | SignerRefused):
                    raise Nonconformity(
                        f"{version.kid!r} has can_sign=False, but sign() does not refuse it: raise UnknownKid"
                    )


async def _read(subject: SignerSubject, prepared: bytes) -> Sequence[KeyVersion]:
    async with subject.opened(prepared) as signer:
        return await signer.key_versions()


def _compare(before: Sequence[KeyVersion], after: Sequence[KeyVersion], over: str) -> None:
    keys = {version.kid: version.public_jwk for version in before}
    for version in after:
        if version.kid not in keys:
            raise Nonconformity(
                f"after {over}, there is a new kid, {version.kid!r}: derive kids from the key, and keep them"
            )
        if keys[version.kid] != version.public_jwk:
            raise Nonconformity(
                f"after {over}, the kid {version.kid!r} names another key: verifiers with the first in "
                "their cache reject every token; give each key a new kid, for example with its thumbprint"
            )
    if len(after) < len(before):
        raise Nonconformity(f"after {over}, a version is missing")
