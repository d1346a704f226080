"""What the examination of Vault calls its checks, how it asks, and how one of them ends it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, TypeVar

import msgspec

from macp_auth.adapters.signers.vault_transit.connection import call
from macp_auth.domain.diagnosis import Finding
from macp_auth.domain.errors import SignerUnavailable

T = TypeVar("T")


class Check(StrEnum):
    """The checks, in their order."""

    ADDRESS = "vault-address"
    SEAL = "vault-seal"
    CLOCK = "vault-clock"
    LOGIN = "vault-login"
    TOKEN = "vault-token"  # noqa: S105 - a check's name
    PERMISSIONS = "vault-permissions"
    KEY = "key"
    CUSTODY = "key-custody"
    DELETION = "key-deletion"
    ROTATION = "key-rotation"
    VERSIONS = "key-versions"
    SIGNATURE = "key-signature"


class Blocked(Exception):
    """A finding that leaves nothing more to ask."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.text)
        self.finding = finding


async def ask(expected: type[T], function: Callable[..., Any], *arguments: Any, **named: Any) -> T:
    """Return the data of Vault's answer, in the type that is ``expected``.

    Raises:
        SignerUnavailable: no answer, or another one.
        SignerRefused: Vault will not.
    """
    answer = await call(function, *arguments, **named)
    try:
        return msgspec.convert(answer["data"], expected)
    except (TypeError, KeyError, msgspec.ValidationError):
        raise SignerUnavailable("Vault's answer can't be read", reason="bad-answer") from None


def policy_lines(capabilities: Mapping[str, str]) -> str:
    """Return the lines of a policy that give each path its capability."""
    return "\n".join(f'path "{path}" {{ capabilities = ["{what}"] }}' for path, what in capabilities.items())
