"""The audit log: one line for each minted or refused token, and reports from it."""
