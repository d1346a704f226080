"""Why there is no token."""

from __future__ import annotations

from typing import Self


class MintError(Exception):
    """There is no token. The text has the service's own words, and never a credential or a token.

    Attributes:
        retryable: whether the same request may succeed later. A source then tries again by itself.
        status: of the answer; None if there was none.
        retry_after: seconds that the service asks to wait; None if it does not say.
    """

    retryable = True

    def __init__(self, message: str, status: int | None = None, retry_after: float | None = None) -> None:
        super().__init__(message, status, retry_after)
        self.message = message
        self.status = status
        self.retry_after = retry_after

    def __str__(self) -> str:
        return self.message

    def again(self) -> Self:
        """Return an equal error, for one caller: Python writes a traceback into what is raised."""
        return type(self)(self.message, self.status, self.retry_after)


class MintUnavailable(MintError):
    """The service could not be reached, did not answer in time, or can't mint now: 408, 429 or 5xx."""


class CredentialError(MintError):
    """A credential can't be read from its file. It may be there soon, as while it is replaced."""


class UntrustedService(MintError):
    """The service's certificate can't be verified: nothing was sent. Correct ``url`` or ``cacert``."""

    retryable = False


class MintRefused(MintError):
    """The service does not mint this: any other status. Change the request, the credential or the grant."""

    retryable = False
