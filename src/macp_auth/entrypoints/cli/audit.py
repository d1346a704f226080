"""``macp-auth audit``: queries of the audit log."""

from __future__ import annotations

import gzip
import io
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from macp_auth.domain.visible import escaped
from macp_auth.entrypoints.cli.hyphens import HyphenatedArguments
from macp_auth.entrypoints.cli.output import echo, echo_json
from macp_auth.entrypoints.cli.times import moment
from macp_auth.entrypoints.pictures.times import utc

if TYPE_CHECKING:  # slow to import; `--help` must not wait
    from macp_auth.adapters.audit.report import Report
    from macp_auth.adapters.audit.verification import Verification

_GZIP = b"\x1f\x8b"  # RFC 1952, section 2.3.1


_READABLE = click.Path(exists=True, dir_okay=False, allow_dash=True)
_files = click.argument("files", nargs=-1, required=True, metavar="FILE...", type=_READABLE)


@click.group()
def audit() -> None:
    """Query the audit log."""


@audit.command("report", cls=HyphenatedArguments)
@_files
@click.option("--kid", help="Only tokens signed by this key.")
@click.option("--sender", help="Only tokens of this sender.")
@click.option("--caller", help="Only tokens of this authenticated caller.")
@click.option("--since", metavar="TIME", help="Only tokens minted then or later.")
@click.option("--until", metavar="TIME", help="Only tokens minted then or earlier.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def report_command(  # noqa: PLR0913 - one parameter an option
    *,
    files: Sequence[str],
    kid: str | None,
    sender: str | None,
    caller: str | None,
    since: str | None,
    until: str | None,
    as_json: bool,
) -> None:
    """Print which senders got tokens, and how many.

    Also until when these are valid. FILE is an audit log, plain or gzip; "-" is standard input. A
    repeated FILE is read once. A time is ISO 8601 with a zone (2026-12-01T06:00Z), or a time ago (-2h;
    s, m, h, d). Exits 1 if the answer may be incomplete: lines are missing or unreadable, or a FILE has
    no lines.
    """
    from macp_auth.adapters.audit.reading import Log  # noqa: PLC0415
    from macp_auth.adapters.audit.report import Question, report  # noqa: PLC0415

    first, last = _period(since, until)
    question = Question(kid=kid, sender=sender, caller=caller, since=first, until=last)
    answer = report((Log(name, _lines(name)) for name in dict.fromkeys(files)), question)
    echo_json(answer) if as_json else _print_table(answer)
    if answer.dropped:
        echo(f"INCOMPLETE: lines that the service could not write: {answer.dropped}", err=True)
    for fault in answer.faults:
        echo(f"INCOMPLETE: {fault.file}: {fault.text}", err=True)
    sys.exit(1 if answer.dropped or answer.faults else 0)


@audit.command("verify", cls=HyphenatedArguments)
@_files
@click.option(
    "--log",
    "service_logs",
    multiple=True,
    metavar="FILE",
    type=_READABLE,
    help="The service log, with the heads of the chains; may be repeated.",
)
@click.option("--partial", is_flag=True, help="Older files are left out: a chain may begin with any line.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def verify_command(
    *, files: Sequence[str], service_logs: Sequence[str], partial: bool, as_json: bool
) -> None:
    """Find lines that are missing, changed, repeated or out of order.

    FILE is an audit log, as for report; give all files of all workers, in any order. Each line is linked to
    the one before it by a SHA-256. Who can write FILE can make these links again; only --log shows
    that, or that FILE was cut off. No line after the last head of its writer in the log is covered. Exits 1
    if anything is wrong.
    """
    from macp_auth.adapters.audit.reading import Log  # noqa: PLC0415
    from macp_auth.adapters.audit.verification import verify  # noqa: PLC0415

    logs, service = (
        [Log(name, _lines(name)) for name in dict.fromkeys(names)] for names in (files, service_logs)
    )
    result = verify(logs, service, partial=partial)
    echo_json(result) if as_json else _print_verification(result, with_heads=bool(service))
    sys.exit(1 if result.findings else 0)


def _print_verification(result: Verification, *, with_heads: bool) -> None:
    for found in result.findings:
        place = found.file if found.line is None else f"{found.file}:{found.line}"
        writer = "" if found.writer is None else f"writer {found.writer}: "
        echo(escaped(f"{place}: {found.kind}: {writer}{found.text}"))
    for note in result.notes:
        echo(escaped(f"note: {note}"))
    for each in result.writers:
        covered = "no line is covered" if each.head is None else f"covered up to {each.head}"
        lines = f"writer {each.writer}: lines {each.first} to {each.last}"
        echo(escaped(f"{lines}, {covered}" if with_heads else lines))
    if not with_heads:
        echo("Without --log, nothing shows that a file was cut off or that its chain was made again.")
    echo(f"Findings: {len(result.findings)}.")


def _period(since: str | None, until: str | None) -> tuple[float | None, float | None]:
    now = time.time()
    first, last = _past("--since", since, now), _past("--until", until, now)
    if first is not None and last is not None and first > last:
        raise click.BadParameter("must not be later than --until", param_hint="--since")
    return first, last


def _past(option: str, text: str | None, now: float) -> float | None:
    if text is not None and text.startswith("+"):
        raise click.BadParameter(f"{text} is in the future; use -{text[1:]} for the past", param_hint=option)
    return moment(text, option, now)


def _lines(name: str) -> Iterator[bytes]:
    with click.open_file(name, "rb") as stream, io.BufferedReader(stream) as buffered:  # type: ignore[type-var]  # it is some IO
        if buffered.peek(len(_GZIP)).startswith(_GZIP):
            yield from gzip.GzipFile(fileobj=buffered)
        else:
            yield from buffered


def _print_table(answer: Report) -> None:
    for identity in answer.identities:
        tokens = "1 token" if identity.tokens == 1 else f"{identity.tokens} tokens"
        echo(f"{escaped(identity.sender)}  {tokens}")
        if identity.callers:
            echo(f"    by {escaped(', '.join(identity.callers))}")
        echo(f"    minted {escaped(identity.first)} to {escaped(identity.last)}")
        echo(f"    valid until {utc(identity.exp)}")
    total = sum(identity.tokens for identity in answer.identities)
    echo(f"Identities: {len(answer.identities)}. Tokens: {total}.")
