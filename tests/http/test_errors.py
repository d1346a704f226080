"""Every error has one status, and only the caller's errors have details in the response."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from litestar import Request
from litestar.exceptions import InternalServerException

import macp_auth.entrypoints.composition  # noqa: F401 - brings in every module that defines an error
from macp_auth.domain.errors import (
    AudienceNotGranted,
    AuditUnavailable,
    BadCredential,
    CallerRefused,
    CallersUnavailable,
    ClockStepped,
    ConfigurationError,
    CredentialFault,
    InvalidRequest,
    MACPAuthError,
    NoCredential,
    NoGrant,
    RateLimited,
    ScopeNotGranted,
    SignerError,
    Unauthenticated,
    UnknownKid,
)
from macp_auth.domain.key_changes import UnsafeChange
from macp_auth.entrypoints.http.errors import HTTPRefusal, error_response

REQUEST: Any = Request[Any, Any, Any]({"type": "http", "headers": []})  # type: ignore[arg-type]
ARGUMENTS: dict[type[MACPAuthError], tuple[Any, ...]] = {
    NoCredential: (),
    BadCredential: (CredentialFault.BAD_SIGNATURE,),
    NoGrant: (),
    AudienceNotGranted: (),
    ScopeNotGranted: ("is_observer",),
    RateLimited: (7,),
}
"""Of the errors that make their text themselves."""
CHALLENGES: dict[type[MACPAuthError], str] = {
    NoCredential: "Bearer",
    BadCredential: 'Bearer error="invalid_token"',
    Unauthenticated: "Bearer",
}
NEVER_IN_A_REQUEST = {ConfigurationError, UnsafeChange}


def subclasses(error: type[MACPAuthError]) -> Iterator[type[MACPAuthError]]:
    for subclass in error.__subclasses__():
        if subclass.__module__.startswith("macp_auth."):  # other tests have some of their own
            yield subclass
        yield from subclasses(subclass)


def make(error: type[MACPAuthError]) -> MACPAuthError:
    if error is HTTPRefusal:
        return HTTPRefusal(418, "shown to the caller", {"X": "y"})
    if error in ARGUMENTS:
        return error(*ARGUMENTS[error])
    return error("shown to the caller")


def expected_status(error: type[CallerRefused]) -> int:
    if issubclass(error, Unauthenticated):
        return 401
    return 429 if error is RateLimited else 403


@pytest.mark.parametrize("error", sorted(set(subclasses(MACPAuthError)) - NEVER_IN_A_REQUEST, key=str))
def test_every_error_is_mapped(error: type[MACPAuthError]) -> None:
    """400 with its text for a caller's error, 503 without for a signer's, the clock's or the audit log's."""
    response = error_response(REQUEST, make(error))
    body = json.loads(response.content)
    if issubclass(error, SignerError | ClockStepped | CallersUnavailable | AuditUnavailable):
        assert response.status_code == 503
        assert int(response.headers["Retry-After"]) >= 1
        assert "shown to the caller" not in body["error"]
    elif issubclass(error, InvalidRequest):
        assert response.status_code == 400
        assert body == {"error": str(make(error))}
    elif issubclass(error, CallerRefused):
        assert response.status_code == expected_status(error)
        assert body == {"error": str(make(error))}
        assert response.headers.get("WWW-Authenticate") == CHALLENGES.get(error)
        assert response.headers.get("Retry-After") == ("7" if error is RateLimited else None)
    elif error is HTTPRefusal:
        assert (response.status_code, response.headers["X"]) == (418, "y")
    else:
        assert response.status_code == 403
        assert body == {"error": str(make(error))}


@pytest.mark.parametrize("fault", CredentialFault)
def test_a_bad_credential_s_fault_is_not_shown(fault: CredentialFault) -> None:
    """The caller can not distinguish them."""
    response = error_response(REQUEST, BadCredential(fault))
    assert json.loads(response.content) == {"error": "the credential is not accepted"}


def test_the_unexpected_is_not_shown() -> None:
    """A fault of ours is a 500 in JSON; what it was stands in the log."""
    for error in (KeyError("secret"), InternalServerException("secret detail"), UnknownKid("secret")):
        response = error_response(REQUEST, error)
        assert response.status_code in (500, 503)
        assert b"secret" not in response.content
