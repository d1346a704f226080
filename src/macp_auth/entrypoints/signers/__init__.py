"""Signers, from the environment: their settings, and the processes of those of other distributions."""
