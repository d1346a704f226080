"""The built-in signers."""
