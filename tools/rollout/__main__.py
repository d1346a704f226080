"""``make rollout-drill``: three replicas behind HAProxy are replaced one by one, under load.

    python -m tools.rollout --rounds 20

The exit status is 1 if a request failed or a replica did not exit 0. It needs Debian's package haproxy.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from functools import partial
from pathlib import Path

from tools.rollout.rollout import run_rollout
from tools.support.programs import ProgramMissing


def main() -> int:
    parser = argparse.ArgumentParser(prog="make rollout-drill", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20, help="replacements; default %(default)s")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))  # so that all it started ends
    say = partial(print, flush=True)
    with tempfile.TemporaryDirectory(prefix="rollout-drill-") as directory:
        try:
            report = run_rollout(options.rounds, Path(directory), say=say)
        except ProgramMissing as error:
            sys.exit(f"rollout-drill: {error}")
    say(report)
    return 1 if report.faults else 0


if __name__ == "__main__":
    sys.exit(main())
