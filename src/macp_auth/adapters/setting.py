"""Declares settings. Error messages, documentation and the chart are generated from the declaration.

Each function returns the metadata of a type: ``Annotated[int, setting.whole(1, 256, "Worker processes.")]``.

A meaning is full sentences in Markdown; links are relative to docs/. ``extra`` is as in
docs/signer-reference.md: ``variable``, ``fallback`` or ``multiline``.
"""

from __future__ import annotations

from msgspec import Meta

_MAX_PORT = 65535
_MAX_TEXT = 1024  # characters


def value(meaning: str, expects: str, **extra: str | bool) -> Meta:
    """Declare a value without further limits."""
    return Meta(description=meaning, extra={"expects": expects, **extra})


def text(meaning: str, expects: str, **extra: str | bool) -> Meta:
    """Declare a non-blank text."""
    return Meta(
        min_length=1,
        max_length=_MAX_TEXT,
        pattern=r"\S",
        description=meaning,
        extra={"expects": expects, **extra},
    )


def name(meaning: str) -> Meta:
    """Declare a free text."""
    return text(meaning, f"a name of 1 to {_MAX_TEXT} characters")


def port(meaning: str, **extra: str | bool) -> Meta:
    """Declare a TCP port."""
    return _between(1, _MAX_PORT, meaning, f"a port from 1 to {_MAX_PORT}", **extra)


def whole(minimum: int, maximum: int, meaning: str, *, besides: str = "") -> Meta:
    """Declare a whole number; ``besides`` is a further condition, checked elsewhere."""
    return _between(minimum, maximum, meaning, f"a whole number from {minimum} to {maximum}{besides}")


def seconds(minimum: int, maximum: int, meaning: str) -> Meta:
    """Declare a duration in seconds."""
    return _between(minimum, maximum, meaning, f"a whole number of seconds from {minimum} to {maximum}")


def seconds_needed(needed: str, maximum: int, meaning: str) -> Meta:
    """Declare a duration in seconds whose minimum, ``needed``, follows from other settings."""
    return _between(
        0, maximum, meaning, f"a whole number of seconds, no less than {needed}, at most {maximum}"
    )


def milliseconds(minimum: int, maximum: int, meaning: str) -> Meta:
    """Declare a duration in milliseconds."""
    return _between(minimum, maximum, meaning, f"a whole number of milliseconds from {minimum} to {maximum}")


def _between(minimum: int, maximum: int, meaning: str, expects: str, **extra: str | bool) -> Meta:
    return Meta(ge=minimum, le=maximum, description=meaning, extra={"expects": expects, **extra})
