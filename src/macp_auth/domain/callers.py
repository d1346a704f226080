"""Who calls: the credentials of a request, the methods that authenticate them, and the caller."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from enum import StrEnum

from msgspec import Struct

from macp_auth.domain.errors import BadCredential, CredentialFault, NoCredential


class Method(StrEnum):
    """How a caller was authenticated."""

    CLIENT_CERTIFICATE = "client-certificate"
    """By the client certificate of the TLS connection."""
    FORWARDED_CERTIFICATE = "forwarded-certificate"
    """By the client certificate that a proxy on this host verified and names in a header."""
    JWT = "jwt"
    """By a JWT of a trusted issuer."""
    SECRET = "secret"  # noqa: S105 - the name of the method
    """By a bearer secret."""


class Caller(Struct, frozen=True):
    """An authenticated caller."""

    name: str
    """Its name in the callers file."""
    method: Method
    subject: str
    """Whom the credential names: a SPIFFE ID, a DNS name, the ``sub`` of a JWT; for a secret, the caller's
    name. For the log."""


class ClientCertificate(Struct, frozen=True):
    """What a client certificate says, after TLS has verified its chain."""

    uris: tuple[str, ...]
    """The URIs of its subject alternative names, in order."""
    dns_names: tuple[str, ...]
    """The DNS names of its subject alternative names, in order."""
    not_after: float
    """When it, or a certificate that vouches for it, expires first: seconds since the epoch."""


class Credentials(Struct, frozen=True):
    """All that a request brings to prove who sent it."""

    certificate: ClientCertificate | None = None
    """The client certificate of the connection."""
    bearer: str | None = None
    """The token of ``Authorization: Bearer`` (RFC 6750, section 2.1)."""
    forwarded: str | None = None
    """The header in which a proxy names its client's certificate. Anyone can send it: it proves something
    only if ``peer_is_loopback``."""
    peer_is_loopback: bool = False
    """Whether the connection comes from a loopback address."""

    def __repr__(self) -> str:
        return "Credentials(...)"  # keeps the bearer token out of logs

    @property
    def present(self) -> bool:
        """Whether there is any credential."""
        trusted_header = self.forwarded if self.peer_is_loopback else None
        return any(each is not None for each in (self.certificate, self.bearer, trusted_header))


class CallerAuthenticator(ABC):
    """One method of authentication."""

    @abstractmethod
    def authenticate(self, credentials: Credentials) -> Caller | None:
        """Return the caller, or None if no credential is for this method: then another is asked.

        Must not wait for anything: it runs on the event loop.

        Raises:
            BadCredential: a credential is for this method and is not accepted.
        """


class AuthenticatorChain:
    """Asks the methods in order. The first that accepts or refuses a credential decides.

    So a bad credential is never made good by another one beside it.
    """

    def __init__(self, methods: Iterable[CallerAuthenticator]) -> None:
        self._methods = tuple(methods)

    def authenticate(self, credentials: Credentials) -> Caller:
        """Return the caller.

        Raises:
            NoCredential: there is no credential.
            BadCredential: a method refused one, or none knows it.
        """
        for method in self._methods:
            if (caller := method.authenticate(credentials)) is not None:
                return caller
        if credentials.present:
            raise BadCredential(CredentialFault.UNKNOWN_CALLER)
        raise NoCredential
