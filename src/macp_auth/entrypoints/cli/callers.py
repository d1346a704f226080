"""``macp-auth callers``: the callers file, before the service reads it."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from macp_auth.entrypoints.cli.hyphens import HyphenatedArguments
from macp_auth.entrypoints.cli.output import echo, echo_finding, echo_json

if TYPE_CHECKING:  # slow to import; `--help` must not wait
    from macp_auth.adapters.callers.file import Callers
    from macp_auth.entrypoints.settings import Settings

FILE = click.Path(dir_okay=False, path_type=Path)
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


@click.group()
def callers() -> None:
    """Check a callers file, explain its decisions, generate a caller's secret."""


@callers.command(cls=HyphenatedArguments)
@click.argument("file", type=FILE)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(file: Path, as_json: bool) -> None:  # noqa: FBT001 - a command line flag
    """Read FILE as the service reads it, and print what is in it, with a warning for each likely mistake.

    Defaults are those of the service that the environment configures. Exits 2 if the service could not use
    FILE.
    """
    from macp_auth.domain.diagnosis import ok  # noqa: PLC0415
    from macp_auth.entrypoints.cli.caller_findings import CHECK, summary, warnings_of  # noqa: PLC0415

    settings = _settings()
    found = _read(file, settings)
    findings = [ok(CHECK, summary(found)), *warnings_of(found, settings.ttl)]
    if as_json:
        echo_json(findings)
    else:
        for finding in findings:
            echo_finding(finding)


@callers.command()
@click.option("--json", "as_json", is_flag=True, help="Print both as JSON, on standard output.")
def secret(as_json: bool) -> None:  # noqa: FBT001 - a command line flag
    """Generate a bearer secret for one caller.

    The secret is printed on standard output, once: it is stored nowhere. The line for the callers file is
    printed on standard error. It contains only the secret's digest.
    """
    from macp_auth.adapters.callers.secret import digest_of, new_secret  # noqa: PLC0415

    made = new_secret()
    digest = digest_of(made).hex()
    if as_json:
        echo_json({"secret": made, "secret_sha256": digest})
    else:
        echo(made)
        echo(f'secret_sha256 = "{digest}"', err=True)
    if _output_is_exposed():
        echo(
            "macp-auth: others can access the output file; set umask 077 before, and generate another",
            err=True,
        )


def _output_is_exposed() -> bool:
    """Whether standard output is a file that its group or others can access."""
    mode = os.fstat(sys.stdout.fileno()).st_mode
    return stat.S_ISREG(mode) and bool(mode & _OTHERS)


def _settings() -> Settings:
    from macp_auth.entrypoints.environment import PREFIX, read_settings  # noqa: PLC0415
    from macp_auth.entrypoints.settings import Settings  # noqa: PLC0415

    return read_settings(Settings, PREFIX, os.environ)


def _read(file: Path, settings: Settings) -> Callers:
    from macp_auth.adapters.callers.file import read_callers  # noqa: PLC0415

    return read_callers(file, str(file), audience=settings.audience, max_ttl_seconds=settings.ttl.maximum)
