"""Reads the configured keys once, for the commands that show or change them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from macp_auth.adapters.signers.jwk_file import read_keys_file, version_of
from macp_auth.domain.keys import KeyVersion
from macp_auth.domain.policy import RotationPolicy
from macp_auth.entrypoints.environment import PREFIX, read_settings
from macp_auth.entrypoints.plan import open_signer, plan_service
from macp_auth.entrypoints.settings import Settings


class ConfiguredKeys(msgspec.Struct, frozen=True):
    """The key versions of a signer, and the rotation policy."""

    versions: Sequence[KeyVersion]
    policy: RotationPolicy


def keys_of_service(environ: Mapping[str, str]) -> ConfiguredKeys:
    """Return the keys that a service with this environment would use.

    Raises:
        ConfigurationError: the configuration is invalid.
        SignerError: the signer cannot return its keys.
    """
    plan = plan_service(environ)

    async def read() -> Sequence[KeyVersion]:
        signer = open_signer(plan)
        try:
            return await signer.key_versions()
        finally:
            await signer.aclose()

    return ConfiguredKeys(asyncio.run(read()), plan.settings.rotation)


def keys_of_file(path: Path, environ: Mapping[str, str]) -> ConfiguredKeys:
    """Return the keys of a keys file, with the policy of this environment.

    Raises:
        ConfigurationError: a variable of the policy is invalid.
        SignerError: the file is unreadable or invalid.
    """
    return ConfiguredKeys([version_of(jwk) for jwk in read_keys_file(path)], policy_of(environ))


def policy_of(environ: Mapping[str, str]) -> RotationPolicy:
    """Return the rotation policy that this environment configures.

    Raises:
        ConfigurationError: a variable is invalid, or two contradict each other.
    """
    return read_settings(Settings, PREFIX, environ).rotation
