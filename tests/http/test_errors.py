"""Every error of ours has one status, and only the caller's own errors are told in detail."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from litestar import Request
from litestar.exceptions import InternalServerException

import macp_auth.entrypoints.composition  # noqa: F401 - brings in every module that defines an error
from macp_auth.domain.errors import (
    ClockStepped,
    ConfigurationError,
    InvalidRequest,
    MACPAuthError,
    SignerError,
    UnknownKid,
)
from macp_auth.domain.key_changes import UnsafeChange
from macp_auth.entrypoints.http.errors import HTTPRefusal, error_response

REQUEST: Any = Request[Any, Any, Any]({"type": "http", "headers": []})  # type: ignore[arg-type]
NEVER_IN_A_REQUEST = {ConfigurationError, UnsafeChange}


def subclasses(error: type[MACPAuthError]) -> Iterator[type[MACPAuthError]]:
    for subclass in error.__subclasses__():
        if subclass.__module__.startswith("macp_auth."):  # other tests have some of their own
            yield subclass
        yield from subclasses(subclass)


def make(error: type[MACPAuthError]) -> MACPAuthError:
    if error is HTTPRefusal:
        return HTTPRefusal(418, "told to the caller", {"X": "y"})
    return error("told to the caller")


@pytest.mark.parametrize("error", sorted(set(subclasses(MACPAuthError)) - NEVER_IN_A_REQUEST, key=str))
def test_every_error_is_mapped(error: type[MACPAuthError]) -> None:
    """400 with its text for a caller's error, 503 without for a signer's or the clock's: for all of them."""
    response = error_response(REQUEST, make(error))
    body = json.loads(response.content)
    if issubclass(error, SignerError | ClockStepped):
        assert response.status_code == 503
        assert int(response.headers["Retry-After"]) >= 1
        assert "told to the caller" not in body["error"]
    elif issubclass(error, InvalidRequest):
        assert response.status_code == 400
        assert body == {"error": str(make(error))}
    elif error is HTTPRefusal:
        assert (response.status_code, response.headers["X"]) == (418, "y")
    else:
        assert response.status_code == 403
        assert body == {"error": str(make(error))}


def test_the_unexpected_is_not_told() -> None:
    """A fault of ours is a 500 in JSON; what it was stands in the log."""
    for error in (KeyError("secret"), InternalServerException("secret detail"), UnknownKid("secret")):
        response = error_response(REQUEST, error)
        assert response.status_code in (500, 503)
        assert b"secret" not in response.content
