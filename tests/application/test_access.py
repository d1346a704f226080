"""Who may mint what: open, by grants, and in report mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from macp_auth.application.access import GrantedAccess, OpenAccess, ReportedAccess, ReportLog
from macp_auth.domain.access import AccessRules
from macp_auth.domain.callers import AuthenticatorChain, Caller, CallerAuthenticator, Credentials, Method
from macp_auth.domain.errors import (
    CallerRefused,
    CallersUnavailable,
    InvalidScopes,
    NoCredential,
    NoGrant,
    RateLimited,
    ScopeNotGranted,
)
from macp_auth.domain.grants import Ceiling, Grant, Grants
from macp_auth.domain.minting import TokenRequest
from macp_auth.domain.ttl import TTLPolicy

TTL = TTLPolicy(default=300, maximum=3600)
PLAYGROUND = Caller("playground", Method.SECRET, "playground")


class Named(CallerAuthenticator):
    """Believes a bearer that is a caller's name."""

    def authenticate(self, credentials: Credentials) -> Caller | None:
        return PLAYGROUND if credentials.bearer == "playground" else None


def rules(**members: Any) -> AccessRules:
    values: dict[str, Any] = {
        "name": "playground/1",
        "senders": ("risk-*",),
        "audiences": ("macp-runtime",),
        "max_ttl_seconds": 900,
        "scopes": Ceiling(can_start_sessions=True),
    }
    grants = Grants({"playground": [Grant(**{**values, **members})]})
    return AccessRules(AuthenticatorChain([Named()]), grants)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def granted(now: Callable[[], float] | None = None, **members: Any) -> GrantedAccess:
    of = rules(**members)
    return GrantedAccess(lambda: of, TTL, now or Clock())


def request(**members: object) -> TokenRequest:
    return TokenRequest(**{"scopes": {}, **members})


def test_open_access_gives_what_is_asked_for() -> None:
    """No caller, the service's audience whatever is requested, and the scopes as they are."""
    access = OpenAccess("macp-runtime", TTL)
    assert access.authenticate(Credentials(bearer="anything")) is None
    permission = access.permit(request(scopes={"x": 1}, audience="other"), "anyone", None)
    assert (permission.audience, permission.scopes, permission.ttl) == ("macp-runtime", {"x": 1}, 300)
    assert permission.grant is None


def test_a_grant_decides_on_everything() -> None:
    access = granted()
    caller = access.authenticate(Credentials(bearer="playground"))
    permission = access.permit(request(ttl_seconds=3600), "risk-agent", caller)
    assert (permission.audience, permission.ttl, permission.grant) == ("macp-runtime", 900, "playground/1")
    assert permission.scopes == {
        "can_start_sessions": True,
        "can_manage_mode_registry": False,
        "is_observer": False,
        "allowed_modes": [],
        "max_open_sessions": 0,
    }


@pytest.mark.parametrize(
    ("asked", "sender", "error"),
    [
        (request(), "other", NoGrant),
        (request(scopes={"is_observer": True}), "risk-agent", ScopeNotGranted),
        (request(scopes=[]), "other", NoGrant),
        (request(scopes=[], ttl_seconds=-1), "risk-agent", InvalidScopes),
    ],
)
def test_the_order_of_the_checks(asked: TokenRequest, sender: str, error: type[Exception]) -> None:
    """Grant, scopes, lifetime: what is found first is the answer."""
    with pytest.raises(error):
        granted().permit(asked, sender, PLAYGROUND)


def test_a_refusal_names_the_grant_that_decided() -> None:
    """The audit log has it; without a grant there is none to name."""
    with pytest.raises(CallerRefused) as refused:
        granted().permit(request(scopes={"is_observer": True}), "risk-agent", PLAYGROUND)
    assert refused.value.grant == "playground/1"
    with pytest.raises(NoGrant) as without:
        granted().permit(request(), "other", PLAYGROUND)
    assert without.value.grant is None


def test_a_request_without_a_caller_is_refused() -> None:
    """Authentication comes first; this is the net under it."""
    with pytest.raises(NoCredential):
        granted().permit(request(), "risk-agent", None)


def test_a_rate_refills_with_time() -> None:
    """Of two tokens a minute, a third is refused until half a minute has passed."""
    clock = Clock()
    access = granted(clock, per_minute=2)
    for _ in range(2):
        access.permit(request(), "risk-agent", PLAYGROUND)
    with pytest.raises(RateLimited) as limited:
        access.permit(request(), "risk-agent", PLAYGROUND)
    assert limited.value.retry_after == 30
    clock.now = 29.9
    with pytest.raises(RateLimited):
        access.permit(request(), "risk-agent", PLAYGROUND)
    clock.now = 30
    access.permit(request(), "risk-agent", PLAYGROUND)


def test_what_is_refused_takes_nothing_from_the_rate() -> None:
    clock = Clock()
    access = granted(clock, per_minute=1)
    with pytest.raises(ScopeNotGranted):
        access.permit(request(scopes={"is_observer": True}), "risk-agent", PLAYGROUND)
    access.permit(request(), "risk-agent", PLAYGROUND)


def test_report_mode_mints_as_before_and_reports() -> None:
    """What would be refused is reported with its reason, and gets what it asks for."""
    reports: list[tuple[str, Caller | None, str | None]] = []
    access = ReportedAccess(granted(), OpenAccess("aud", TTL), lambda *report: reports.append(report))
    assert access.authenticate(Credentials()) is None
    assert access.permit(request(), "anyone", None).scopes == {}
    assert access.permit(request(scopes={"is_observer": True}), "risk-agent", PLAYGROUND).scopes == {
        "is_observer": True
    }
    assert access.permit(request(), "risk-agent", PLAYGROUND).grant is None
    assert reports == [
        ("no-credential", None, None),
        ("scope-not-granted", PLAYGROUND, "risk-agent"),
    ]


def test_report_mode_mints_without_rules() -> None:
    """A broken callers file must not stop a service that only reports."""

    def no_rules() -> AccessRules:
        raise CallersUnavailable("none")

    reports: list[str] = []
    access = ReportedAccess(
        GrantedAccess(no_rules, TTL), OpenAccess("aud", TTL), lambda reason, *_: reports.append(reason)
    )
    assert access.certificate_header is None
    assert access.authenticate(Credentials(bearer="x")) is None
    assert access.permit(request(), "anyone", None).audience == "aud"
    assert reports == ["callers-unavailable"]


def test_reports_are_counted_and_their_log_is_bounded() -> None:
    """A caller can't fill the log; the metrics have all of them."""
    counted: list[str] = []
    log = ReportLog(counted.append, Clock())
    with capture_logs() as lines:
        for _ in range(1000):
            log.report("no-grant", PLAYGROUND, "x")
    assert len(counted) == 1000
    assert [line["event"] for line in lines] == ["callers file would refuse"] * 100
