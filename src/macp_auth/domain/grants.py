"""What a caller may ask for.

A caller has grants, in order. The first whose senders match decides alone: a later one is not tried when it
refuses the audience or the scopes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any

from msgspec import Meta, Struct

from macp_auth.domain.callers import Caller
from macp_auth.domain.errors import AudienceNotGranted, NoGrant, ScopeNotGranted
from macp_auth.domain.ttl import TTLPolicy
from macp_auth.domain.visible import escaped

_SHOWN_CHARS = 64  # of an unknown field's name; the longest known one has 24
_INT64_MAX = 2**63 - 1  # the largest integer that TOML promises


class Ceiling(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """The most that the scopes of a token may allow. A field that is left out allows nothing."""

    can_start_sessions: bool = False
    can_manage_mode_registry: bool = False
    is_observer: bool = False
    allowed_modes: tuple[str, ...] = ()
    """The modes; :data:`ALL_MODES` for all. The mode of ambient messages (Signal, Progress) is the empty
    string."""
    max_open_sessions: Annotated[int, Meta(ge=0, le=_INT64_MAX)] = 0
    """There is no word for "unlimited": write a large number."""


ALL_MODES = ("*",)
"""Allows all modes, named or not. Beside other modes, or in a request, ``*`` is a mode of that name."""
_NOTHING = Ceiling()
_ORDERED = [field for field in Ceiling.__struct_fields__ if field != "allowed_modes"]
"""The fields in which more is greater, as True is greater than False."""


class Grant(Struct, frozen=True, kw_only=True, gc=False):
    """One thing that a caller may ask for."""

    name: str
    """The caller's name, a slash, and the grant's own name or its number, from 1. For logs and metrics."""
    senders: tuple[str, ...]
    """The senders that may be minted. In each, ``*`` is any number of any characters; nothing else is
    special."""
    audiences: tuple[str, ...]
    """The audiences that may be minted, at least one. The first is for requests that name none."""
    max_ttl_seconds: int
    """The longest lifetime. Longer requests are cut to it."""
    scopes: Ceiling = _NOTHING
    per_minute: int | None = None
    """Tokens per minute; None if not limited."""

    def audience(self, requested: object) -> str:
        """Return the audience to mint; None requests the first.

        Raises:
            AudienceNotGranted: ``requested`` is not one of :attr:`audiences`.
        """
        if requested is None:
            return self.audiences[0]
        if isinstance(requested, str) and requested in self.audiences:
            return requested
        raise AudienceNotGranted

    def ttl(self, requested: object, policy: TTLPolicy) -> int:
        """Return the lifetime to mint in seconds: that of ``policy``, also its default, cut to the grant's.

        Raises:
            InvalidTTL: as :meth:`TTLPolicy.resolve`.
        """
        return min(policy.resolve(requested), self.max_ttl_seconds)


class Grants:
    """The grants of all callers.

    Args:
        grants: the grants of each caller, by its name, in order.
    """

    def __init__(self, grants: Mapping[str, Iterable[Grant]]) -> None:
        self._of_caller = {name: _GrantsOfCaller(tuple(each)) for name, each in grants.items()}

    def decide(self, caller: Caller, sender: str) -> Grant:
        """Return the grant that decides on tokens of ``sender`` for ``caller``.

        Raises:
            NoGrant: there is none.
        """
        grants = self._of_caller.get(caller.name)
        if grants is None:  # removed from the file since it was authenticated
            raise NoGrant
        return grants.decide(sender)

    def by_caller(self) -> Mapping[str, tuple[Grant, ...]]:
        """Return the grants of each caller, by its name, in order."""
        return {name: grants.in_order for name, grants in self._of_caller.items()}

    def never_deciding(self) -> Iterator[tuple[Grant, Grant]]:
        """Yield each grant that no sender reaches, and the earlier one that decides on its first sender."""
        for grants in self._of_caller.values():
            yield from grants.never_deciding()


class _GrantsOfCaller:
    """The grants of one caller, indexed by sender.

    A sender without ``*`` is looked up whole. The others are looked up by the text before their first
    ``*``, so only those whose beginning fits are compared.
    """

    def __init__(self, grants: tuple[Grant, ...]) -> None:
        self.in_order = grants
        self._whole: dict[str, int] = {}
        """The position of the first grant with this sender."""
        self._globs: dict[str, list[tuple[int, _Glob]]] = {}
        """The globs that begin with this text, each with the position of its grant, in order."""
        for position, grant in enumerate(grants):
            for sender in grant.senders:
                if "*" in sender:
                    glob = _Glob.parse(sender)
                    self._globs.setdefault(glob.prefix, []).append((position, glob))
                else:
                    self._whole.setdefault(sender, position)
        self._prefix_lengths = sorted(set(map(len, self._globs)))

    def decide(self, sender: str) -> Grant:
        first = self._whole.get(sender, len(self.in_order))
        for length in self._prefix_lengths:
            for position, glob in self._globs.get(sender[:length], ()):
                if position >= first:
                    break
                if glob.matches(sender):
                    first = position
        if first == len(self.in_order):
            raise NoGrant
        return self.in_order[first]

    def never_deciding(self) -> Iterator[tuple[Grant, Grant]]:
        for grant in self.in_order:
            # A pattern whose * is text is one of its own senders. What matches it matches all of them: no
            # literal has a *, so the text's * is matched by a *, which matches anything in its place.
            deciding = [self.decide(pattern) for pattern in grant.senders]
            if all(each is not grant for each in deciding):
                yield grant, deciding[0]


class _Glob(Struct, frozen=True, gc=False):
    """A pattern in which ``*`` is any number of any characters.

    The literals between the stars are searched from left to right, each after the one before it. The
    leftmost place of each leaves the most room for the rest, so the search never goes back.
    """

    prefix: str
    inner: tuple[str, ...]
    suffix: str

    @classmethod
    def parse(cls, pattern: str) -> _Glob:
        prefix, *inner, suffix = pattern.split("*")
        return cls(prefix, tuple(filter(None, inner)), suffix)

    def matches(self, text: str) -> bool:
        """Whether all of ``text`` matches, whose beginning is :attr:`prefix`."""
        start, end = len(self.prefix), len(text) - len(self.suffix)
        if start > end or not text.endswith(self.suffix):
            return False
        for literal in self.inner:
            found = text.find(literal, start, end)
            if found < 0:
                return False
            start = found + len(literal)
        return True


def narrow(scopes: Mapping[str, Any], ceiling: Ceiling) -> dict[str, Any]:
    """Return the scopes of the token: those of the request, and the ceiling's where it names none.

    The runtime's default for an absent or null field is mostly permissive, so the result states each field.
    The exception is ``allowed_modes`` when all modes are requested and granted: only its absence says that.

    A field that the runtime does not know is refused: another reader of the token may give it a meaning.

    Args:
        scopes: as :func:`~macp_auth.domain.scopes.check_scopes` returns them.
        ceiling: the scopes of the grant.

    Raises:
        ScopeNotGranted: a field is above the ceiling, or unknown.
    """
    for field in scopes:
        if field not in Ceiling.__struct_fields__:
            raise ScopeNotGranted(escaped(field[:_SHOWN_CHARS]))
    narrowed: dict[str, Any] = {}
    for field in _ORDERED:
        value, most = scopes.get(field), getattr(ceiling, field)
        if value is None:
            value = most
        elif value > most:
            raise ScopeNotGranted(field)
        narrowed[field] = value
    modes = scopes.get("allowed_modes")
    if ceiling.allowed_modes != ALL_MODES:
        if modes is None:
            modes = list(ceiling.allowed_modes)
        elif not set(ceiling.allowed_modes).issuperset(modes):
            raise ScopeNotGranted("allowed_modes")
    if modes is not None:
        narrowed["allowed_modes"] = modes
    return narrowed
