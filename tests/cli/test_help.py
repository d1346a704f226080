"""``macp-auth --help``: what there is, and what it is for."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest

from macp_auth.entrypoints.cli.root import root


def commands(command: click.Command, path: str = "macp-auth") -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            yield from commands(below, f"{path} {name}")


@pytest.mark.parametrize(("path", "command"), [pytest.param(*each, id=each[0]) for each in commands(root)])
def test_each_command_and_option_says_what_it_is_for(path: str, command: click.Command) -> None:
    """Users need not guess, or read the code."""
    assert command.help, path
    unexplained = [each.name for each in command.params if isinstance(each, click.Option) and not each.help]
    assert unexplained == []


def test_no_list_of_commands_cuts_a_text() -> None:
    """The first sentence of each command fits on its line."""
    groups = [command for _, command in commands(root) if isinstance(command, click.Group)]
    cut = [
        line
        for group in groups
        for line in group.get_help(click.Context(group, terminal_width=80)).splitlines()
        if line.endswith("...") and "Usage" not in line
    ]
    assert cut == []
