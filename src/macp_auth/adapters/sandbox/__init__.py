"""Protects the service from a signer plugin, which runs in a process of its own: one module for each rule.

In the service, from the inside out: calls go to the process, each with a deadline and in limited number, and
the process is replaced when it no longer works; a circuit breaker stops calls to a failing backend; and keys
and signatures are verified. In the process, exceptions become errors of the domain.
"""
