"""The command line, ``macp-auth``: one module per command group."""

import sys
from io import TextIOWrapper


def main() -> None:
    """Run the command line. Workers import this package too, so the commands are imported only here."""
    from macp_auth.entrypoints.cli.errors import one_line_errors  # noqa: PLC0415
    from macp_auth.entrypoints.cli.root import root  # noqa: PLC0415

    if isinstance(sys.stdout, TextIOWrapper):  # its locale may lack a character of a kid, or of a picture
        sys.stdout.reconfigure(errors="backslashreplace")
    with one_line_errors():
        sys.exit(root(prog_name="macp-auth", standalone_mode=False))
