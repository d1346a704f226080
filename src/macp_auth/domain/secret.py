"""A value that must not be shown by accident."""

from __future__ import annotations

from typing import Generic, TypeVar

from macp_auth.domain.redaction import conceal

T = TypeVar("T")


class Secret(Generic[T]):
    """Holds key material or a credential; ``repr`` and ``str`` never show it.

    ``reveal()`` is the only way to the content, so that a reader can find every place that
    touches it. Pickling works: a worker process is handed its key through a pipe.

    A text that was revealed is a credential that may be sent somewhere: from then on, it is taken out of
    the errors of signers, which may quote a backend that repeats it.
    """

    __slots__ = ("_value",)

    def __init__(self, value: T) -> None:
        self._value: T = value

    def reveal(self) -> T:
        """The content."""
        if isinstance(self._value, str):
            conceal(self._value)
        return self._value

    def __repr__(self) -> str:
        return "Secret(...)"
