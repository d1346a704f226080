"""Errors, as a command tells them: one line on standard error, which can be searched for, no traceback."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import rich_click as click

from macp_auth.domain.errors import MACPAuthError
from macp_auth.entrypoints.cli.output import echo

_CANT_WRITE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Report a MACPAuthError and exit with status 2."""
    try:
        yield
    except MACPAuthError as error:
        echo(f"macp-auth: {error}", err=True)
        sys.exit(2)


@contextmanager
def told_in_a_line() -> Iterator[None]:
    """End the process as click does, but without its boxes, and also when a file or the output fails."""
    try:
        yield
    except click.ClickException as error:
        echo(f"macp-auth: {_text(error)}", err=True)
        sys.exit(error.exit_code)
    except click.Abort:
        echo("macp-auth: aborted", err=True)
        sys.exit(1)
    except OSError as error:
        if error.filename is not None:
            text = f"{error.filename}: {error.strerror}"
        elif error.errno in _CANT_WRITE:
            # Or what still waits to be written would fail again at the end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            text = f"the output can't be written: {error.strerror}"
        else:
            raise
        echo(f"macp-auth: {text}", err=True)
        sys.exit(1)


def _text(error: click.ClickException) -> str:
    text = " ".join(error.format_message().split())
    if isinstance(error, click.UsageError) and error.ctx is not None:
        end = "" if text.endswith((".", "?")) else "."
        return f"{text}{end} See {error.ctx.command_path} --help"
    return text
