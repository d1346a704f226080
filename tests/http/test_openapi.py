"""The OpenAPI document: an independent validator accepts it, and requests made from it find nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from macp_auth.entrypoints.http import jwks, openapi, probes, tokens
from tools.support.asgi import InProcess
from tools.support.service import Service


@pytest.fixture(scope="module")
def service() -> Iterator[InProcess]:
    with InProcess({"MACP_AUTH_SIGNING_ALG": "ES256", "MACP_AUTH_OPENAPI": "on"}) as running:
        yield running


def test_document_is_served_only_if_it_is_on() -> None:
    with InProcess({"MACP_AUTH_SIGNING_ALG": "ES256"}) as service:
        assert service.request("GET", openapi.PATH).status == 404


def test_validator_accepts_the_document(service: InProcess) -> None:
    """It is a valid OpenAPI 3.1 document."""
    document = service.request("GET", openapi.PATH).json
    assert document["openapi"].startswith("3.1.")
    OpenAPIV31SpecValidator(document).validate()


def test_document_has_each_path_with_the_method_that_it_describes(service: InProcess) -> None:
    document = service.request("GET", openapi.PATH).json
    assert {path: list(operations) for path, operations in document["paths"].items()} == {
        tokens.PATH: ["post"],
        jwks.PATH: ["get"],
        probes.HEALTH_PATH: ["get"],
        probes.READY_PATH: ["get"],
        probes.KEYS_READY_PATH: ["get"],
    }


@pytest.mark.slow
def test_schemathesis_finds_nothing(start_service: Callable[..., Service], tmp_path: Path) -> None:
    """Requests that the document allows are accepted, others are refused, as it says."""
    service = start_service({"MACP_AUTH_OPENAPI": "on", "MACP_AUTH_SIGNING_ALG": "ES256"})
    command = [str(Path(sys.executable).with_name("schemathesis")), "run", f"{service.url}{openapi.PATH}"]
    options = ["--checks", "all", "--max-examples", "200", "--generation-deterministic", "--no-color"]
    hooks = {"PYTHONPATH": str(Path(__file__).parent), "SCHEMATHESIS_HOOKS": "schemathesis_hooks"}
    run = subprocess.run(
        [*command, *options],
        cwd=tmp_path,
        env={**os.environ, **hooks},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stdout
    assert "5 passed" in run.stdout
