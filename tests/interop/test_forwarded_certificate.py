"""A real Envoy in front: only the client certificate that it verified authenticates the caller."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from tools.support import callers
from tools.support.bounded import HANG_SECONDS
from tools.support.programs import missing
from tools.support.proxies import envoy as running_envoy
from tools.support.service import Service, free_port
from tools.support.tls import Authority, Pair
from tools.support.tls_service import trusting
from tools.support.wire import Answer, read_answer

HEADER = "x-forwarded-client-cert"
FILE = f"""
[proxy]
client_certificate_header = "{HEADER}"

[[caller]]
name = "playground"
spiffe_id = "{callers.SPIFFE_ID}"
{callers.RISK}"""
REQUEST = {"sender": "risk-agent"}
FORGED = f"By=spiffe://example.org/envoy;Hash=00;URI={callers.SPIFFE_ID}"
_TYPES = "type.googleapis.com/envoy.extensions."


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("forwarded")


@pytest.fixture(scope="module")
def authority(directory: Path) -> Authority:
    return Authority(directory)


@pytest.fixture(scope="module")
def service(directory: Path) -> Iterator[Service]:
    """Listens on all addresses, so that a peer may come from another one than loopback."""
    env = {**callers.write(directory / "callers.toml", FILE), "MACP_AUTH_HOST": "0.0.0.0"}
    with Service(directory, {**env, "MACP_AUTH_SIGNING_ALG": "ES256"}) as running:
        yield running


@pytest.fixture(scope="module", params=["SANITIZE_SET", "APPEND_FORWARD"])
def envoy(
    request: pytest.FixtureRequest, directory: Path, authority: Authority, service: Service
) -> Iterator[int]:
    """Envoy's port. It demands a client certificate of the authority."""
    port = free_port()
    config = _config(port, authority.path, authority.issue("envoy"), service.port, request.param)
    with running_envoy(json.dumps(config), directory, port):
        yield port


def test_the_certificate_that_envoy_verified_mints(envoy: int, authority: Authority) -> None:
    assert exchange(envoy, authority, client(authority, callers.SPIFFE_ID)).status == 200


def test_another_certificate_does_not(envoy: int, authority: Authority) -> None:
    assert exchange(envoy, authority, client(authority, callers.SPIFFE_ID + "2")).status == 401


@pytest.mark.parametrize(
    "name",
    [
        x509.DNSName(f"a;URI={callers.SPIFFE_ID}"),
        x509.UniformResourceIdentifier(f"spiffe://example.org/a;URI={callers.SPIFFE_ID}"),
        x509.UniformResourceIdentifier(f";URI={callers.SPIFFE_ID}"),
    ],
)
def test_a_name_with_a_semicolon_is_not_taken_for_two(
    envoy: int, authority: Authority, name: x509.GeneralName
) -> None:
    """Envoy does not escape names."""
    assert exchange(envoy, authority, authority.issue("client", names=[name])).status == 401


def test_a_header_of_the_client_is_not_believed(envoy: int, authority: Authority) -> None:
    """Envoy removes it, or appends its own element, and the last one decides."""
    answer = exchange(envoy, authority, client(authority, callers.SPIFFE_ID + "2"), {HEADER: FORGED})
    assert answer.status == 401


def test_a_peer_that_is_not_on_loopback_is_not_believed(service: Service) -> None:
    """Without a proxy between, the header is not even a credential."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing: it only selects the address of this machine
        except OSError as error:
            missing(f"this machine has no address but loopback: {error}")
        address = probe.getsockname()[0]
    raw = callers.request(REQUEST, **{HEADER: FORGED})
    with socket.create_connection((address, service.port), timeout=HANG_SECONDS) as sock:
        sock.sendall(raw.replace(b"localhost", address.encode()))
        answer = read_answer(sock)
    assert (answer.status, answer.json) == (401, {"error": "a credential is required"})


def client(authority: Authority, spiffe_id: str) -> Pair:
    return authority.issue("client", names=[x509.UniformResourceIdentifier(spiffe_id)])


def exchange(port: int, authority: Authority, pair: Pair, headers: dict[str, str] | None = None) -> Answer:
    """Mint through Envoy."""
    context = trusting(authority.path, pair)
    with (
        socket.create_connection(("127.0.0.1", port), timeout=HANG_SECONDS) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as sock,
    ):
        sock.sendall(callers.request(REQUEST, **(headers or {})))
        return read_answer(sock)


def _config(port: int, ca: Path, server: Pair, backend: int, details: str) -> dict[str, Any]:
    tls = {
        "@type": _TYPES + "transport_sockets.tls.v3.DownstreamTlsContext",
        "require_client_certificate": True,
        "common_tls_context": {
            "tls_certificates": [
                {
                    "certificate_chain": {"filename": str(server.certificate)},
                    "private_key": {"filename": str(server.key)},
                }
            ],
            "validation_context": {"trusted_ca": {"filename": str(ca)}},
        },
    }
    http = {
        "@type": _TYPES + "filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "test",
        "forward_client_cert_details": details,
        "set_current_client_cert_details": {"uri": True, "dns": True, "subject": True},
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "any",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "service"}}],
                }
            ]
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": _TYPES + "filters.http.router.v3.Router"},
            }
        ],
    }
    chain = {
        "filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": http}],
        "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": tls},
    }
    return {
        "static_resources": {
            "listeners": [{"name": "in", "address": _address(port), "filter_chains": [chain]}],
            "clusters": [
                {
                    "name": "service",
                    "load_assignment": {
                        "cluster_name": "service",
                        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(backend)}}]}],
                    },
                }
            ],
        }
    }


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
