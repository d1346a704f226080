"""``client-certificate``: the client certificate of the TLS connection.

TLS has verified its chain against MACP_AUTH_TLS_CLIENT_CA_FILE. A certificate that names no caller is not for
this method, expired or not: a mesh may present one on each connection, beside the caller's bearer token.

If several credentials of a request are good and name different callers, the first method decides: the client
certificate, the forwarded certificate, the JWT, the secret.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from macp_auth.adapters.callers.identity import Identities
from macp_auth.domain.callers import Caller, CallerAuthenticator, Credentials, Method
from macp_auth.domain.errors import BadCredential, CredentialFault


class CertificateMethod(CallerAuthenticator):
    """Authenticates by the SPIFFE ID or the DNS name of the certificate.

    Args:
        spiffe_ids: the callers' names, by SPIFFE ID.
        dns_names: the callers' names, by DNS name in lower case.
        now: returns seconds since the epoch. A connection may outlive its certificate.
    """

    def __init__(
        self, spiffe_ids: Mapping[str, str], dns_names: Mapping[str, str], now: Callable[[], float]
    ) -> None:
        self._identities = Identities(spiffe_ids, dns_names)
        self._now = now

    def authenticate(self, credentials: Credentials) -> Caller | None:
        """Return the caller that the certificate names."""
        if (certificate := credentials.certificate) is None:
            return None
        if (identity := self._identities.find(certificate.uris, certificate.dns_names)) is None:
            return None
        if certificate.not_after <= self._now():
            raise BadCredential(CredentialFault.EXPIRED)
        return Caller(identity.caller, Method.CLIENT_CERTIFICATE, identity.subject)
