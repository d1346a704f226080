"""What is said before a certificate ends, and after; and at the start, of who may get a token."""

from __future__ import annotations

import datetime as dt
import time
from pathlib import Path

import pytest
from cryptography import x509

from tests.support.metrics import metrics_env, scrape
from tools.support import callers
from tools.support.bounded import HANG_SECONDS
from tools.support.service import Service, wait_until
from tools.support.tls import Authority
from tools.support.tls_service import TLSService, tls_settings

pytestmark = pytest.mark.slow  # services of their own

SOON, EXPIRED = "TLS certificate expires soon", "TLS certificate has expired"
ANYONE = "anyone who can reach this address can get a token: nobody has to authenticate"
NOT_ENFORCED = "callers file is not enforced"


def test_the_end_of_a_certificate_is_announced(tmp_path: Path) -> None:
    """Once before and once after, in the log; and as a metric, beside that of the clients' authority."""
    authority, clients = Authority(tmp_path), Authority(tmp_path, "clients")
    pair = authority.issue("ending", lives=dt.timedelta(seconds=15))
    env = {**metrics_env(), **tls_settings(pair), "MACP_AUTH_TLS_CLIENT_CA_FILE": str(clients.path)}
    ends = x509.load_pem_x509_certificate(pair.certificate.read_bytes()).not_valid_after_utc.timestamp()
    with TLSService(tmp_path, authority.path, env) as service:
        wait_until(
            lambda: ("0", "server") in certificate_ends(service),
            within=HANG_SECONDS,
            what="there is a metric",
        )
        found = certificate_ends(service)
        assert found["0", "server"] == ends
        assert found["0", "client-authority"] > time.time() + 3600
        wait_until(lambda: EXPIRED in service.log, within=30, what="the log says that it has expired")
        said = [(event["level"], event["certificate"]) for event in service.events if "certificate" in event]
        assert said == [("warning", "server"), ("error", "server")]
        assert service.log.count(SOON) == service.log.count(EXPIRED) == 1


def certificate_ends(service: Service) -> dict[tuple[str, ...], float]:
    name = "macp_auth_tls_certificate_expiry_timestamp_seconds"
    return scrape(service).values(name, "worker", "certificate")


@pytest.mark.parametrize(
    ("host", "authenticated_by", "warnings"),
    [
        ("0.0.0.0", "nothing", [ANYONE]),
        ("127.0.0.1", "nothing", []),
        ("0.0.0.0", "certificate", []),
        ("0.0.0.0", "enforce", []),
        ("0.0.0.0", "report", [ANYONE, NOT_ENFORCED]),
        ("127.0.0.1", "report", [NOT_ENFORCED]),
    ],
)
def test_the_start_warns_where_nobody_has_to_authenticate(
    tmp_path: Path, host: str, authenticated_by: str, warnings: list[str]
) -> None:
    """Beyond loopback, without client certificates and without a callers file that is enforced."""
    authority = Authority(tmp_path)
    env = {"MACP_AUTH_HOST": host, **tls_settings(authority.issue("server"))}
    if authenticated_by == "certificate":
        env["MACP_AUTH_TLS_CLIENT_CA_FILE"] = str(authority.path)
    elif authenticated_by != "nothing":
        caller = f'[[caller]]\nname = "a"\ndns_name = "a"\n{callers.RISK}'
        env |= callers.write(tmp_path / "callers.toml", caller)
        env["MACP_AUTH_CALLERS_MODE"] = authenticated_by
    with TLSService(tmp_path, authority.path, env) as service:
        found = [event["event"] for event in service.events if event["level"] == "warning"]
        assert [event for event in found if event in {ANYONE, NOT_ENFORCED}] == warnings
