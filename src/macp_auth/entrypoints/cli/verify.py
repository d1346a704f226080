"""``macp-auth verify``: is this token good, and if not, why."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from macp_auth.domain.visible import escaped
from macp_auth.entrypoints.cli.hyphens import HyphenatedArguments
from macp_auth.entrypoints.cli.output import echo


@click.command(cls=HyphenatedArguments)
@click.argument("token")
@click.option("--jwks", "jwks_url", required=True, metavar="URL", help="Where the keys are published.")
@click.option(
    "--cacert",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A PEM file of the authorities that vouch for that server.  [default: the system's]",
)
@click.option(
    "--issuer", default="macp-auth-service", show_default=True, help="The iss that the verifier expects."
)
@click.option(
    "--audience", default="macp-runtime", show_default=True, help="The aud that the verifier expects."
)
@click.option(
    "--leeway", default=60, show_default=True, type=click.IntRange(0), help="Clock leeway in seconds."
)
def verify(  # noqa: PLR0913 - one parameter an option
    *, token: str, jwks_url: str, cacert: Path | None, issuer: str, audience: str, leeway: int
) -> None:
    """Say, claim by claim, whether TOKEN is good.

    "-" reads it from standard input. The defaults are the MACP runtime's. Exits 0 if the token is good,
    1 if not, 2 if the keys can't be fetched.
    """
    from macp_auth.entrypoints.cli import verification  # noqa: PLC0415 - only this command needs PyJWT
    from macp_auth.entrypoints.cli.http_client import Unreachable  # noqa: PLC0415
    from macp_auth.entrypoints.cli.jwks_fetch import fetch_jwks  # noqa: PLC0415

    try:
        keys = fetch_jwks(jwks_url, cacert)
    except Unreachable as error:
        echo(f"macp-auth: can't fetch the keys: {error}", err=True)
        sys.exit(2)
    text = token if token != "-" else sys.stdin.buffer.read().decode(errors="replace").strip()  # noqa: S105 - a hyphen is no password
    expected = verification.Expected(issuer=issuer, audience=audience, leeway=leeway)
    findings = verification.judge(text, keys, expected, now=time.time())

    for finding in findings:
        mark = click.style("ok ", fg="green") if finding.good else click.style("BAD", fg="red", bold=True)
        echo(f"  {finding.check:<9}  {escaped(finding.found)}", mark=mark)
        if finding.advice:
            echo(f"     -> {escaped(finding.advice)}")
    good = all(finding.good for finding in findings)
    if not good and verification.runtime_accepts(findings):
        echo("The MACP runtime accepts it; other verifiers do not, or should not.")
    echo("The token is good." if good else "The token is not good.")
    sys.exit(0 if good else 1)
