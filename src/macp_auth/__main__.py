"""``python -m macp_auth``."""

from macp_auth.entrypoints.cli import main

if __name__ == "__main__":
    main()
