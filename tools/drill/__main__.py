"""``make rotation-drill``: keys rotate under load, and real verifiers judge every token until it ends.

    python -m tools.drill --tokens 100000 --rotations 3 --seconds 900

The exit status is 1 if a token was lost or wrongly rejected, or a revoked key was accepted for too long.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from functools import partial
from pathlib import Path

from tools.drill.drill import Size, run_drill
from tools.drill.scenario import Scenario


def main() -> int:
    parser = argparse.ArgumentParser(prog="make rotation-drill", description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=100_000, help="at least so many; default %(default)s")
    parser.add_argument("--rotations", type=int, default=3, help="at least so many; default %(default)s")
    parser.add_argument("--seconds", type=float, default=900, help="the time limit; default %(default)s")
    parser.add_argument("--emergency", action="store_true", help="in the end, revoke the signing key")
    options = parser.parse_args()
    size = Size(
        tokens=options.tokens,
        rotations=options.rotations,
        seconds=options.seconds,
        emergency=options.emergency,
        linger=6,
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))  # so that all it started ends
    with tempfile.TemporaryDirectory(prefix="rotation-drill-") as directory:
        report = run_drill(size, Scenario(), Path(directory), say=partial(print, flush=True))
    print(report)
    return 1 if report.faults else 0


if __name__ == "__main__":
    sys.exit(main())
