"""``forwarded-certificate``: the client certificate that a proxy on this host verified.

The proxy names it in Envoy's header ``x-forwarded-client-cert``
(https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_conn_man/headers#x-forwarded-client-cert).
From a peer that is not on loopback, the header is no credential. Of its elements, only the last counts: the
proxy's own. It is the proxy's own only if the proxy sets it or appends to it
(``forward_client_cert_details: SANITIZE_SET`` or ``APPEND_FORWARD``) and requires a valid client certificate.

Envoy does not escape URIs and DNS names. So an authority that the proxy trusts must not sign names with a
comma or a semicolon: such a name could pass for another element or another name. No rule for the header can
prevent it, because what follows the comma can be all that Envoy itself writes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from macp_auth.adapters.callers.identity import Identities
from macp_auth.domain.callers import Caller, CallerAuthenticator, Credentials, Method
from macp_auth.domain.errors import BadCredential, CredentialFault

_PAIR = re.compile(
    r"""
    (?P<key>[A-Za-z]+) =
    (?: " (?P<quoted> (?: [^"\\] | \\. )* ) " | (?P<plain> [^",;]* ) )
    (?P<end> ; | ,[ \t]* | \Z )
    """,
    re.VERBOSE,
)
_ESCAPED = re.compile(r"\\(.)")
_REPEATABLE = {"by", "uri", "dns"}  # Envoy writes one for each name in the certificate


class ForwardedCertificateMethod(CallerAuthenticator):
    """Authenticates by the SPIFFE ID or the DNS name in the header.

    Args:
        spiffe_ids: the callers' names, by SPIFFE ID.
        dns_names: the callers' names, by DNS name in lower case.
    """

    def __init__(self, spiffe_ids: Mapping[str, str], dns_names: Mapping[str, str]) -> None:
        self._identities = Identities(spiffe_ids, dns_names)

    def authenticate(self, credentials: Credentials) -> Caller | None:
        """Return the caller that the last element of the header names."""
        if credentials.forwarded is None or not credentials.peer_is_loopback:
            return None
        element = _last_element(credentials.forwarded)
        uris = [value for key, value in element if key == "uri"]
        if uris == [""]:  # Envoy's word for none; a second one beside it comes from inside another name
            uris = []
        dns_names = [value for key, value in element if key == "dns"]
        if (identity := self._identities.find(uris, dns_names)) is None:
            return None
        return Caller(identity.caller, Method.FORWARDED_CERTIFICATE, identity.subject)


def _last_element(header: str) -> list[tuple[str, str]]:
    """Return the pairs of the last element; their keys are in lower case.

    Raises:
        BadCredential: any part of the header is malformed: then where its last element begins is not certain.
    """
    element: list[tuple[str, str]] = []
    position = 0
    while pair := _PAIR.match(header, position):
        value = pair["plain"]
        element.append((pair["key"].lower(), _ESCAPED.sub(r"\1", pair["quoted"]) if value is None else value))
        if not pair["end"]:
            break
        position = pair.end()
        if pair["end"] != ";":
            element = []
    single = [key for key, _ in element if key not in _REPEATABLE]
    if pair is None or len(set(single)) < len(single):
        raise BadCredential(CredentialFault.MALFORMED)
    return element
