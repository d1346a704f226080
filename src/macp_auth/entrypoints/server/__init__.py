"""The processes, the HTTP protocol, TLS and the listeners."""
