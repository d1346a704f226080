"""``macp-auth``: the group of all commands."""

from __future__ import annotations

import click

from macp_auth import __version__
from macp_auth.entrypoints.cli.audit import audit
from macp_auth.entrypoints.cli.callers import callers
from macp_auth.entrypoints.cli.doctor import doctor
from macp_auth.entrypoints.cli.key_changes import revoke, rotate
from macp_auth.entrypoints.cli.keys import keys
from macp_auth.entrypoints.cli.mint import mint
from macp_auth.entrypoints.cli.plugins import plugins
from macp_auth.entrypoints.cli.rotation import rotation
from macp_auth.entrypoints.cli.serve import serve
from macp_auth.entrypoints.cli.verify import verify


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="macp-auth")
def root() -> None:
    """Mint short-lived JWTs for MACP agents, and publish the keys to verify them."""


root.add_command(serve)
root.add_command(keys)
keys.add_command(rotate)
keys.add_command(revoke)
root.add_command(rotation)
root.add_command(mint)
root.add_command(verify)
root.add_command(doctor)
root.add_command(callers)
root.add_command(audit)
root.add_command(plugins)
