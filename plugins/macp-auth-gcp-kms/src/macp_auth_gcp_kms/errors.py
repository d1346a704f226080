"""Translates the errors of Google's client to macp-auth's.

Google's texts are dropped: they name resources and principals, and that of failed credentials may repeat what
a token endpoint answered. The class of an error is kept; Cloud Audit Logs have the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from google.api_core import exceptions as google
from google.auth.exceptions import GoogleAuthError

from macp_auth import SignerError, SignerMisconfigured, SignerRefused, SignerUnavailable

KEY_MISSING, KEY_DISABLED = "key-missing", "key-disabled"
WITHDRAWN = {KEY_MISSING, KEY_DISABLED}
"""The reasons for which a key version can no longer sign."""
_REFUSED: dict[type[google.GoogleAPICallError], tuple[str, str]] = {
    google.PermissionDenied: ("permission-denied", "grant the service's account the role of the README"),
    google.Unauthenticated: ("credentials-refused", "renew the credentials, and check the clock"),
    google.NotFound: (KEY_MISSING, "set a key that exists in this project and location"),
    google.FailedPrecondition: (KEY_DISABLED, "enable the key version, or create another one"),
}
_UNAVAILABLE: dict[type[google.GoogleAPICallError], str] = {
    google.ResourceExhausted: "throttled",
    google.DeadlineExceeded: "timeout",
    google.DataLoss: "corrupted",
    google.ServerError: "unavailable",
    google.Cancelled: "unavailable",
    google.Aborted: "unavailable",
}


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Translate the errors of the body; ``what`` is the beginning of their texts."""
    try:
        yield
    except google.GoogleAPICallError as error:
        raise _answered(error, what) from None
    except GoogleAuthError as error:
        raise SignerUnavailable(
            f"{what}: no Google credentials ({type(error).__name__}); give the service an account",
            reason="no-credentials",
        ) from None
    except (LookupError, TypeError, ValueError) as error:
        raise SignerError(
            f"{what}: the answer can't be read ({type(error).__name__})", reason="bad-answer"
        ) from None


def _answered(error: google.GoogleAPICallError, what: str) -> SignerError:
    text = f"{what}: {type(error).__name__}"
    for family, (reason, remedy) in _REFUSED.items():
        if isinstance(error, family):
            return SignerRefused(f"{text}; {remedy}", reason=reason)
    if isinstance(error, google.InvalidArgument):
        return SignerMisconfigured(f"{text}; MACP_AUTH_GCP_KMS_KEY must name an asymmetric signing key")
    for family, reason in _UNAVAILABLE.items():
        if isinstance(error, family):
            return SignerUnavailable(text, reason=reason)
    return SignerRefused(text)
