"""Who a token is for: the rules for ``sender``, which becomes the ``sub`` claim."""

from __future__ import annotations

import re

from macp_auth.domain.errors import InvalidSender

# What str.isprintable() lets through although nothing is drawn for it: the letters and marks of
# Unicode's Default_Ignorable_Code_Point (DerivedCoreProperties.txt), and the blank Braille cell.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)


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
        if not sender.isprintable() or (not sender.isascii() and _INVISIBLE.search(sender)):
            raise InvalidSender("sender must not contain control, formatting or other invisible characters")
        if sender[0] == " " or sender[-1] == " ":
            raise InvalidSender("sender must not begin or end with white space")
        if self._pattern is not None and not self._pattern.fullmatch(sender):
            raise InvalidSender("sender is not one that this service may mint for")
        return sender
