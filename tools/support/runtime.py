"""Our own tokens as strict verifiers read them: with the judge of ``macp-auth verify``.

Its model of the MACP runtime is held to the real one.
"""

from __future__ import annotations

from typing import Any

import jwt

from macp_auth.entrypoints.cli.verification import Expected, judge

_OF_THE_KEY = {"kid", "key", "signature"}


class RuntimeRefuses(AssertionError):
    """A verifier does not take these claims."""


def claims_at_runtime(token: str) -> dict[str, Any]:
    """The claims, if every verifier can read them. The signature is not verified."""
    claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    expected = Expected(issuer=claims["iss"], audience=claims["aud"], leeway=60)
    findings = judge(token, [], expected, now=claims["iat"])
    if wrong := [found for found in findings if not found.good and found.check not in _OF_THE_KEY]:
        raise RuntimeRefuses("; ".join(f"{found.check}: {found.found}" for found in wrong))
    return claims
