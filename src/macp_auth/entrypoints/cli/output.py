"""Prints to a terminal text that may come from a token, a log or a server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from macp_auth.domain.visible import escaped_lines

if TYPE_CHECKING:  # slow to import; `--help` must not wait
    from macp_auth.domain.diagnosis import Finding

MARKS = {"ok": ("ok  ", "green"), "warning": ("WARN", "yellow"), "failure": ("FAIL", "red")}
"""The text and colour of each status of a finding."""
SVG = click.option(
    "--svg", type=click.Path(dir_okay=False, path_type=Path), help="Write the picture to this file, as SVG."
)
_INDENT = " " * len("FAIL  ")


def echo(text: str, *, mark: str = "", err: bool = False) -> None:
    """Print ``mark``, which may have colour codes, and ``text``, escaped except for line ends.

    ``err`` selects standard error.
    """
    click.echo(mark + escaped_lines(text), err=err)


def echo_json(value: object) -> None:
    """Print ``value`` as indented JSON."""
    import msgspec  # noqa: PLC0415 - `--help` must not wait

    echo(msgspec.json.format(msgspec.json.encode(value)).decode())


def echo_finding(finding: Finding) -> None:
    """Print ``finding``, and its remedy below it."""
    remedy = (finding.remedy or "").splitlines()
    lines = [f"{_INDENT}{'   ' if number else '-> '}{line}" for number, line in enumerate(remedy)]
    mark, colour = MARKS[finding.status]
    echo("\n".join([f"  {finding.check:<17}  {finding.text}", *lines]), mark=click.style(mark, fg=colour))


def write_picture(file: Path, picture: str) -> None:
    """Write ``picture`` to the file of the option ``--svg``.

    Raises:
        click.BadParameter: it can't be written.
    """
    try:
        file.write_text(picture, encoding="utf-8")
    except OSError as error:
        raise click.BadParameter(f"cannot write {file}: {error.strerror}", param_hint="--svg") from None
