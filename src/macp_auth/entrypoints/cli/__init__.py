"""The command line: ``macp-auth``. One module a command group."""

import sys


def main() -> None:
    """Run it. The commands are imported here: a worker process imports this package, and needs none."""
    from macp_auth.entrypoints.cli.errors import told_in_a_line  # noqa: PLC0415
    from macp_auth.entrypoints.cli.root import root  # noqa: PLC0415

    with told_in_a_line():
        sys.exit(root(prog_name="macp-auth", standalone_mode=False))
