"""``secret``: a bearer secret that ``macp-auth callers secret`` made.

Its prefix separates it from other bearer tokens, and lets scanners find it in repositories and logs.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping

from macp_auth.domain.callers import Caller, CallerAuthenticator, Credentials, Method
from macp_auth.domain.encoding import base64url
from macp_auth.domain.errors import BadCredential, CredentialFault

PREFIX = "macp_"
_RANDOM_BYTES = 32  # 256 bits can't be guessed, so a fast digest without salt is enough to store them
_SECRET = re.compile(rf"{PREFIX}[A-Za-z0-9_-]{{43}}")


def new_secret() -> str:
    """Return a new secret: the prefix, and 256 random bits in base64url."""
    return PREFIX + base64url(secrets.token_bytes(_RANDOM_BYTES))


def digest_of(secret: str) -> bytes:
    """Return the SHA-256 digest of ``secret``, in ASCII."""
    return hashlib.sha256(secret.encode("ascii")).digest()


class SecretMethod(CallerAuthenticator):
    """Authenticates by the digest of the secret.

    Args:
        secrets: the callers' names, by SHA-256 digest.
    """

    def __init__(self, secrets: Mapping[bytes, str]) -> None:
        self._callers = {
            digest: (digest, Caller(name, Method.SECRET, name)) for digest, name in secrets.items()
        }

    def authenticate(self, credentials: Credentials) -> Caller | None:
        """Return the caller that has the secret."""
        bearer = credentials.bearer
        if bearer is None or not bearer.startswith(PREFIX):
            return None
        if not _SECRET.fullmatch(bearer):
            raise BadCredential(CredentialFault.MALFORMED)
        digest = digest_of(bearer)
        # The time of the lookup depends on the digest, never on the secret: nobody finds a secret by bits
        # of its digest. Besides, Python hashes the digest with a random key before it compares any byte.
        known = self._callers.get(digest)
        if known is None or not hmac.compare_digest(known[0], digest):
            raise BadCredential(CredentialFault.UNKNOWN_CALLER)
        return known[1]
