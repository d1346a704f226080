"""``macp-auth audit``: what the audit log answers."""

from __future__ import annotations

import gzip
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import rich_click as click

if TYPE_CHECKING:  # these take a while to import, and `--help` should not wait
    from macp_auth.entrypoints.audit.report import Report


def _time(_context: click.Context, _parameter: click.Parameter, text: str | None) -> float | None:
    from macp_auth.entrypoints.times import parse_time  # noqa: PLC0415

    try:
        return None if text is None else parse_time(text, time.time())
    except ValueError:
        raise click.BadParameter("must be a time with its zone, as 2026-12-01T06:00Z") from None


@click.group()
def audit() -> None:
    """Ask the audit log."""


@audit.command("report")
@click.argument(
    "files",
    nargs=-1,
    required=True,
    metavar="FILE...",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True),
)
@click.option("--kid", help="Only tokens signed by this key.")
@click.option("--sender", help="Only tokens of this sender.")
@click.option("--since", callback=_time, metavar="TIME", help="Only tokens minted then or later.")
@click.option("--until", callback=_time, metavar="TIME", help="Only tokens minted then or earlier.")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def report_command(files: Sequence[str], as_json: bool, **question: Any) -> None:  # noqa: FBT001 - a flag
    """Say which identities got tokens, how many, and until when these are good.

    FILE is an audit log, also one compressed by gzip; "-" is standard input. Times are ISO 8601 with a
    zone, as 2026-12-01T06:00Z. Exits 1 if lines are missing from the log or can't be read, so that
    there may be more tokens than those shown.
    """
    from macp_auth.entrypoints.audit.report import Question, report  # noqa: PLC0415

    answer = report(_lines(files), Question(**question))
    _print_json(answer) if as_json else _print_table(answer)
    if answer.lost:
        click.echo(f"INCOMPLETE: the service could not write {answer.lost} lines", err=True)
    if answer.unreadable:
        click.echo(f"INCOMPLETE: {answer.unreadable} lines can't be read", err=True)
    sys.exit(1 if answer.lost or answer.unreadable else 0)


def _lines(files: Sequence[str]) -> Iterator[bytes]:
    for name in files:
        with gzip.open(name) if name.endswith(".gz") else click.open_file(name, "rb") as stream:
            yield from stream


def _print_json(answer: Report) -> None:
    import msgspec  # noqa: PLC0415

    click.echo(msgspec.json.format(msgspec.json.encode(answer), indent=2))


def _print_table(answer: Report) -> None:
    from macp_auth.entrypoints.times import utc  # noqa: PLC0415

    for identity in answer.identities:
        tokens = "1 token" if identity.tokens == 1 else f"{identity.tokens} tokens"
        click.echo(f"{identity.sender}  {tokens}")
        click.echo(f"    minted {identity.first} to {identity.last}")
        click.echo(f"    good until {utc(identity.exp)}")
    total = sum(identity.tokens for identity in answer.identities)
    click.echo(f"Identities: {len(answer.identities)}. Tokens: {total}.")
