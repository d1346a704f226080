"""All that can go wrong while a token is minted, in the domain's own words.

No HTTP status is in sight: ``entrypoints/http/errors.py`` maps these, once. Two families matter
to a caller: an :class:`InvalidRequest` is theirs to fix, a :class:`SignerError` is ours.
"""

from __future__ import annotations

import re
from typing import ClassVar

from macp_auth.domain.redaction import shown

_WORD = re.compile(r"[a-z]{1,24}(-[a-z]{1,24}){0,3}")


class MACPAuthError(Exception):
    """The root of every error that this project raises on purpose."""


class ConfigurationError(MACPAuthError):
    """The service can't start as it is configured; the text names the variable and the remedy."""


class InvalidRequest(MACPAuthError):
    """The request can't be granted as it stands; the text says why and may be shown to the caller."""

    reason: ClassVar[str] = "invalid-request"
    """Why, in one word of lower case and hyphens: for metrics and the audit log."""


class MalformedJSON(InvalidRequest):
    """The body is not one JSON value in strict RFC 8259 syntax, nests too deeply, or holds too much."""

    reason = "invalid-json"


class InvalidSender(InvalidRequest):
    """The sender is missing, or is no identity that a person could read back."""

    reason = "invalid-sender"


class InvalidScopes(InvalidRequest):
    """The scopes would make a token that the runtime can't read, or would misread."""

    reason = "invalid-scopes"


class InvalidTTL(InvalidRequest):
    """The lifetime asked for is no positive number."""

    reason = "invalid-ttl"


class TokenTooLarge(InvalidRequest):
    """The token would not fit where it has to travel."""

    reason = "token-too-large"


class ClockStepped(MACPAuthError):
    """It is not known what time it is, so no token may say one. The text is for the log."""

    reason: ClassVar[str] = "clock-step"


class SignerError(MACPAuthError):
    """The signer can't give a signature now. The text is for the log, never for a caller.

    It may quote a backend: it becomes one printable line of bounded length, without a credential.
    """

    default_reason: ClassVar[str] = "failed"

    def __init__(self, text: str, *, reason: str | None = None) -> None:
        super().__init__(shown(text))
        self.reason = reason or self.default_reason
        """Why, in one word of lower case and hyphens: for metrics, and for whoever probes readiness."""


class SignerUnavailable(SignerError):
    """The backend can't be reached or is not ready. Retryable."""

    default_reason = "unavailable"


class SignerRefused(SignerError):
    """The backend answered, and said no: a permission, a policy, a deleted key."""

    default_reason = "refused"


class SignerMisconfigured(SignerError):
    """The signer's own settings can't work; the text names the setting, never its content."""

    default_reason = "misconfigured"


class UnknownKid(SignerError):
    """The signer was asked for a key version that it does not have."""

    default_reason = "unknown-kid"

    def __init__(self, kid: str) -> None:
        super().__init__(f"no key version {kid!r}")


class WrongSignature(SignerError):
    """The signer returned bytes that the published key does not verify. No token may carry them."""

    default_reason = "wrong-signature"


def reason_of(error: BaseException) -> str:
    """Return why there is no signature, in one word that may be shown to anybody.

    A signer of another package may raise anything, and may put its backend's text where the word
    belongs: all that is no such word is ``failed``.
    """
    reason = getattr(error, "reason", None)
    if isinstance(error, SignerError) and isinstance(reason, str) and _WORD.fullmatch(reason):
        return reason
    return SignerError.default_reason
