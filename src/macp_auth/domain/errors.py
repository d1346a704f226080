"""The errors of minting.

``entrypoints/http/errors.py`` maps them to HTTP statuses. The caller can fix an
:class:`InvalidRequest`; only the operator can fix a :class:`SignerError`, or allow what a
:class:`CallerRefused` refuses.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import ClassVar

from macp_auth.domain.redaction import shown

_WORD = re.compile(r"[a-z]{1,24}(-[a-z]{1,24}){0,3}")


class MACPAuthError(Exception):
    """Base class of all errors that this project raises."""


class ConfigurationError(MACPAuthError):
    """The configuration is invalid; the text names the variable and the remedy."""


class InvalidRequest(MACPAuthError):
    """The request is invalid; the text says why and may be shown to the caller."""

    reason: ClassVar[str] = "invalid-request"
    """The reason, in lower case and hyphens, for metrics and the audit log."""


class MalformedJSON(InvalidRequest):
    """The body is not one JSON value in strict RFC 8259 syntax, is nested too deeply, or is too large."""

    reason = "invalid-json"


class InvalidSender(InvalidRequest):
    """The sender is missing or is not a readable identity."""

    reason = "invalid-sender"


class InvalidScopes(InvalidRequest):
    """The runtime could not read a token with these scopes, or would misread it."""

    reason = "invalid-scopes"


class InvalidTTL(InvalidRequest):
    """The requested lifetime is not a positive number."""

    reason = "invalid-ttl"


class TokenTooLarge(InvalidRequest):
    """The token would exceed the size limit."""

    reason = "token-too-large"


class CallerRefused(MACPAuthError):
    """This caller gets no such token.

    The text may be shown to the caller: it says neither which callers exist nor why a credential is bad.
    """

    reason: str
    """The reason, in lower case and hyphens, for metrics and the audit log."""
    grant: str | None = None
    """The name of the grant that refused, if one did."""


class Unauthenticated(CallerRefused):
    """It is not known who calls."""


class NoCredential(Unauthenticated):
    """The request has no credential."""

    reason = "no-credential"

    def __init__(self) -> None:
        super().__init__("a credential is required")


class CredentialFault(StrEnum):
    """Why a credential is bad. For the log, never for the caller."""

    MALFORMED = "malformed"
    """It can't be read, or has a part that it must not have."""
    EXPIRED = "expired"
    NOT_YET_VALID = "not-yet-valid"
    UNKNOWN_ISSUER = "unknown-issuer"
    UNKNOWN_KEY = "unknown-key"
    """The issuer publishes no such key, or its keys could not be fetched."""
    WRONG_ALGORITHM = "wrong-algorithm"
    BAD_SIGNATURE = "bad-signature"
    WRONG_AUDIENCE = "wrong-audience"
    """It was issued for another service."""
    UNKNOWN_CALLER = "unknown-caller"
    """It is valid or of no known kind, and belongs to no caller in the callers file."""


class BadCredential(Unauthenticated):
    """The request has a credential that is not accepted. :attr:`reason` is never for the caller."""

    def __init__(self, fault: CredentialFault) -> None:
        super().__init__("the credential is not accepted")
        self.fault = fault
        self.reason = f"credential-{fault}"


class NotGranted(CallerRefused):
    """The caller is known, and may not have this token."""


class NoGrant(NotGranted):
    """No grant of the caller is for this sender."""

    reason = "no-grant"

    def __init__(self) -> None:
        super().__init__("no grant for this sender")


class AudienceNotGranted(NotGranted):
    """The grant is not for this audience."""

    reason = "audience-not-granted"

    def __init__(self) -> None:
        super().__init__("audience is not granted for this sender")


class ScopeNotGranted(NotGranted):
    """The request asks for more than the grant allows."""

    reason = "scope-not-granted"

    def __init__(self, field: str) -> None:
        super().__init__(f"scopes.{field} is more than is granted for this sender")
        self.field = field
        """The field of ``scopes``."""


class RateLimited(CallerRefused):
    """The caller has used up the rate of its grant."""

    reason = "rate-limited"

    def __init__(self, retry_after: int) -> None:
        super().__init__("too many requests")
        self.retry_after = retry_after
        """When to try again, in whole seconds from now, at least 1."""


class CallersUnavailable(MACPAuthError):
    """There was no usable callers file yet, so no request can be decided. The text is for the log."""

    reason: ClassVar[str] = "callers-unavailable"


class ClockStepped(MACPAuthError):
    """The clock can't be trusted, so no token can be issued. The text is for the log."""

    reason: ClassVar[str] = "clock-step"


class AuditUnavailable(MACPAuthError):
    """The audit line of the token can't be written, and is required."""

    reason: ClassVar[str] = "audit-unavailable"


class SignerError(MACPAuthError):
    """The signer can't sign now. The text is for the log, never for a caller.

    It may quote a backend: it is reduced to one printable line of bounded length, without a credential.
    """

    default_reason: ClassVar[str] = "failed"

    def __init__(self, text: str, *, reason: str | None = None) -> None:
        super().__init__(shown(text))
        self.reason = reason or self.default_reason
        """The reason, in lower case and hyphens, for metrics and readiness probes."""


class SignerUnavailable(SignerError):
    """The backend is unreachable or not ready. Retryable."""

    default_reason = "unavailable"


class SignerRefused(SignerError):
    """The backend refused: a missing permission, a policy, a deleted key."""

    default_reason = "refused"


class SignerMisconfigured(SignerError):
    """The signer's settings are invalid; the text names the setting, never its content."""

    default_reason = "misconfigured"


class UnknownKid(SignerError):
    """The signer does not have this key version."""

    default_reason = "unknown-kid"

    def __init__(self, kid: str) -> None:
        super().__init__(f"no key version {kid!r}")


class WrongSignature(SignerError):
    """The published key does not verify the signature."""

    default_reason = "wrong-signature"


def reason_of(error: BaseException) -> str:
    """Return the reason for a missing signature; safe to show to anyone.

    A plugin may raise anything and may put its backend's text into ``reason``: anything that is not a
    lower-case, hyphenated word becomes ``failed``.
    """
    reason = getattr(error, "reason", None)
    if isinstance(error, SignerError) and isinstance(reason, str) and _WORD.fullmatch(reason):
        return reason
    return SignerError.default_reason
