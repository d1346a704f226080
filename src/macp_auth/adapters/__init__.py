"""What implements the Signer port, and how a signer is found by its name.

One module an adapter; its docstring lists its settings, the privileges it needs, and how it fails.
"""
