"""``macp-auth mint``: a token from a running service."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from macp_auth.domain.presets import PRESETS
from macp_auth.entrypoints.cli.output import echo, echo_json
from macp_auth.entrypoints.cli.scopes_option import SCOPES

_FILE = click.Path(dir_okay=False, path_type=Path)
_ROLES = "\n\n".join(f"{name}: {preset.summary}." for name, preset in PRESETS.items())


@click.command(epilog=_ROLES)
@click.option("--sender", required=True, help="Who the token is for.")
@SCOPES
@click.option(
    "--preset",
    type=click.Choice(list(PRESETS)),
    help="The scopes of a role, each of them set; see below.",
)
@click.option(
    "--mode", "modes", multiple=True, help="A mode of the preset, beside ambient messages. Repeatable."
)
@click.option(
    "--ttl",
    metavar="SECONDS",
    type=click.IntRange(1),
    help="The lifetime to ask for.  [default: the service's]",
)
@click.option("--audience", help="The audience to ask for.  [default: the grant's first]")
@click.option(
    "--url",
    envvar="MACP_AUTH_SERVICE_URL",
    show_envvar=True,
    default="http://127.0.0.1:3200",
    show_default=True,
    help="The base URL of the service.",
)
@click.option(
    "--bearer-file", type=_FILE, help="A file with a bearer secret or a JWT, the credential to send."
)
@click.option(
    "--allow-plain-http",
    is_flag=True,
    help="Send it over plain http beyond loopback too, as within a mesh that encrypts.",
)
@click.option("--cert", type=_FILE, help="A PEM file of a client certificate to present.")
@click.option("--key", type=_FILE, help="A PEM file of its private key.  [default: it is in that of --cert]")
@click.option(
    "--cacert",
    type=_FILE,
    help="A PEM file of the authorities that vouch for the service.  [default: the system's]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the service's answer, as JSON.")
def mint(  # noqa: PLR0913 - one parameter an option
    *,
    sender: str,
    scopes: object,
    preset: str | None,
    modes: Sequence[str],
    ttl: int | None,
    audience: str | None,
    url: str,
    bearer_file: Path | None,
    allow_plain_http: bool,
    cert: Path | None,
    key: Path | None,
    cacert: Path | None,
    as_json: bool,
) -> None:
    """Request a token from a running service, and print it.

    Without scopes the token has none, which the MACP runtime reads as nearly all: use a preset. The
    service's callers file, if it has one, decides what you get.

    Exits 1 if the service answers without a token, 2 if it can't be asked.
    """
    from macp_auth.entrypoints.cli.http_client import Unreachable  # noqa: PLC0415 - `--help` must not wait
    from macp_auth.entrypoints.cli.token_client import NoToken, TokenClient  # noqa: PLC0415

    if key is not None and cert is None:
        raise click.UsageError("--key needs --cert")
    request = {"sender": sender, "scopes": _scopes(scopes, preset, modes)}
    request |= {"ttl_seconds": ttl} if ttl is not None else {}
    request |= {"audience": audience} if audience is not None else {}
    try:
        client = TokenClient(
            url,
            bearer_file=bearer_file,
            certificate=cert,
            key=key,
            authorities=cacert,
            allow_plain_http=allow_plain_http,
        )
        minted = client.mint(request)
    except (Unreachable, NoToken) as error:
        echo(f"macp-auth: no token: {error}", err=True)
        sys.exit(1 if isinstance(error, NoToken) else 2)
    if as_json:
        echo_json(minted)
    else:
        echo(minted.token)
    if ttl is not None and minted.expires_in_seconds < ttl:
        echo(f"macp-auth: the service cut the lifetime to {minted.expires_in_seconds} s", err=True)
    if audience is not None and minted.audience not in {None, audience}:
        text = f"the token is for {minted.audience!r}: without a callers file, the service ignores --audience"
        echo(f"macp-auth: {text}", err=True)


def _scopes(scopes: object, preset: str | None, modes: Sequence[str]) -> object:
    if preset is None:
        if modes:
            raise click.UsageError("--mode needs --preset")
        return scopes
    if scopes != {}:
        raise click.UsageError("--scopes and --preset exclude each other")
    role = PRESETS[preset]
    if role.has_modes and not modes:
        raise click.UsageError(f"--preset {preset} needs --mode, such as macp.mode.decision.v1")
    if modes and not role.has_modes:
        raise click.UsageError(f"--preset {preset} sends nothing, so it has no --mode")
    return role.scopes_for(modes)
