"""Rotation: a kid names one key, also after restarts; new keys come, and old ones stay."""

from __future__ import annotations

from collections.abc import Sequence

from macp_auth.domain.keys import KeyVersion, PublicJWK
from macp_auth.domain.signer import Signer
from macp_auth.testing.bench import (
    BACK_SECONDS,
    compare,
    new_input,
    sign_and_judge,
    signing_versions,
    until,
)
from macp_auth.testing.checks.keys import readings_agree
from macp_auth.testing.checks.signatures import signs_in_time
from macp_auth.testing.registry import Nonconformity, Skipped, check
from macp_auth.testing.watched import WatchedSubject


@check(
    "A kid names the same key after a worker is restarted",
    source="the Signer port: a kid is never reused",
    needs=(readings_agree,),
)
async def kids_survive_a_worker(subject: WatchedSubject) -> None:
    """Open twice from one prepared state, as worker processes do: all versions must be equal."""
    prepared = await subject.prepare()
    compare(await _read(subject, prepared), await _read(subject, prepared), "a worker's restart")


@check(
    "A kid names the same key after the service is restarted",
    source="the Signer port: a kid is never reused",
    needs=(kids_survive_a_worker,),
)
async def kids_survive_a_restart(subject: WatchedSubject) -> None:
    """Prepare and open twice, as two starts of the service do."""
    if not subject.plugin.durable:
        raise Skipped("the plugin declares durable=False: its keys end with the service")
    before = await _read(subject, await subject.prepare())
    compare(before, await _read(subject, await subject.prepare()), "a restart of the service")


async def _read(subject: WatchedSubject, prepared: bytes) -> Sequence[KeyVersion]:
    async with subject.opened(prepared) as signer:
        return await signer.key_versions()


@check(
    "After a rotation there is a new kid, and the old key can still sign",
    source="docs/rotation.md: a key is published before it signs",
    needs=(signs_in_time, kids_survive_a_restart),
)
async def rotation_is_seen(subject: WatchedSubject) -> None:
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
