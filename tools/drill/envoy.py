"""Envoy: a server that lets a request pass if its jwt_authn filter accepts the token."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tools.drill.judges.protocol import AUDIENCE, ISSUER
from tools.support.proxies import envoy
from tools.support.service import free_port, wait_until

_KEYS_SECONDS = 20
_JWT_AUTHN = "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication"
_ROUTER = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
_HTTP = (
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
)


@contextmanager
def token_checking_envoy(directory: Path, jwks_port: int, cache_ttl: int, leeway: int) -> Iterator[int]:
    """Run Envoy; its port."""
    port = free_port()
    with envoy(json.dumps(_config(port, jwks_port, cache_ttl, leeway)), directory, port):
        wait_until(lambda: _status(port) == 401, within=_KEYS_SECONDS, what="Envoy refuses without a token")
        yield port


def _status(port: int) -> int:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
            status: int = answer.status
            return status
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except OSError:
        return 0


def _config(port: int, jwks_port: int, cache_ttl: int, leeway: int) -> dict[str, Any]:
    provider = {
        "issuer": ISSUER,
        "audiences": [AUDIENCE],
        "clock_skew_seconds": leeway,
        "remote_jwks": {
            "http_uri": {
                "uri": f"http://127.0.0.1:{jwks_port}/.well-known/jwks.json",
                "cluster": "issuer",
                "timeout": "5s",
            },
            "cache_duration": f"{cache_ttl}s",
        },
    }
    jwt_authn = {
        "@type": _JWT_AUTHN,
        "providers": {"issuer": provider},
        "rules": [{"match": {"prefix": "/"}, "requires": {"provider_name": "issuer"}}],
    }
    route = {"match": {"prefix": "/"}, "direct_response": {"status": 200}}
    http = {
        "@type": _HTTP,
        "stat_prefix": "drill",
        "route_config": {"virtual_hosts": [{"name": "any", "domains": ["*"], "routes": [route]}]},
        "http_filters": [
            {"name": "envoy.filters.http.jwt_authn", "typed_config": jwt_authn},
            {"name": "envoy.filters.http.router", "typed_config": {"@type": _ROUTER}},
        ],
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": http}]
    listener = {"name": "drill", "address": _address(port), "filter_chains": [{"filters": filters}]}
    endpoint = {"lb_endpoints": [{"endpoint": {"address": _address(jwks_port)}}]}
    cluster = {
        "name": "issuer",
        "type": "STATIC",
        "connect_timeout": "3s",
        "load_assignment": {"cluster_name": "issuer", "endpoints": [endpoint]},
    }
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
