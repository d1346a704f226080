"""``make fuzz``, its second part: raw connections that send nearly requests.

    python -m tools.fuzz.raw --connections 100000

Counts tracebacks, server errors, answers that are cut, and hangs; if there is one, the exit status is 1.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path

from tools.fuzz.raw_clients import fuzz, tracebacks
from tools.support.service import Service

SHOWN = 10


def main() -> int:
    parser = argparse.ArgumentParser(prog="make fuzz", description="Raw connections of nearly requests.")
    parser.add_argument("--connections", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as directory,
        Service(Path(directory), {"MACP_AUTH_SIGNING_ALG": "ES256"}) as service,
    ):
        outcome = fuzz(service.port, options.seed, options.connections)
        service.mint()
        traced = tracebacks(service.log)
        log = service.log[-4000:]
    for fault in outcome.faults[:SHOWN]:
        print(fault)
    if traced:
        print(log)
    counted = ", ".join(f"{count} x {status}" for status, count in sorted(outcome.statuses.items()))
    print(f"{options.connections} raw connections: {counted}")
    print(f"{traced} tracebacks, {len(outcome.faults)} other faults (seed {options.seed})")
    if traced or outcome.faults:
        print(
            f"again with: python -m tools.fuzz.raw --connections {options.connections} --seed {options.seed}"
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
