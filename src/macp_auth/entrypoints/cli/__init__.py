"""The command line: ``macp-auth``. One module a command group."""


def main() -> None:
    """Run it. The commands are imported here: a worker process imports this package, and needs none."""
    from macp_auth.entrypoints.cli.root import root  # noqa: PLC0415

    root()
