"""The environment of a service for its Vault."""

from __future__ import annotations

from typing import Any

from tools.support.openbao import Vault

POLICY = """
path "transit/keys/{key}" {{ capabilities = ["read"] }}
path "transit/sign/{key}" {{ capabilities = ["update"] }}
"""
"""All that the signer needs."""

SHORT_ROTATION = {
    "MACP_AUTH_KEY_REFRESH_SECONDS": "1",
    "MACP_AUTH_JWKS_MAX_AGE_SECONDS": "0",
    "MACP_AUTH_VERIFIER_CACHE_TTL_SECONDS": "1",
    "MACP_AUTH_VERIFIER_STALE_GRACE_SECONDS": "0",
    "MACP_AUTH_VERIFIER_LEEWAY_SECONDS": "0",
    "MACP_AUTH_CLOCK_SKEW_SECONDS": "0",
    "MACP_AUTH_MAX_TTL_SECONDS": "3",
    "MACP_AUTH_KEY_PUBLISH_LEAD_SECONDS": "8",
}
"""A rotation takes seconds: a lead of 8, a lag of 4."""


def allow(bao: Vault, key: str) -> str:
    """Write the policy for ``key``, and return its name."""
    bao.write_policy(f"signer-{key}", POLICY.format(key=key))
    return f"signer-{key}"


def with_token(bao: Vault, key: str, token: str | None = None, **more: Any) -> dict[str, str]:
    """Variables for ``key`` and ``token``; without one, a new one that may do no more than it needs."""
    return {
        "MACP_AUTH_SIGNER": "vault-transit",
        "MACP_AUTH_VAULT_KEY": key,
        "VAULT_ADDR": bao.url,
        "VAULT_TOKEN": token or bao.token([allow(bao, key)]),
        **{name: str(value) for name, value in more.items()},
    }


def with_login(bao: Vault, key: str, method: str, **settings: Any) -> dict[str, str]:
    """Variables for ``key`` and a login; ``settings`` as in ``role_id="..."``."""
    return {
        "MACP_AUTH_SIGNER": "vault-transit",
        "MACP_AUTH_VAULT_KEY": key,
        "VAULT_ADDR": bao.url,
        "MACP_AUTH_VAULT_AUTH": method,
        **{f"MACP_AUTH_VAULT_{name.upper()}": str(value) for name, value in settings.items()},
    }
