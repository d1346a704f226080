"""Nearly requests, on real connections: a short run of what ``make fuzz`` does at length."""

from __future__ import annotations

from collections.abc import Callable

from tools.fuzz.raw_clients import fuzz, tracebacks
from tools.support.service import Service

SEED = 11
CONNECTIONS = 1500


def test_no_raw_request_makes_a_fault(start_service: Callable[..., Service]) -> None:
    """No traceback, no server error, no cut answer, no hang; and both ends of the scale were reached."""
    service = start_service({"MACP_AUTH_SIGNING_ALG": "ES256"})
    outcome = fuzz(service.port, SEED, CONNECTIONS)
    assert outcome.faults == []
    assert tracebacks(service.log) == 0
    assert {200, 400, 404, 405, 413, 415, 417, 431} <= outcome.statuses.keys()
    service.mint()
