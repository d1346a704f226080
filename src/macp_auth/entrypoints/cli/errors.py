"""Errors, as a command tells them: one line on standard error, which can be searched for, no traceback."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import rich_click as click

from macp_auth.domain.errors import MACPAuthError

_CANT_WRITE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


@contextmanager
def told_plainly() -> Iterator[None]:
    """End the command on an error of ours, with its text and exit status 2."""
    try:
        yield
    except MACPAuthError as error:
        click.echo(f"macp-auth: {error}", err=True)
        sys.exit(2)


@contextmanager
def told_in_a_line() -> Iterator[None]:
    """End the process as click's standalone mode does, but for its boxes, and for an output that is full."""
    try:
        yield
    except click.ClickException as error:
        click.echo(f"macp-auth: {_text(error)}", err=True)
        sys.exit(error.exit_code)
    except click.Abort:
        click.echo("macp-auth: aborted", err=True)
        sys.exit(1)
    except OSError as error:
        if error.errno not in _CANT_WRITE or error.filename is not None:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or what waits fails again at exit
        click.echo(f"macp-auth: the output can't be written: {error.strerror}", err=True)
        sys.exit(1)


def _text(error: click.ClickException) -> str:
    text = " ".join(error.format_message().split())
    if isinstance(error, click.UsageError) and error.ctx is not None:
        end = "" if text.endswith((".", "?")) else "."
        return f"{text}{end} See {error.ctx.command_path} --help"
    return text
