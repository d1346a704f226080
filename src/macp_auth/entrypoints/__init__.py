"""The HTTP interface, the command line, the server processes, and the settings."""
