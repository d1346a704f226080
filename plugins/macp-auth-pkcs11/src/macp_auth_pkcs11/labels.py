"""When a key was made, as its label says it.

PKCS#11 knows no such time: CKA_START_DATE is a day, most tools can't set it, and some tokens fill it in
by themselves. A label is set when the key is made, by every tool, and shown by every listing.
"""

from __future__ import annotations

import re
from datetime import datetime

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)


class NoTime(ValueError):
    """What follows the ``@`` is no time. The text is for the operator."""


def is_version(label: str, stem: str) -> bool:
    """Whether ``label`` is of a version of the key ``stem``."""
    return label == stem or label.startswith(f"{stem}@")


def made_at(label: str, stem: str) -> float | None:
    """Return the time in ``label``, in seconds since the epoch; None if it has none.

    Raises:
        NoTime: what follows the ``@`` is no time in UTC to the second.
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
            f"the private key labelled {label!r}: after the @ must be the time at which it was made, "
            "in UTC, such as 2026-12-01T06:00:00Z"
        ) from None
