"""Who may mint what: decided for each request before anything is signed.

Without a callers file, :class:`OpenAccess` decides: each request gets what it asks for. With one,
:class:`GrantedAccess` does. :class:`ReportedAccess` mints as the first and reports what the second would
refuse.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import structlog
from msgspec import Struct

from macp_auth.domain.access import AccessRules
from macp_auth.domain.allowance import Allowance
from macp_auth.domain.callers import Caller, Credentials
from macp_auth.domain.errors import (
    CallerRefused,
    CallersUnavailable,
    NoCredential,
    RateLimited,
    Unauthenticated,
)
from macp_auth.domain.grants import Grant, narrow
from macp_auth.domain.minting import TokenRequest
from macp_auth.domain.scopes import check_scopes
from macp_auth.domain.ttl import TTLPolicy

REPORTS = 100
"""Logged refusals of report mode in ten seconds; the metrics count all."""
_REPORT_SECONDS = 10.0
_MINUTE = 60.0  # seconds
_log = structlog.get_logger()


class Permission(Struct, frozen=True):
    """What a token may have."""

    audience: str
    scopes: dict[str, Any]
    ttl: int
    """In seconds."""
    grant: str | None = None
    """The name of the grant that decided; None without one."""


class Access(ABC):
    """Decides who may mint what."""

    @property
    @abstractmethod
    def certificate_header(self) -> str | None:
        """The header in which a proxy on this host names its client's certificate, in lower case."""

    @abstractmethod
    def authenticate(self, credentials: Credentials) -> Caller | None:
        """Return the caller; None if a request needs none.

        Raises:
            Unauthenticated: a request needs one, and the credentials do not show it.
            CallersUnavailable: there are no rules yet.
        """

    @abstractmethod
    def permit(self, request: TokenRequest, sender: str, caller: Caller | None) -> Permission:
        """Return what a token for ``sender`` may have.

        The order of the checks is part of the wire contract: grant, audience, scopes, lifetime, rate.

        Raises:
            CallerRefused: the caller may not have this token, or not now.
            InvalidRequest: the scopes or the lifetime are invalid.
            CallersUnavailable: there are no rules yet.
        """


class OpenAccess(Access):
    """Each request gets what it asks for, for one audience."""

    certificate_header = None

    def __init__(self, audience: str, ttl: TTLPolicy) -> None:
        self._audience = audience
        self._ttl = ttl

    def authenticate(self, credentials: Credentials) -> Caller | None:  # noqa: ARG002 - the interface's
        """Return None: a request needs no caller."""
        return None

    def permit(
        self,
        request: TokenRequest,
        sender: str,  # noqa: ARG002 - the interface's
        caller: Caller | None,  # noqa: ARG002 - likewise
    ) -> Permission:
        """Return what the request asks for."""
        return Permission(
            audience=self._audience,
            scopes=check_scopes(request.scopes),
            ttl=self._ttl.resolve(request.ttl_seconds),
        )


class GrantedAccess(Access):
    """A caller of the callers file gets what its grants allow.

    Args:
        rules: returns the rules in use.
        ttl: the lifetimes of all tokens.
        now: the monotonic clock, in seconds.
    """

    def __init__(
        self, rules: Callable[[], AccessRules], ttl: TTLPolicy, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._rules = rules
        self._ttl = ttl
        self._rates = _Rates(now)

    @property
    def certificate_header(self) -> str | None:
        """The header of the rules in use."""
        return self._rules().certificate_header

    def authenticate(self, credentials: Credentials) -> Caller:
        """Return the caller."""
        return self._rules().callers.authenticate(credentials)

    def permit(self, request: TokenRequest, sender: str, caller: Caller | None) -> Permission:
        """Return what the grant for ``sender`` leaves of the request."""
        if caller is None:
            raise NoCredential
        grant = self._rules().grants.decide(caller, sender)
        try:
            permission = Permission(
                audience=grant.audience(request.audience),
                scopes=narrow(check_scopes(request.scopes), grant.scopes),
                ttl=grant.ttl(request.ttl_seconds, self._ttl),
                grant=grant.name,
            )
            self._rates.take(grant)
        except CallerRefused as error:
            error.grant = grant.name
            raise
        return permission


class ReportedAccess(Access):
    """Mints as without a callers file, and reports what the callers file would refuse.

    Args:
        granted: what the callers file says.
        unlimited: what decides.
        report: called with the reason, and the caller and the sender if known; must return at once.
    """

    def __init__(
        self,
        granted: GrantedAccess,
        unlimited: OpenAccess,
        report: Callable[[str, Caller | None, str | None], None],
    ) -> None:
        self._granted = granted
        self._open = unlimited
        self._report = report

    @property
    def certificate_header(self) -> str | None:
        """The header of the rules in use; None without rules."""
        try:
            return self._granted.certificate_header
        except CallersUnavailable:
            return None

    def authenticate(self, credentials: Credentials) -> Caller | None:
        """Return the caller, or None after a report."""
        try:
            return self._granted.authenticate(credentials)
        except (Unauthenticated, CallersUnavailable) as refusal:
            self._report(refusal.reason, None, None)
            return None

    def permit(self, request: TokenRequest, sender: str, caller: Caller | None) -> Permission:
        """Return what the request asks for, and report a refusal of its grant."""
        permission = self._open.permit(request, sender, caller)
        if caller is not None:
            try:
                self._granted.permit(request, sender, caller)
            except CallerRefused as refusal:
                self._report(refusal.reason, caller, sender)
        return permission


class ReportLog:
    """Logs the refusals of report mode: at most :data:`REPORTS` in ten seconds, so that no caller floods it.

    Args:
        count: called with the reason of each; must return at once.
    """

    def __init__(self, count: Callable[[str], None], now: Callable[[], float] = time.monotonic) -> None:
        self._count = count
        self._now = now
        self._allowance = Allowance(REPORTS, _REPORT_SECONDS)

    def report(self, reason: str, caller: Caller | None, sender: str | None) -> None:
        """Log one refusal, and count it."""
        self._count(reason)
        if self._allowance.take(self._now()):
            name = None if caller is None else caller.name
            _log.warning("callers file would refuse", reason=reason, caller=name, sender=sender)


class _Rates:
    """A token bucket for each grant with a rate. It guards this process; it is no quota of the service."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._buckets: dict[tuple[str, int], tuple[float, float]] = {}
        """What was left at which time, by grant and rate: another rate begins with a full bucket."""

    def take(self, grant: Grant) -> None:
        """Take one token.

        Raises:
            RateLimited: there is none.
        """
        if (rate := grant.per_minute) is None:
            return
        now = self._now()
        left, at = self._buckets.get((grant.name, rate), (float(rate), now))
        left = min(float(rate), left + (now - at) * rate / _MINUTE)
        if left < 1:
            raise RateLimited(math.ceil((1 - left) * _MINUTE / rate))
        self._buckets[grant.name, rate] = left - 1, now
