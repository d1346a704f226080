"""Who a token is for: the rules for ``sender``, which becomes the ``sub`` claim."""

from __future__ import annotations

import re

from macp_auth.domain.errors import InvalidSender
from macp_auth.domain.visible import is_visible


class SenderPolicy:
    """Decides which identities may be minted.

    A sender is kept exactly as sent: two strings that differ in one code point are two subjects
    to a verifier. So what a person can't see in a log line is refused. Look-alikes (a Cyrillic
    "a", a decomposed accent) can be seen only by someone who knows the naming scheme: that is
    what ``pattern`` is for.

    Args:
        pattern: a regular expression that the whole sender must match, or None for any.
    """

    def __init__(self, pattern: re.Pattern[str] | None = None) -> None:
        self._pattern = pattern

    def check(self, sender: object) -> str:
        """Return ``sender``, untouched.

        Raises:
            InvalidSender: it is absent, no string, blank, framed by white space, holds a
                character that can't be seen, or does not match the pattern.
        """
        if not isinstance(sender, str) or not "".join(sender.split()).strip("\ufeff"):
            raise InvalidSender("sender is required")
        if not is_visible(sender):
            raise InvalidSender("sender must not contain control, formatting or other invisible characters")
        if sender[0] == " " or sender[-1] == " ":
            raise InvalidSender("sender must not begin or end with white space")
        if self._pattern is not None and not self._pattern.fullmatch(sender):
            raise InvalidSender("sender is not one that this service may mint for")
        return sender
