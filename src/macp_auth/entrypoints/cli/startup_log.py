"""What an operator wants to read first, and what is not fit for production.

The fifth fact, the signing key, follows when the signer has been asked (by ``application/key_refresh.py``).
"""

from __future__ import annotations

import structlog

from macp_auth.entrypoints.http import jwks, tokens
from macp_auth.entrypoints.plan import ServicePlan
from macp_auth.entrypoints.server.listening import is_loopback

_log = structlog.get_logger()


def log_startup(plan: ServicePlan) -> None:
    """Log them, once, in the parent process."""
    settings = plan.settings
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    scheme = "http" if settings.tls is None else "https"
    base = f"{scheme}://{host}:{settings.port}"
    _log.info("listening", host=settings.host, port=settings.port, workers=settings.workers)
    _log.info("identity", issuer=settings.issuer, audience=settings.audience)
    _log.info("verification keys", jwks_url=base + jwks.PATH)
    if (metrics := settings.metrics_address) is not None:
        _log.info("metrics", host=metrics[0], port=metrics[1])
    _log.info("minting", mint_url=f"POST {base}{tokens.PATH}")
    if settings.tls_client_ca_file is None and not is_loopback(settings.host):
        _log.warning(
            "anyone who can reach this address can get a token: nobody has to authenticate",
            host=settings.host,
            remedy="set MACP_AUTH_TLS_CLIENT_CA_FILE, or let only callers reach it (SECURITY.md)",
        )
    if plan.signer == "ephemeral":
        _log.warning(
            "ephemeral key: lost when the service stops, so a restart breaks every token, and replicas never "
            "agree. For development only; otherwise set MACP_AUTH_SIGNING_KEY_JSON or MACP_AUTH_SIGNER"
        )
    for unread in plan.unread_variables:
        _log.warning(
            "variable is set, but nothing reads it",
            variable=unread.name,
            remedy=unread.remedy,
        )
