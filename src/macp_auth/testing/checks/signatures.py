"""Signatures: any verifier must accept them."""

from __future__ import annotations

import asyncio
import time

import jwt
import msgspec

from macp_auth.adapters import jose
from macp_auth.domain.encoding import base64url_bytes
from macp_auth.domain.errors import SignerRefused, UnknownKid
from macp_auth.domain.key_set import MAX_TOKEN_BYTES
from macp_auth.domain.keys import Algorithm, KeyVersion
from macp_auth.domain.signer import Signer
from macp_auth.testing.bench import attempt, new_input, sign_and_judge, signing_versions
from macp_auth.testing.checks.keys import readings_agree
from macp_auth.testing.judge import ES256_BYTES, has_leading_zero, judge, public_key
from macp_auth.testing.registry import Nonconformity, Skipped, check
from macp_auth.testing.watched import WatchedSubject

_AT_ONCE = 64
LEADING_ZERO_SECONDS = 10.0
LEADING_ZERO_SIGNATURES = 4000
"""R has a leading zero in one of 256, and S in one of 256: this many lack one with a probability of 3e-7."""
_BATCH = 16  # a usual size of a batch
_TRIALS = 3


@check(
    "A signature is bytes: 64 for ES256, as many as the modulus for RS256",
    source="RFC 7518, 3.3 and 3.4",
    needs=(readings_agree,),
)
async def raw_form(subject: WatchedSubject) -> None:
    """Check the type and form of a signature, by whichever version."""
    async with subject.opened() as signer:
        versions = await signer.key_versions()
        for version in await signing_versions(signer):
            for signing_input in (new_input(), new_input()):
                signature: object = await signer.sign(version.kid, signing_input)
                if type(signature) is not bytes:
                    raise Nonconformity(f"sign() returned a {type(signature).__name__}: return bytes")
                if not any(jose.verifies(public_key(each), signing_input, signature) for each in versions):
                    judge(version, signing_input, signature, versions)


@check(
    "sign() uses exactly the requested version", source="the Signer port: never the latest", needs=(raw_form,)
)
async def exact_version_signs(subject: WatchedSubject) -> None:
    """Sign with every version, in both directions; each signature must be by its version."""
    async with subject.opened() as signer:
        if len(await signing_versions(signer)) == 1:
            await subject.rotate()
        versions = await signing_versions(signer)
        if len(versions) == 1:
            raise Skipped("only one version can sign")
        for version in [*versions, *reversed(versions)]:
            await sign_and_judge(signer, version, new_input(), versions)


@check(
    "A signature is made within the deadline that the plugin declares",
    source="docs/signer-reference.md: the host abandons a call at its deadline",
    needs=(exact_version_signs,),
)
async def signs_in_time(subject: WatchedSubject) -> None:
    """Measure signatures; the fastest of several trials excludes noise."""
    allowed = subject.plugin.sign_seconds
    async with subject.opened() as signer:
        for version in await signing_versions(signer):
            trials = [await _seconds_for(signer, version) for _ in range(_TRIALS)]
            if min(trials) > allowed:
                raise Nonconformity(
                    f"a signature of {version.kid!r} takes {min(trials):.2f} s, and the host abandons it "
                    f"after {allowed:g} s: declare a longer sign_seconds, or sign faster"
                )


async def _seconds_for(signer: Signer, version: KeyVersion) -> float:
    began = time.monotonic()
    await signer.sign(version.kid, new_input())
    return time.monotonic() - began


@check("sign() with an unknown kid raises UnknownKid", source="the Signer port", needs=(signs_in_time,))
async def unknown_kid(subject: WatchedSubject) -> None:
    """Sign with kids of no version, and of versions that can't sign."""
    seconds = subject.plugin.sign_seconds
    async with subject.opened() as signer:
        versions = await signer.key_versions()
        known = {version.kid for version in versions}
        near = {mutated for kid in known for mutated in (kid + "x", kid[:-1])} - known
        for kid in ["no-such-kid", "", "../keys/other", "k\n", *sorted(near)]:
            outcome = await attempt(signer.sign(kid, new_input()), "sign() with an unknown kid", seconds)
            if not isinstance(outcome, UnknownKid):
                what = f"raised {type(outcome).__name__}" if isinstance(outcome, Exception) else "signed"
                raise Nonconformity(
                    f"sign({kid!r}, ...) {what}, but there is no such version: raise UnknownKid"
                )
        for version in versions:
            if not version.can_sign:
                outcome = await attempt(
                    signer.sign(version.kid, new_input()), "sign() with a verify-only kid", seconds
                )
                if not isinstance(outcome, UnknownKid | SignerRefused):
                    raise Nonconformity(
                        f"{version.kid!r} has can_sign=False, but sign() does not refuse it: raise UnknownKid"
                    )


@check(
    "A signature covers the whole input, and nothing else",
    source="RFC 7515, section 5.1",
    needs=(signs_in_time,),
)
async def every_byte_counts(subject: WatchedSubject) -> None:
    """Sign inputs that differ in one byte, and verify each signature with the others."""
    async with subject.opened() as signer:
        for version in await signing_versions(signer):
            key, first = public_key(version), new_input("x" * 300)
            altered = [_with_change(first, at) for at in (0, len(first) // 2, len(first) - 1)]
            inputs = [first, *altered, first[:-1], first + b"A"]
            signatures = [await sign_and_judge(signer, version, signing_input) for signing_input in inputs]
            for signature in signatures:
                fitting = [text for text in inputs if jose.verifies(key, text, signature)]
                if len(fitting) > 1:
                    raise Nonconformity(
                        f"a signature of {version.kid!r} verifies for different inputs: sign the whole input"
                    )
            if jose.verifies(key, first, _with_change(signatures[0], len(signatures[0]) // 2)):
                raise Nonconformity(
                    f"an altered signature verifies with the key published as {version.kid!r}"
                )


def _with_change(text: bytes, at: int) -> bytes:
    return text[:at] + bytes([text[at] ^ 1]) + text[at + 1 :]


@check(
    f"Inputs of 1 to {MAX_TOKEN_BYTES} bytes, with any content, are signed",
    source=f"a token has up to {MAX_TOKEN_BYTES} bytes",
    needs=(every_byte_counts,),
)
async def any_length(subject: WatchedSubject) -> None:
    """Sign short, long and binary inputs; some backends accept at most 4096 bytes."""
    async with subject.opened() as signer:
        for version in await signing_versions(signer):
            for signing_input in (b"x", b"\x00\xff" * 16, b"y" * 4097, b"z" * MAX_TOKEN_BYTES):
                try:
                    await sign_and_judge(signer, version, signing_input)
                except Nonconformity as fault:
                    raise Nonconformity(f"an input of {len(signing_input)} bytes: {fault}") from fault


@check(
    "No two ECDSA signatures share a nonce",
    source="FIPS 186-5, section 6.3: a repeated nonce reveals the key",
    needs=(signs_in_time,),
)
async def fresh_nonces(subject: WatchedSubject) -> None:
    """Compare the R of signatures over different inputs."""
    async with subject.opened() as signer:
        versions = [v for v in await signing_versions(signer) if v.algorithm is Algorithm.ES256]
        if not versions:
            raise Skipped("no version signs ES256")
        for version in versions:
            signatures = [await sign_and_judge(signer, version, new_input()) for _ in range(_BATCH)]
            if len({signature[: ES256_BYTES // 2] for signature in signatures}) < len(signatures):
                raise Nonconformity(
                    f"two signatures of {version.kid!r} have the same R, which reveals the private key: "
                    "revoke that key, and use a new nonce for each signature"
                )


@check(
    "Concurrent signatures each match their own input",
    source="the Signer port: many concurrent tasks",
    needs=(signs_in_time,),
)
async def many_at_once(subject: WatchedSubject) -> None:
    """Sign inputs of different lengths with every version, as many at once as the plugin declares."""
    async with subject.opened() as signer:
        versions = await signing_versions(signer)
        number = max(2, min(_AT_ONCE, subject.plugin.concurrent_signs))
        wanted = [(versions[n % len(versions)], new_input("x" * n)) for n in range(number)]
        signatures = await asyncio.gather(*(signer.sign(version.kid, text) for version, text in wanted))
        for (version, text), signature in zip(wanted, signatures, strict=True):
            try:
                judge(version, text, signature, versions)
            except Nonconformity as fault:
                raise _mixed_up(fault, [text for _, text in wanted], version, signature) from fault


def _mixed_up(
    fault: Nonconformity, inputs: list[bytes], version: KeyVersion, signature: bytes
) -> Nonconformity:
    for other in inputs:
        try:
            judge(version, other, signature)
        except Nonconformity:
            continue
        return Nonconformity(
            "a concurrent signature is for another call's input: keep no state of a call on the signer"
        )
    return Nonconformity(f"among {len(inputs)} concurrent signatures, {fault}")


@check("R and S keep their leading zeros", source="RFC 7518, section 3.4", needs=(fresh_nonces, many_at_once))
async def leading_zeros(subject: WatchedSubject) -> None:
    """Sign until an R and an S begin with a zero byte; each signature must be correct."""
    async with subject.opened() as signer:
        versions = [v for v in await signing_versions(signer) if v.algorithm is Algorithm.ES256]
        if not versions:
            raise Skipped("no version signs ES256")
        seen_r = seen_s = False
        ends, made = time.monotonic() + LEADING_ZERO_SECONDS, 0
        while not (seen_r and seen_s):
            if made >= LEADING_ZERO_SIGNATURES or time.monotonic() > ends:
                raise Skipped(f"no leading zero in both R and S among {made} signatures")
            signing = (sign_and_judge(signer, versions[0], new_input()) for _ in range(_BATCH))
            for signature in await asyncio.gather(*signing):
                zero_r, zero_s = has_leading_zero(versions[0], signature)
                seen_r, seen_s = seen_r or zero_r, seen_s or zero_s
            made += _BATCH


async def _token(signer: Signer, version: KeyVersion) -> str:
    signing_input = new_input(kid=version.kid, algorithm=version.algorithm.value)
    signature = await sign_and_judge(signer, version, signing_input, await signer.key_versions())
    return (signing_input + b"." + base64url_bytes(signature)).decode()


def _jwk(version: KeyVersion) -> dict[str, str]:
    return {**msgspec.to_builtins(version.public_jwk), "kid": version.kid, "alg": version.algorithm.value}


@check(
    "PyJWT verifies a token of every version that signs",
    source="RFC 7515, section 5.2",
    needs=(signs_in_time,),
)
async def pyjwt_verifies(subject: WatchedSubject) -> None:
    """Verify with a library that made neither the key nor the signature."""
    async with subject.opened() as signer:
        for version in await signing_versions(signer):
            token = await _token(signer, version)
            try:
                jwt.decode(token, jwt.PyJWK(_jwk(version)), algorithms=[version.algorithm.value])
            except (jwt.PyJWTError, ValueError) as error:
                raise Nonconformity(
                    f"PyJWT rejects a token of {version.kid!r}: {type(error).__name__}"
                ) from error


@check(
    "joserfc verifies a token of every version that signs",
    source="RFC 7515, section 5.2",
    needs=(signs_in_time,),
)
async def joserfc_verifies(subject: WatchedSubject) -> None:
    """Verify with a second library."""
    try:
        from joserfc import errors, jwk, jws  # noqa: PLC0415 - only this check needs it
    except ImportError:
        raise Skipped("joserfc is not installed: install macp-auth[testing]") from None
    async with subject.opened() as signer:
        for version in await signing_versions(signer):
            token = await _token(signer, version)
            try:
                key = jwk.import_key({**_jwk(version)})
                jws.deserialize_compact(token, key, algorithms=[version.algorithm.value])
            except (errors.JoseError, ValueError) as error:
                raise Nonconformity(
                    f"joserfc rejects a token of {version.kid!r}: {type(error).__name__}"
                ) from error
