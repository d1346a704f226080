"""Prints a command's error as one line on standard error, without a traceback."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click
from click.exceptions import NoArgsIsHelpError

from macp_auth.domain.errors import MACPAuthError
from macp_auth.entrypoints.cli.output import echo

_CANT_WRITE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Exit with click's status on its errors, 2 on a MACPAuthError, 1 if a file or the output fails."""
    try:
        yield
    except MACPAuthError as error:
        echo(f"macp-auth: {error}", err=True)
        sys.exit(2)
    except NoArgsIsHelpError as error:  # its message is the help of the group
        echo(error.format_message())
        sys.exit(error.exit_code)
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
            # What is still buffered would fail again at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            text = f"cannot write the output: {error.strerror}"
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
