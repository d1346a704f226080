"""The rules of minting: pure, with time as an argument.

Nothing here reads a clock, the environment or a socket, or depends on HTTP. The import contracts in
``pyproject.toml`` enforce this.
"""
