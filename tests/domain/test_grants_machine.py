"""No token that leaves grants more than its grant, whatever is asked for and in whatever order.

The tokens are read as the MACP runtime reads them (macp-auth 0.13.0, ``jwt_bearer.rs`` and
``authorize_mode``). That reading, the search for the grant, and the comparison are written here once more,
as plainly as possible, and share no code with the service.
"""

from __future__ import annotations

import json
import re
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from msgspec import Struct

from macp_auth.domain.callers import Caller, Method
from macp_auth.domain.claims import Claims
from macp_auth.domain.errors import CallerRefused, InvalidRequest
from macp_auth.domain.grants import Ceiling, Grant, Grants, narrow
from macp_auth.domain.scopes import check_scopes
from macp_auth.domain.ttl import TTLPolicy

MODES = ["macp.mode.decision.v1", "macp.mode.task.v1", "macp.mode.unheard-of.v1", "", "*"]
"""Each of them stands for all that the ceilings and requests treat alike; the third is in no ceiling."""
CALLERS = ["orchestrator", "playground", "stranger"]
SENDERS = ["risk-agent", "risk-", "fraud-1", "agent://control-plane", "*"]
PATTERNS = ["risk-agent", "risk-*", "*-agent", "fraud-*", "*"]
AUDIENCES = ["macp-runtime", "other-runtime"]
POLICY = TTLPolicy(default=300, maximum=3600)

ceilings = st.builds(
    Ceiling,
    can_start_sessions=st.booleans(),
    can_manage_mode_registry=st.booleans(),
    is_observer=st.booleans(),
    allowed_modes=st.one_of(
        st.just(("*",)),
        st.lists(st.sampled_from([MODES[0], MODES[1], ""]), unique=True, max_size=3).map(tuple),
    ),
    max_open_sessions=st.sampled_from([0, 1, 4, 2**63 - 1]),
)
grants = st.builds(
    dict[str, Any],
    senders=st.lists(st.sampled_from(PATTERNS), min_size=1, max_size=2).map(tuple),
    audiences=st.lists(st.sampled_from(AUDIENCES), min_size=1, max_size=2, unique=True).map(tuple),
    max_ttl_seconds=st.sampled_from([1, 60, 900, 7200]),
    scopes=ceilings,
)
flags = st.sampled_from([None, False, True])
FIELDS = {
    "can_start_sessions": flags,
    "can_manage_mode_registry": flags,
    "is_observer": flags,
    "allowed_modes": st.sampled_from([None, []]) | st.lists(st.sampled_from(MODES), min_size=1, max_size=3),
    "max_open_sessions": st.sampled_from([None, 0, 0.0, 1, 1.0, 4, 5, 2**63 - 1, 2**64 - 1]),
    "tenant": st.sampled_from([None, "x"]),
}
members = [st.tuples(st.just(name), values) for name, values in FIELDS.items()]
requests = st.lists(st.one_of(members), max_size=3).map(dict)
"""Of few members, so that often one alone decides whether the request is refused."""


class Rights(Struct, frozen=True):
    """All that a token or a grant allows at the runtime."""

    flags: frozenset[str]
    modes: frozenset[str]
    sessions: float

    def within(self, other: Rights) -> bool:
        return self.flags <= other.flags and self.modes <= other.modes and self.sessions <= other.sessions


def as_the_runtime_reads(scopes: dict[str, Any]) -> Rights:
    """``unwrap_or(true)`` for one flag, ``unwrap_or(false)`` for two, and None for no limit."""
    allowed = set()
    if scopes.get("can_start_sessions") in (True, None):
        allowed.add("can_start_sessions")
    if scopes.get("can_manage_mode_registry") is True:
        allowed.add("can_manage_mode_registry")
    if scopes.get("is_observer") is True:
        allowed.add("is_observer")
    modes = scopes.get("allowed_modes")
    sessions = scopes.get("max_open_sessions")
    return Rights(
        frozenset(allowed),
        frozenset(MODES if modes is None else modes),
        float("inf") if sessions is None else sessions,
    )


def as_the_operator_reads(ceiling: Ceiling) -> Rights:
    """True allows, a list is those modes, one star is all, a number is a number."""
    allowed = {
        "can_start_sessions": ceiling.can_start_sessions,
        "can_manage_mode_registry": ceiling.can_manage_mode_registry,
        "is_observer": ceiling.is_observer,
    }
    modes = MODES if list(ceiling.allowed_modes) == ["*"] else ceiling.allowed_modes
    return Rights(
        frozenset(name for name, value in allowed.items() if value),
        frozenset(modes),
        ceiling.max_open_sessions,
    )


def token(scopes: dict[str, Any]) -> dict[str, Any]:
    """The scopes, as another program parses them from a token."""
    claims = Claims(macp_scopes=scopes, sub="a", iss="b", aud="c", iat=0, exp=1)
    parsed: dict[str, Any] = json.loads(claims.encode())["macp_scopes"]
    assert set(parsed) <= set(Ceiling.__struct_fields__), "a field that no grant covers"
    return parsed


@settings(max_examples=500)
@given(requests, ceilings)
def test_no_more_than_the_ceiling(request: dict[str, Any], ceiling: Ceiling) -> None:
    """Read with the runtime's defaults."""
    try:
        scopes = narrow(check_scopes(request), ceiling)
    except CallerRefused:
        return
    assert as_the_runtime_reads(token(scopes)).within(as_the_operator_reads(ceiling))


@settings(max_examples=500)
@given(requests, ceilings)
def test_narrowing_again_changes_nothing(request: dict[str, Any], ceiling: Ceiling) -> None:
    """What was minted could be asked for."""
    try:
        scopes = narrow(check_scopes(request), ceiling)
    except CallerRefused:
        return
    assert narrow(check_scopes(token(scopes)), ceiling) == scopes


@settings(max_examples=500)
@given(requests, ceilings)
def test_a_request_within_the_ceiling_gets_what_it_names(request: dict[str, Any], ceiling: Ceiling) -> None:
    """Unchanged; and what it does not name is the whole ceiling. A request above it is refused."""
    named = {name: value for name, value in check_scopes(request).items() if value is not None}
    whole = narrow({}, ceiling)
    limit = as_the_operator_reads(ceiling)
    assert as_the_runtime_reads(whole) == limit
    inside = "tenant" not in request and as_the_runtime_reads({**whole, **named}).within(limit)
    try:
        scopes = narrow(check_scopes(request), ceiling)
    except CallerRefused:
        assert not inside
    else:
        assert inside
        assert scopes == {**whole, **named}


class Minted(Struct, frozen=True):
    """A token that left, and all grants of its caller at that time."""

    sender: str
    audience: str
    ttl: int
    scopes: dict[str, Any]
    grants: list[dict[str, Any]]


class Service(RuleBasedStateMachine):
    """Mints with grants that change."""

    @initialize()
    def start(self) -> None:
        self.load({})
        self.minted: list[Minted] = []

    def load(self, file: dict[str, list[dict[str, Any]]]) -> None:
        self.file = file
        self.grants = Grants(
            {
                caller: [Grant(name=f"{caller}/{index}", **each) for index, each in enumerate(granted, 1)]
                for caller, granted in file.items()
            }
        )

    @rule(name=st.sampled_from(CALLERS[:2]), granted=st.lists(grants, max_size=3))
    def change_the_file(self, name: str, granted: list[dict[str, Any]]) -> None:
        self.load({**self.file, name: granted})

    @rule(name=st.sampled_from(CALLERS))
    def remove_a_caller(self, name: str) -> None:
        self.load({caller: granted for caller, granted in self.file.items() if caller != name})

    @rule(
        name=st.sampled_from(CALLERS),
        sender=st.sampled_from(SENDERS),
        audience=st.sampled_from([None, *AUDIENCES, "elsewhere", 1]),
        scopes=requests,
        ttl=st.sampled_from([None, 0.2, 1, 61, 1e9, -1]),
    )
    def mint(self, name: str, sender: str, audience: object, scopes: dict[str, Any], ttl: object) -> None:
        try:
            grant = self.grants.decide(Caller(name, Method.JWT, "subject"), sender)
            minted = Minted(
                sender,
                grant.audience(audience),
                grant.ttl(ttl, POLICY),
                token(narrow(check_scopes(scopes), grant.scopes)),
                self.file[name],
            )
        except (CallerRefused, InvalidRequest):
            return
        self.minted.append(minted)

    @invariant()
    def no_token_grants_more_than_its_grant(self) -> None:
        for each in self.minted:
            deciding = [grant for grant in each.grants if any(fits(each.sender, p) for p in grant["senders"])]
            assert deciding, "minted without a grant"
            grant = deciding[0]
            assert each.audience in grant["audiences"]
            assert 1 <= each.ttl <= min(grant["max_ttl_seconds"], POLICY.maximum)
            assert as_the_runtime_reads(each.scopes).within(as_the_operator_reads(grant["scopes"]))
        self.minted.clear()


def fits(sender: str, pattern: str) -> bool:
    return re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), sender, re.DOTALL) is not None


TestService = Service.TestCase
