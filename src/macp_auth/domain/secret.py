"""A value that must not be shown by accident."""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")


class Secret(Generic[T]):
    """Holds key material or a credential; ``repr`` and ``str`` never show it.

    ``reveal()`` is the only way to the content, so that a reader can find every place that
    touches it. Pickling works: a worker process is handed its key through a pipe.
    """

    __slots__ = ("_value",)

    def __init__(self, value: T) -> None:
        self._value: T = value

    def reveal(self) -> T:
        """The content."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(...)"
