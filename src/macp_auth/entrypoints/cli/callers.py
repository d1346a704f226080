"""``macp-auth callers``: the callers file, before the service reads it."""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from macp_auth.entrypoints.cli.hyphens import HyphenatedArguments
from macp_auth.entrypoints.cli.output import echo, echo_finding, echo_json
from macp_auth.entrypoints.cli.scopes_option import SCOPES

if TYPE_CHECKING:  # slow to import; `--help` must not wait
    from macp_auth.adapters.callers.file import Callers
    from macp_auth.entrypoints.settings import Settings

FILE = click.Path(dir_okay=False, path_type=Path)
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


@click.group()
def callers() -> None:
    """Check and explain a callers file, generate a secret."""


@callers.command(cls=HyphenatedArguments)
@click.argument("file", type=FILE)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(file: Path, as_json: bool) -> None:  # noqa: FBT001 - a command line flag
    """Read FILE as the service does, and print what is in it.

    Each likely mistake is a warning. Defaults are those of the service that the environment configures.
    Exits 2 if the service could not use FILE.
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


@callers.command(cls=HyphenatedArguments)
@click.argument("file", type=FILE)
@click.option("--caller", "name", required=True, help="The caller's name in the file.")
@click.option("--sender", required=True, help="The sender to mint for.")
@SCOPES
@click.option(
    "--ttl", metavar="SECONDS", type=float, help="The lifetime to ask for.  [default: the service's]"
)
@click.option("--audience", help="The audience to ask for.  [default: the grant's first]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def explain(  # noqa: PLR0913 - one parameter an option
    *,
    file: Path,
    name: str,
    sender: str,
    scopes: object,
    ttl: float | None,
    audience: str | None,
    as_json: bool,
) -> None:
    """Print which token a caller would get, or why none.

    FILE is the callers file. The code of the service decides, with the settings of the environment;
    nothing is minted. The rate of a grant is not considered. Exits 1 if the token would be refused.
    """
    from macp_auth.application.access import GrantedAccess  # noqa: PLC0415
    from macp_auth.domain.access import AccessRules  # noqa: PLC0415
    from macp_auth.domain.callers import AuthenticatorChain, Caller, Method  # noqa: PLC0415
    from macp_auth.domain.errors import CallerRefused, InvalidRequest  # noqa: PLC0415
    from macp_auth.domain.minting import TokenRequest  # noqa: PLC0415

    settings = _settings()
    grants = _read(file, settings).grants
    if name not in grants.by_caller():
        raise click.BadParameter(f"no caller of {file} has this name", param_hint="--caller")
    rules = AccessRules(AuthenticatorChain([]), grants)
    caller = Caller(name, Method.SECRET, name)  # of these, only the name decides
    request = TokenRequest(sender=sender, scopes=scopes, ttl_seconds=ttl, audience=audience)
    try:
        permission = GrantedAccess(lambda: rules, settings.ttl).permit(
            request, settings.senders.check(sender), caller
        )
    except (CallerRefused, InvalidRequest) as error:
        answer = {"reason": error.reason, "error": str(error), "grant": getattr(error, "grant", None)}
    else:
        answer = {
            "grant": permission.grant,
            "audience": permission.audience,
            "ttl_seconds": permission.ttl,
            "scopes": permission.scopes,
        }
    if as_json:
        echo_json(answer)
    else:
        for key, value in answer.items():
            if value is not None:
                echo(f"{key:<12} {value if isinstance(value, str) else json.dumps(value)}")
    sys.exit(1 if "reason" in answer else 0)


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
