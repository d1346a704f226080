"""Settings: whether the host can read them from the environment."""

from __future__ import annotations

from macp_auth.entrypoints.signer_settings import unusable_settings
from macp_auth.testing.registry import Nonconformity, check
from macp_auth.testing.subject import SignerSubject


@check("A variable can fill every setting's type", source="the host reads each setting from a text")
async def settings_are_usable(subject: SignerSubject) -> None:
    """Check every field, also if its variable is not set."""
    for fault in unusable_settings(subject.plugin):
        raise Nonconformity(fault)
