"""The HTTP interface: three exact paths, and JSON whatever the answer."""
