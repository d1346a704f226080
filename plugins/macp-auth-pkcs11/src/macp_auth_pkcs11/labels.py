"""The creation time of a key, in its label.

PKCS#11 has no such attribute: CKA_START_DATE is a day, most tools can't set it, and some tokens set it
themselves. Every tool sets a label when it creates a key, and lists it.
"""

from __future__ import annotations

import re
from datetime import datetime

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)


class NoTime(ValueError):
    """The label has no valid time after the ``@``."""


def is_version(label: str, stem: str) -> bool:
    """Whether ``label`` is of a version of the key ``stem``."""
    return label == stem or label.startswith(f"{stem}@")


def made_at(label: str, stem: str) -> float | None:
    """Return the time in ``label``, in seconds since the epoch; None if it has none.

    Raises:
        NoTime: the text after the ``@`` is not a time in UTC with whole seconds.
    """
    if label == stem:
        return None
    text = label.removeprefix(f"{stem}@")
    try:
        if not _TIME.fullmatch(text):
            raise ValueError(text)
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise NoTime(
            f"the private key labelled {label!r}: after the @ must be its creation time in UTC, "
            "such as 2026-12-01T06:00:00Z"
        ) from None
