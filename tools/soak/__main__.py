"""``make soak``: steady load, every token verified; memory, descriptors and threads must not grow.

    python -m tools.soak --seconds 600

After it, 500 slow sockets must not double the p99 of the others. The exit status is 1 if anything failed.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from functools import partial
from pathlib import Path

from tools.soak.crowd import run_crowd
from tools.soak.soak import SIGNERS, run_soak

_WINDOWS, _WINDOW_SECONDS = 3, 13  # long enough to see slow sockets cut, after ten seconds


def main() -> int:
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600, help="default %(default)s")
    parser.add_argument("--signer", choices=SIGNERS, action="append", help="default: all, at once")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))  # so that all it started ends
    say = partial(print, flush=True)
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        directory = Path(name)
        signers = {name: SIGNERS[name] for name in options.signer or SIGNERS}
        soaked = run_soak(options.seconds, directory, signers, say=say)
        for report in soaked:
            say(report)
        crowd = run_crowd(_WINDOW_SECONDS, _WINDOWS, directory)
        say(crowd)
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    say(f"{os.cpu_count()} cores, load average {load}")
    faults = [*(fault for report in soaked for fault in report.faults), *crowd.faults]
    say("\n".join(faults or ["passed"]))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
