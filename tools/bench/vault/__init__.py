"""What a token costs whose key is in Vault, beside bare calls to it: ``make bench-vault``."""
