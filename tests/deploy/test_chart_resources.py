"""The memory that the chart requests and allows is what its workers need."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psutil
import pytest

from tests.deploy.helm import Tools, Values, pod_spec
from tests.support.users import require_view_of_services
from tools.support.bounded import HANG_SECONDS
from tools.support.processes import family, mint_bytes
from tools.support.service import Service, wait_until
from tools.support.wire import exchange

MEBIBYTE = 2**20


def resources(tools: Tools, values: Values) -> dict[str, Any]:
    found: dict[str, Any] = pod_spec(tools.template(values=values))["containers"][0]["resources"]
    return found


def memory(tools: Tools, values: Values) -> tuple[Any, Any]:
    """The request and the limit; None for none."""
    found = resources(tools, values)
    return found["requests"].get("memory"), found.get("limits", {}).get("memory")


@pytest.mark.parametrize(
    ("workers", "request_and_limit"),
    [(None, ("128Mi", "256Mi")), (1, ("128Mi", "256Mi")), (2, ("192Mi", "384Mi")), (8, ("576Mi", "1152Mi"))],
)
def test_memory_follows_the_workers(
    tools: Tools, workers: int | None, request_and_limit: tuple[str, str]
) -> None:
    assert memory(tools, {"config": {"workers": workers}}) == request_and_limit


@pytest.mark.parametrize(
    ("workers", "request_and_limit"), [(1, ("224Mi", "448Mi")), (3, ("544Mi", "1088Mi"))]
)
def test_a_plugin_has_a_process_in_each_worker(
    tools: Tools, workers: int, request_and_limit: tuple[str, str]
) -> None:
    """Which needs memory, too."""
    assert memory(tools, {"config": {"workers": workers}, "signer": {"type": "acme"}}) == request_and_limit


@pytest.mark.parametrize(
    ("resources", "request_and_limit"),
    [
        ({"limits": {"memory": "1Gi"}}, ("128Mi", "1Gi")),
        ({"limits": {"memory": None}}, ("128Mi", None)),
        ({"limits": None}, ("128Mi", None)),
        ({"requests": {"memory": "1Gi"}, "limits": None}, ("1Gi", None)),
        ({"requests": {"memory": None}}, (None, "256Mi")),
        ({"requests": {"memory": "200Mi"}}, ("200Mi", "256Mi")),
    ],
    ids=str,
)
def test_memory_can_be_set(tools: Tools, resources: Values, request_and_limit: tuple[Any, Any]) -> None:
    """One, the other or both; the rest stays."""
    values = {"resources": resources}
    assert memory(tools, values) == request_and_limit
    assert pod_spec(tools.template(values=values))["containers"][0]["resources"]["requests"]["cpu"] == "100m"


def test_there_may_be_no_resources(tools: Tools) -> None:
    assert resources(tools, {"resources": None}) == {}


@pytest.mark.parametrize(
    "least", ["192Mi", "201326592", 201326592, "196608Ki", "0.1875Gi", "201.326592M", "201326.592k", "0.21G"]
)
def test_the_least_limit_is_taken_and_less_is_not(tools: Tools, least: str | int) -> None:
    """In each way to write it."""
    two = {"config": {"workers": 2}}
    assert memory(tools, {**two, "resources": {"limits": {"memory": least}}})[1] == least
    three = {"config": {"workers": 3}, "resources": {"limits": {"memory": least}}}
    message = tools.refusal(three)
    assert f"config.workers 3 needs 256Mi of memory, and resources.limits.memory is {least}" in message
    assert "Raise resources.limits.memory, or lower config.workers" in message


@pytest.mark.parametrize(
    ("resources", "said"),
    [
        ({"limits": {"memory": "127Mi"}}, "config.workers 1 needs 128Mi"),
        ({"limits": {"memory": "256MB"}}, 'resources.limits.memory is "256MB", which is no amount of memory'),
        ({"requests": {"memory": "lots"}}, 'resources.requests.memory is "lots", which is no amount'),
        ({"requests": {"memory": "257Mi"}}, "resources.requests.memory is 257Mi, more than resources.limits"),
    ],
    ids=str,
)
def test_memory_that_cannot_do_is_refused(tools: Tools, resources: Values, said: str) -> None:
    assert said in tools.refusal({"resources": resources})


@pytest.mark.parametrize(("workers", "least"), [(1, 128), (2, 192)])
def test_workers_fit_into_the_least_limit(
    start_service: Callable[..., Service], workers: int, least: int
) -> None:
    """Shared pages count once, as the kernel counts them for a container."""
    require_view_of_services()
    service = start_service({}, "--workers", str(workers))
    ready = '"event":"ready"'
    wait_until(lambda: service.log.count(ready) == workers, within=HANG_SECONDS, what="all are ready")
    for _ in range(200):
        assert exchange(service.port, mint_bytes()).status == 200
    used = sum(psutil.Process(each.pid).memory_full_info().pss for each in family(service))
    assert used < least * MEBIBYTE
