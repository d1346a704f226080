"""What the commands print: text that may come from a token, a log or a server, before somebody's terminal."""

from __future__ import annotations

import rich_click as click

from macp_auth.domain.visible import escaped_lines


def echo(text: str, *, mark: str = "", err: bool = False) -> None:
    """Print ``text``; what would move a terminal or can't be seen is escaped, but for the ends of lines.

    Args:
        text: the text.
        mark: what stands before it, as it is: it may be coloured.
        err: whether it goes to standard error.
    """
    click.echo(mark + escaped_lines(text), err=err)
