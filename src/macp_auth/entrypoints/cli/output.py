"""Prints to a terminal text that may come from a token, a log or a server."""

from __future__ import annotations

import rich_click as click

from macp_auth.domain.visible import escaped_lines


def echo(text: str, *, mark: str = "", err: bool = False) -> None:
    """Print ``mark``, which may have colour codes, and ``text``, escaped except for line ends.

    ``err`` selects standard error.
    """
    click.echo(mark + escaped_lines(text), err=err)
