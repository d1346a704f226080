"""Who a token is for: the rules for ``sender``, which becomes the ``sub`` claim."""

from __future__ import annotations

from collections.abc import Callable

from macp_auth.domain.errors import InvalidSender
from macp_auth.domain.visible import is_visible

MAX_SENDER_CHARS = 1024
"""Far more than a name needs. Each check that follows costs time with the length of a sender."""


class SenderPolicy:
    """Decides which identities may be minted.

    A sender is kept exactly as sent: two strings that differ in one code point are two subjects
    to a verifier. So what a person can't see in a log line is refused. Look-alikes (a Cyrillic
    "a", a decomposed accent) can be seen only by someone who knows the naming scheme: that is
    what ``matches`` is for.

    Args:
        matches: says whether a sender is one of the operator's naming scheme; None lets any pass. Its
            cost must be linear in the length of the sender, which anybody may choose.
    """

    def __init__(self, matches: Callable[[str], bool] | None = None) -> None:
        self._matches = matches

    def check(self, sender: object) -> str:
        """Return ``sender``, untouched.

        Raises:
            InvalidSender: it is absent, no string, too long, blank, framed by white space, holds a
                character that can't be seen, or is not of the naming scheme.
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
