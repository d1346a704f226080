"""``make fuzz``: generated bodies for as long as asked, beyond the default suite's twenty thousand.

    python -m tools.fuzz --seconds 600

Each is held against the contract; one in nine is long, and held against the bound of a request's cost.
Prints the number of bodies; on a failure, Hypothesis prints the smallest body that shows it, and the
exit status is 1.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
import traceback

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from tools.fuzz.bodies import bodies, content_types, long_bodies
from tools.fuzz.contract import assert_contract
from tools.fuzz.costly import BOUND_SECONDS
from tools.support.asgi import InProcess

ROUND = 2000
ATTEMPTS = 10


def assert_cost(service: InProcess, body: bytes) -> None:
    """Hold what ``body`` costs against the bound; the least of a few attempts counts."""
    least = float("inf")
    for _ in range(ATTEMPTS):
        before = time.process_time()
        service.post(body)
        least = min(least, time.process_time() - before)
        if least < BOUND_SECONDS:
            return
    raise AssertionError(f"{least * 1000:.1f} ms of CPU for a body of {len(body)} bytes")


def main() -> int:
    parser = argparse.ArgumentParser(prog="make fuzz", description="Generated bodies for as long as asked.")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    options = parser.parse_args()
    end = time.monotonic() + options.seconds
    tried = 0
    with InProcess({"MACP_AUTH_SIGNING_ALG": "ES256"}) as service:

        @settings(max_examples=ROUND, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(bodies, content_types, long_bodies, st.integers(0, 7))
        def check(body: bytes, content_type: str, long_body: bytes, turn: int) -> None:
            nonlocal tried
            tried += 1
            assert_contract(service, body, content_type)
            if turn == 0:
                tried += 1
                assert_contract(service, long_body, content_type)
                assert_cost(service, long_body)

        for number in range(sys.maxsize):
            if time.monotonic() > end:
                break
            try:
                seed(options.seed + number)(check)()
            except Exception:  # noqa: BLE001 - whatever it is, it is the finding
                traceback.print_exc()
                print(f"failed after {tried} bodies; again with: --seed {options.seed + number}")
                return 1
    print(f"{tried} bodies, no failure (seed {options.seed})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
