#!/usr/bin/env python3
"""What the pod of `helm test` runs: mint a token, and verify it.

The arguments are those of `macp-auth mint`, `--`, and those of `macp-auth verify`.
"""

import subprocess
import sys
import time

CANNOT_BE_ASKED = 2
DEADLINE = time.monotonic() + 60


def run(command: list[str], given: bytes = b"", stdout: int | None = None) -> bytes:
    """Run it again while nothing answers: a NetworkPolicy takes effect some time after it is there."""
    while True:
        done = subprocess.run(command, input=given, stdout=stdout, check=False)  # noqa: S603
        if done.returncode == 0:
            return done.stdout
        if done.returncode != CANNOT_BE_ASKED or time.monotonic() > DEADLINE:
            sys.exit(done.returncode)
        time.sleep(1)


end = sys.argv.index("--")
token = run(["macp-auth", "mint", *sys.argv[1:end]], stdout=subprocess.PIPE)
run(["macp-auth", "verify", "-", *sys.argv[end + 1 :]], token)
