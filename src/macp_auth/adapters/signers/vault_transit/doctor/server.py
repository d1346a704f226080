"""Examines the server: that it can be reached safely, serves, and has the time."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from macp_auth.adapters.signers.vault_transit.connection import Connection, call
from macp_auth.adapters.signers.vault_transit.doctor.checks import Blocked, Check
from macp_auth.adapters.signers.vault_transit.settings import VaultSettings
from macp_auth.domain.diagnosis import Finding, failure, ok, warning
from macp_auth.domain.errors import SignerMisconfigured, SignerRefused, SignerUnavailable

_CLOCK_NOTICE_SECONDS = 1  # clocks that are synchronised differ by milliseconds


class _Health(Struct):
    initialized: bool
    sealed: bool
    standby: bool
    server_time_utc: int
    version: str = "unknown"


async def diagnose_server(settings: VaultSettings, clock_skew: int) -> AsyncIterator[Finding]:
    """Examine the server; ``clock_skew`` is what the settings allow for, in seconds.

    Raises:
        Blocked: it can't serve.
    """
    before = time.time()
    health = await _health(settings)
    after = time.time()
    yield _address(settings)
    if not health.initialized:
        raise Blocked(failure(Check.SEAL, "Vault is not initialised", "vault operator init"))
    if health.sealed:
        raise Blocked(failure(Check.SEAL, "Vault is sealed", "vault operator unseal"))
    state = "standby, so it must forward to the active node" if health.standby else "active"
    yield ok(Check.SEAL, f"initialised, unsealed, {state}; version {health.version}")
    yield _clock(health.server_time_utc, before, after, clock_skew)


async def _health(settings: VaultSettings) -> _Health:
    # It is asked in the root namespace: no other has a health.
    connection = Connection(msgspec.structs.replace(settings, namespace=None))
    look = f"curl {settings.addr.rstrip('/')}/v1/sys/health"
    try:
        answer = await call(
            connection.client().sys.read_health_status,
            method="GET",
            standby_ok=True,
            performance_standby_code=200,
            dr_secondary_code=200,
            sealed_code=200,
            uninit_code=200,
        )
        return msgspec.convert(answer, _Health)
    except (SignerUnavailable, SignerMisconfigured) as error:
        remedies = {
            "tls": _mend_of_tls(str(error)),
            "no-tls": _mend_without_tls(settings.addr),
            "standby": "MACP_AUTH_VAULT_ADDR=<the active node, or a load balancer that finds it>",
        }
        remedy = remedies.get(error.reason, f"{look} shows more; fix MACP_AUTH_VAULT_ADDR, or the network")
        text = f"{error} ({settings.addr})" if error.reason == "unreachable" else str(error)
        raise Blocked(failure(Check.ADDRESS, text, remedy)) from None
    except (SignerRefused, msgspec.ValidationError):
        remedy = f"{look} shows what does; fix MACP_AUTH_VAULT_ADDR"
        raise Blocked(failure(Check.ADDRESS, "it is not Vault that answers there", remedy)) from None
    finally:
        await connection.aclose()


def _mend_of_tls(text: str) -> str:
    if "MACP_AUTH_VAULT_CLIENT_CERT" in text:
        return (
            "MACP_AUTH_VAULT_CLIENT_CERT=<the PEM file of a certificate that Vault's listener accepts>\n"
            "MACP_AUTH_VAULT_CLIENT_KEY=<the PEM file of its private key>"
        )
    if "MACP_AUTH_VAULT_TLS_SERVER_NAME" in text:
        return "MACP_AUTH_VAULT_TLS_SERVER_NAME=<a name that Vault's certificate has>"
    return "MACP_AUTH_VAULT_CACERT=<the PEM file of the authority that vouches for Vault>"


def _mend_without_tls(addr: str) -> str:
    server = urlsplit(addr)
    if _is_loopback(server.hostname or ""):
        return f"MACP_AUTH_VAULT_ADDR=http://{server.netloc}"
    return "give Vault's listener a certificate (tls_cert_file, tls_key_file)"


def _address(settings: VaultSettings) -> Finding:
    addr = settings.addr
    if addr.startswith("https://"):
        presented = "" if settings.client_cert is None else "; a client certificate is presented"
        return ok(Check.ADDRESS, f"{addr} answers, and its certificate is accepted{presented}")
    if _is_loopback(urlsplit(addr).hostname or ""):
        return ok(Check.ADDRESS, f"{addr} answers, on loopback")
    return warning(
        Check.ADDRESS,
        f"{addr} answers without TLS: whoever is on the way can take the token, and sign with it",
        f"MACP_AUTH_VAULT_ADDR=https://{urlsplit(addr).netloc}",
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _clock(server: int, before: float, after: float, clock_skew: int) -> Finding:
    """Compare the least difference that a time in whole seconds, told between two moments, allows."""
    ahead, behind = before - (server + 1), server - after
    apart = max(ahead, behind, 0.0)
    if apart <= min(_CLOCK_NOTICE_SECONDS, clock_skew):
        return ok(Check.CLOCK, "this clock and Vault's agree, to a second")
    side = "ahead of" if ahead > behind else "behind"
    text = f"this clock is {apart:.0f} s {side} Vault's; MACP_AUTH_CLOCK_SKEW_SECONDS is {clock_skew}"
    remedy = "synchronise the clocks of both machines (NTP); `timedatectl` shows whether this one is"
    return warning(Check.CLOCK, text, remedy) if apart <= clock_skew else failure(Check.CLOCK, text, remedy)
