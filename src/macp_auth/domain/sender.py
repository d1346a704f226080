"""Validates ``sender``, which becomes the ``sub`` claim."""

from __future__ import annotations

from collections.abc import Callable

from macp_auth.domain.errors import InvalidSender
from macp_auth.domain.visible import is_visible

MAX_SENDER_CHARS = 1024
"""Far more than a name needs. The cost of the other checks grows with the length."""


class SenderPolicy:
    """Decides which identities may be minted.

    A sender is kept exactly as sent: to a verifier, two strings that differ in one code point are two
    subjects. So characters that can't be seen in a log line are rejected. Only the naming scheme can
    exclude look-alikes (a Cyrillic "a", a decomposed accent): use ``matches`` for that.

    Args:
        matches: whether a sender follows the operator's naming scheme; None accepts any. Its cost must
            be linear in the length of the sender, which a caller chooses.
    """

    def __init__(self, matches: Callable[[str], bool] | None = None) -> None:
        self._matches = matches

    def check(self, sender: object) -> str:
        """Return ``sender`` unchanged.

        Raises:
            InvalidSender: it is missing, not a string, too long, blank, begins or ends with white space,
                contains an invisible character, or does not follow the naming scheme.
        """
        if not isinstance(sender, str):
            raise InvalidSender("sender is required")
        if len(sender) > MAX_SENDER_CHARS:
            raise InvalidSender(f"sender is too long: the limit is {MAX_SENDER_CHARS} characters")
        if not "".join(sender.split()).strip("\ufeff"):
            raise InvalidSender("sender is required")
        if not is_visible(sender):
            raise InvalidSender("sender must not contain control, formatting or other invisible characters")
        if sender[0] == " " or sender[-1] == " ":
            raise InvalidSender("sender must not begin or end with white space")
        if self._matches is not None and not self._matches(sender):
            raise InvalidSender("sender is not one that this service may mint for")
        return sender
