"""The audit log: a line for each token that was minted or refused, and what it answers."""
