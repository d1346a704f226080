"""Errors of ours, as a command tells them: one line on standard error, exit status 2, no traceback."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import rich_click as click

from macp_auth.domain.errors import MACPAuthError


@contextmanager
def told_plainly() -> Iterator[None]:
    """End the command on an error of ours, with its text."""
    try:
        yield
    except MACPAuthError as error:
        click.echo(f"macp-auth: {error}", err=True)
        sys.exit(2)
