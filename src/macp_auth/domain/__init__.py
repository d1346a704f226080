"""The rules of minting: pure, with time as an argument.

Nothing here reads a clock, the environment or a socket, and nothing here knows HTTP. The
import contracts in ``pyproject.toml`` hold that line.
"""
