"""The HTTP interface: exact paths, JSON responses."""
