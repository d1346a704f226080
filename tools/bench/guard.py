"""The guard: ``python -m tools.bench.guard``, or ``make guard``. No token may come to cost more, unseen.

It counts instructions, with callgrind, for seconds depend on what else the machine does. What is judged
is our own code: a token in this process, less a bare signature in its place. What reads the socket is
not in it, nor is the audit log's thread, whose work goes by the clock.

The unit of the result is a bare Litestar route, because a count holds for one build of Python only. Four
builds, of CPython 3.11 to 3.13, took 143,000 to 169,000 instructions for the same token, and more or
fewer for the route in step. The signature is no such measure: it is OpenSSL's code under all of them,
and without AVX2 it takes 9 % more, where our own code takes 0.3 %.

Exits 0; 1 if our own code takes more than it may; 2 if it can't count.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from msgspec import Struct

from tools.bench.mint_loop import EXCHANGES, MARK
from tools.support.repository import ROOT
from tools.support.service import clean_environment

MOST = 0.91
"""What our own code may take for a token, in bare Litestar routes (tools/bench/echo.py).

5 % above what CPython 3.11 gave, 0.87. It was 0.78 before a token's audit line was checked
beforehand and had a queue of its own (0.05), and before browsers and foreign hosts were refused (0.04); four
builds, of CPython 3.11 to 3.13, gave 0.78 to 0.80 then. When the code got faster, take what ``make guard``
prints and add 7 %, so that it holds for all builds. A new Litestar may move it too.
"""
TIMEOUT_SECONDS = 180  # it takes 15 s where nothing else runs


class CountFailed(RuntimeError):
    """callgrind gave no counts."""


class Counts(Struct, frozen=True):
    """Instructions of one exchange, in the order in which they are counted."""

    token: float
    signature: float
    route: float

    @property
    def own(self) -> float:
        """What of a token is our own code."""
        return self.token - self.signature

    @property
    def ratio(self) -> float:
        """What is judged."""
        return self.own / self.route


def main(loop: str = "tools.bench.mint_loop") -> int:
    """Count what the module ``loop`` runs, print, and return the exit status."""
    if shutil.which("valgrind") is None:
        return _complain("valgrind is not installed; it is in Debian's package `valgrind`", status=2)
    try:
        counts = count(loop)
    except CountFailed as error:
        return _complain(str(error), status=2)
    print(_as_text(counts))
    if counts.ratio > MOST:
        return _complain("a token takes more of our own code than it may", status=1)
    return 0


def count(loop: str) -> Counts:
    """Run the module ``loop`` under callgrind, and return what it counted."""
    with tempfile.TemporaryDirectory() as directory:
        profile = Path(directory, "profile")
        callgrind = ["valgrind", "--quiet", "--tool=callgrind", f"--callgrind-out-file={profile}"]
        # By threads: the first one's counts do not depend on how often the clock wakes another.
        parts = [f"--dump-before={MARK}", "--separate-threads=yes"]
        try:
            subprocess.run(
                [*callgrind, *parts, sys.executable, "-m", loop],
                cwd=ROOT,
                env=clean_environment({"PYTHONHASHSEED": "0"}),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=TIMEOUT_SECONDS,
                check=True,
            )
        except subprocess.TimeoutExpired:
            raise CountFailed(f"callgrind did not end within {TIMEOUT_SECONDS} s") from None
        except subprocess.CalledProcessError as error:
            raise CountFailed(f"what is counted failed:\n{error.stdout}{error.stderr}") from None
        # A part ends at each mark. The odd ones are what lies before and between what is counted.
        return Counts(*(_total(Path(f"{profile}.{part}-01")) / EXCHANGES for part in (2, 4, 6)))


def _total(part: Path) -> int:
    found = re.search(r"^totals: (\d+)$", part.read_text(), re.MULTILINE) if part.exists() else None
    if found is None:
        raise CountFailed(f"callgrind has not seen the marks, which are calls of {MARK}()")
    return int(found[1])


def _as_text(counts: Counts) -> str:
    rows = {
        "token": counts.token,
        "bare signature": counts.signature,
        "our own": counts.own,
        "bare Litestar route": counts.route,
    }
    lines = [f"{name:<20}{instructions:>12,.0f} instructions" for name, instructions in rows.items()]
    return "\n".join([*lines, f"our own : route {counts.ratio:>17.3f}, at most {MOST}"])


def _complain(what: str, *, status: int) -> int:
    print(f"guard: {what}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
