"""The use cases, and what keeps them alive while the service runs."""
