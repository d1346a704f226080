"""``macp-auth keys``: generate and show keys."""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from macp_auth.entrypoints.cli.hyphens import HyphenatedArguments
from macp_auth.entrypoints.cli.output import SVG, echo, write_picture

if TYPE_CHECKING:  # slow to import; `--help` must not wait
    from macp_auth.adapters.jose import PrivateKey
    from macp_auth.entrypoints.cli.inspection import ConfiguredKeys

FILE = click.Path(dir_okay=False, path_type=Path)
_EPHEMERAL = (
    "the signer is ephemeral: this key exists only in this command, and a service has another; name a keys "
    "file, or set the service's variables"
)
_FILE_COLUMNS = 120
"""The width of a picture that goes to no terminal."""
ALGORITHM = click.Choice(["RS256", "ES256"])


@click.group()
def keys() -> None:
    """Generate, show, rotate and revoke signing keys."""


@keys.command()
@click.option("--alg", type=ALGORITHM, default="RS256", show_default=True, help="The key's algorithm.")
@click.option("--kid", help="The key id.  [default: the key's RFC 7638 thumbprint]")
def generate(alg: str, kid: str | None) -> None:
    """Print a new private key as a JWK.

    It is a value of MACP_AUTH_SIGNING_KEY_JSON. The output is a secret: send it to a secret store, not
    to a recorded terminal.
    """
    from macp_auth.adapters.signers.jwk_file_editor import new_jwk  # noqa: PLC0415

    echo(json.dumps(new_jwk(*new_key(alg, kid))))


@keys.command("list", cls=HyphenatedArguments)
@click.argument("file", type=FILE, required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_keys(file: Path | None, as_json: bool) -> None:  # noqa: FBT001 - a command line flag
    """Show the published keys, the state of each, and when it changes.

    The keys are those of FILE, or of the signer that the environment configures.
    """
    from macp_auth.domain.rotation import schedule  # noqa: PLC0415
    from macp_auth.entrypoints.cli import key_reports  # noqa: PLC0415

    now = time.time()
    configured = _configured(file)
    shown = schedule(configured.versions, configured.policy.timing, now)
    echo(key_reports.as_json(shown) if as_json else key_reports.as_table(shown, now))


@keys.command(cls=HyphenatedArguments)
@click.argument("file", type=FILE, required=False)
@SVG
def timeline(file: Path | None, svg: Path | None) -> None:
    """Draw the keys over time: who signs when.

    The keys are those of FILE, or of the signer that the environment configures.
    """
    from macp_auth.domain.rotation import lifetimes  # noqa: PLC0415
    from macp_auth.domain.worker_state import PublishedKey  # noqa: PLC0415
    from macp_auth.entrypoints.pictures import drawing, text  # noqa: PLC0415
    from macp_auth.entrypoints.pictures.timeline import timeline_of  # noqa: PLC0415

    now = time.time()
    configured = _configured(file)
    timing = configured.policy.timing
    shown = [PublishedKey.of(each) for each in lifetimes(configured.versions, timing, now)]
    drawn = timeline_of(shown, timing, now, "macp-auth keys list")
    if svg is None:
        echo(text.as_text(drawn, shutil.get_terminal_size((_FILE_COLUMNS, 0)).columns))
    else:
        write_picture(svg, drawing.as_file(drawn))


def _configured(file: Path | None) -> ConfiguredKeys:
    from macp_auth.entrypoints.cli import inspection  # noqa: PLC0415
    from macp_auth.entrypoints.logs import configure_logs  # noqa: PLC0415
    from macp_auth.entrypoints.plan import selected_signer  # noqa: PLC0415

    configure_logs(logging.WARNING)  # to standard error
    if file is not None:
        if not exists(file):
            raise click.BadParameter(
                f"{file} does not exist; create it with: macp-auth keys rotate {file}", param_hint="FILE"
            )
        return inspection.keys_of_file(file, os.environ)
    configured = inspection.keys_of_service(os.environ)
    if selected_signer(os.environ) == "ephemeral":
        echo(f"macp-auth: {_EPHEMERAL}", err=True)
    return configured


def exists(file: Path) -> bool:
    """Whether there is such a file.

    Raises:
        OSError: the system doesn't say. Since Python 3.14, :meth:`Path.exists` is then false.
    """
    try:
        file.stat()
    except FileNotFoundError:
        return False
    return True


def new_key(alg: str, kid: str | None) -> tuple[PrivateKey, str]:
    """Return a new private key, and ``kid`` or its thumbprint."""
    from macp_auth.adapters import jose  # noqa: PLC0415
    from macp_auth.domain.keys import MAX_KID_CHARS, Algorithm, is_kid, thumbprint  # noqa: PLC0415

    if kid is not None and not is_kid(kid):
        raise click.BadParameter(f"must be 1 to {MAX_KID_CHARS} visible characters", param_hint="--kid")
    while True:
        key = jose.generate(Algorithm(alg))
        name = kid or thumbprint(jose.public_jwk(key.public_key()))
        if kid or not name.startswith("-"):  # tools would read it as an option
            return key, name
