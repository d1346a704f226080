"""Which caller a certificate names.

A certificate with a URI of the scheme ``spiffe`` is an X.509-SVID, and only its SPIFFE ID counts. Of another
certificate, the DNS names count. The common name of the subject and wildcards never do (RFC 9525, section 2).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

from msgspec import Struct

from macp_auth.domain.errors import BadCredential, CredentialFault

_MAX_SPIFFE_ID_BYTES = 2048  # SPIFFE-ID, section 2.3
# SPIFFE-ID, sections 2.1 to 2.3; X509-SVID, section 3.1: the ID of a workload has a path.
_SPIFFE_ID = re.compile(r"spiffe://[a-z0-9._-]{1,255}(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._-]+)+")
_SPIFFE_SCHEME = "spiffe:"
REMEMBERED = 4096
"""Certificates. A connection shows the same one with each request."""


def is_workload_id(text: str) -> bool:
    """Whether ``text`` is the SPIFFE ID of a workload, in the only form that the standard allows."""
    return len(text) <= _MAX_SPIFFE_ID_BYTES and _SPIFFE_ID.fullmatch(text) is not None


class Identity(Struct, frozen=True):
    """A caller, and the name by which its certificate names it."""

    caller: str
    """The caller's name in the callers file."""
    subject: str
    """The SPIFFE ID, or the DNS name in lower case."""


class Identities:
    """The callers that have a certificate.

    Args:
        spiffe_ids: their names, by SPIFFE ID.
        dns_names: their names, by DNS name in lower case.
    """

    def __init__(self, spiffe_ids: Mapping[str, str], dns_names: Mapping[str, str]) -> None:
        self._spiffe_ids = spiffe_ids
        self._dns_names = dns_names
        self._remembered = lru_cache(REMEMBERED)(self._find)

    def find(self, uris: Sequence[str], dns_names: Sequence[str]) -> Identity | None:
        """Return the caller that a certificate with these subject alternative names names, if any.

        Raises:
            BadCredential: it is an X.509-SVID with another URI (X509-SVID, section 2) or with an invalid ID
                (SPIFFE-ID, section 2), or its DNS names name several callers.
        """
        return self._remembered(tuple(uris), tuple(dns_names))

    def _find(self, uris: tuple[str, ...], dns_names: tuple[str, ...]) -> Identity | None:
        if any(uri.lower().startswith(_SPIFFE_SCHEME) for uri in uris):
            if len(uris) > 1 or not is_workload_id(uris[0]):
                raise BadCredential(CredentialFault.MALFORMED)
            caller = self._spiffe_ids.get(uris[0])
            return None if caller is None else Identity(caller, uris[0])
        # RFC 4343 folds the case of ASCII letters only; str.lower() folds others to them, as the Kelvin sign.
        names = {name.lower() for name in dns_names if name.isascii()}
        found = [
            Identity(caller, name) for name in names if (caller := self._dns_names.get(name)) is not None
        ]
        if len(found) > 1:
            raise BadCredential(CredentialFault.MALFORMED)
        return found[0] if found else None
