"""The option ``--scopes`` of commands that ask for a token."""

from __future__ import annotations

import json

import click


def _parsed(_context: click.Context, _option: click.Parameter, text: str) -> object:
    """Return the JSON value; a repeated name and a number such as NaN are errors."""
    from macp_auth.domain.json_objects import unique_members  # noqa: PLC0415 - `--help` must not wait

    try:
        return json.loads(text, object_pairs_hook=unique_members, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise click.BadParameter("not JSON") from None


def _refuse(constant: str) -> None:
    raise ValueError(constant)


SCOPES = click.option(
    "--scopes",
    callback=_parsed,
    metavar="JSON",
    default="{}",
    help="The scopes to ask for.  [default: none named]",
)
