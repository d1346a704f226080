"""A wrapper that keeps a secret out of logs and tracebacks."""

from __future__ import annotations

from typing import Generic, TypeVar

from macp_auth.domain.redaction import conceal

T = TypeVar("T")


class Secret(Generic[T]):
    """Holds key material or a credential; ``repr`` and ``str`` never show it.

    Only ``reveal()`` returns the content, so every use is easy to find. It can be pickled: a worker process
    receives its key through a pipe.

    A revealed text may be sent to a backend that repeats it in an error, so from then on it is redacted
    from the errors of signers.
    """

    __slots__ = ("_value",)

    def __init__(self, value: T) -> None:
        self._value: T = value

    def reveal(self) -> T:
        """Return the content."""
        if isinstance(self._value, str):
            conceal(self._value)
        return self._value

    def __repr__(self) -> str:
        return "Secret(...)"
