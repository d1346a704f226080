"""What the commands here have in common: how they begin, how they fail, and where their results go."""

from __future__ import annotations

import argparse
import re
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
from msgspec import Struct

from tools.bench.load import LoadFailed
from tools.bench.service import ServerFailed

INTERRUPTED = 130  # as a shell reports an end by Ctrl-C


class Rendering(Struct, frozen=True):
    """A result in each form that can be asked for."""

    text: str
    json: str
    markdown: str
    svg: str | None = None
    """None where there is no chart to draw."""


def run(bench: Callable[[], int]) -> int:
    """Bench, and return the exit status. Whatever ends it, every process that it started is stopped."""
    if shutil.which("wrk") is None:
        return complain("wrk is not installed; it is in Debian's package `wrk`", status=2)
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell has its background jobs ignore the first
        signal.signal(number, signal.default_int_handler)
    try:
        return bench()
    except (ServerFailed, LoadFailed, psutil.Error) as error:
        return complain(str(error), status=1)
    except KeyboardInterrupt:
        return complain("interrupted; what was started is stopped", status=INTERRUPTED)


def complain(what: str, *, status: int) -> int:
    """Say what went wrong, and return ``status``."""
    print(f"bench: {what}", file=sys.stderr)
    return status


def count(most: int) -> Callable[[str], int]:
    """Return the reader of an option that is a whole number from 1 to ``most``."""

    def read(text: str) -> int:
        if not (text.isdecimal() and 1 <= int(text) <= most):
            raise argparse.ArgumentTypeError(f"must be a whole number from 1 to {most}")
        return int(text)

    return read


def add_outputs(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where the result goes."""
    forms = parser.add_mutually_exclusive_group()
    for form in ("json", "markdown"):
        forms.add_argument(
            f"--{form}", dest="form", action="store_const", const=form, help=f"print {form}, not text"
        )
    parser.set_defaults(form="text")
    parser.add_argument("--page", type=_page, metavar="FILE", help="put the markdown into this page, too")


def add_chart(parser: argparse.ArgumentParser) -> None:
    """Add the option that draws the result."""
    parser.add_argument("--svg", type=_file, metavar="FILE", help="draw a chart into this file, too")


def publish(rendering: Rendering, options: argparse.Namespace, *, block: str, failed: int) -> int:
    """Print the result, write it to the files that were asked for, and return the exit status.

    Where requests failed, no file is written.
    """
    print(getattr(rendering, options.form))
    if failed:
        return complain(f"{failed} requests failed: the figures are worthless", status=1)
    if rendering.svg is not None and options.svg:
        options.svg.write_text(rendering.svg, encoding="utf-8")
    if options.page:
        page = options.page.read_text(encoding="utf-8")
        options.page.write_text(fill(page, block, rendering.markdown), encoding="utf-8")
    return 0


def fill(page: str, block: str, markdown: str) -> str:
    """Return the page with this between the marks of the block."""
    begin, end = f"<!-- {block}: begin -->", f"<!-- {block}: end -->"
    pattern = f"(?s)(?<={re.escape(begin)}\n).*(?={re.escape(end)})"
    filled, found = re.subn(pattern, lambda _: f"\n{markdown}\n\n", page)
    if not found:
        raise ValueError(f"the page has no {begin} and {end}")
    return filled


def _file(text: str) -> Path:
    # Looked at before minutes of measuring, not after.
    if not (path := Path(text)).absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no directory {path.parent}")
    return path


def _page(text: str) -> Path:
    if not (path := Path(text)).is_file():
        raise argparse.ArgumentTypeError(f"there is no page {path}")
    return path
