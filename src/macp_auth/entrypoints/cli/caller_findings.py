"""What deserves a warning in a callers file that is valid."""

from __future__ import annotations

from collections.abc import Iterator

from macp_auth.adapters.callers.file import Callers
from macp_auth.domain.diagnosis import Finding, warning
from macp_auth.domain.grants import Ceiling, Grant
from macp_auth.domain.ttl import TTLPolicy

CHECK = "callers"


def summary(callers: Callers) -> str:
    """Return what is in the file, in numbers."""
    by_caller = callers.grants.by_caller()
    methods = {
        "certificate": len(callers.spiffe_ids) + len(callers.dns_names),
        "JWT": len(callers.jwt_subjects),
        "secret": len(callers.secrets),
    }
    by = ", ".join(f"{number} by {method}" for method, number in methods.items() if number)
    return (
        f"{_count(len(by_caller), 'caller')} ({by}), {_count(sum(map(len, by_caller.values())), 'grant')}, "
        f"{_count(len(callers.issuers), 'issuer')}"
    )


def warnings_of(callers: Callers, ttl: TTLPolicy) -> Iterator[Finding]:
    """Yield a warning for each part without effect, and for each grant that allows too much or nothing."""
    for late, early in callers.grants.never_deciding():
        yield warning(
            CHECK,
            f"grant {late.name} never decides: earlier ones match its senders, such as {early.name}",
            f"remove it, or move it before {early.name}",
        )
    for name, grants in callers.grants.by_caller().items():
        if not grants:
            yield warning(
                CHECK, f"caller {name} has no grant, so it can mint nothing", "add a [[caller.grant]]"
            )
        for grant in grants:
            yield from _warnings_of_grant(grant, ttl)
    used = {issuer for issuer, _ in callers.jwt_subjects}
    for each in callers.issuers:
        if each.name not in used:
            yield warning(CHECK, f"no caller has a JWT of issuer {each.name}", "remove it, or add a caller")
    if callers.client_certificate_header and not (callers.spiffe_ids or callers.dns_names):
        yield warning(
            CHECK,
            "[proxy] has no effect: no caller has a spiffe_id or a dns_name",
            "remove it, or add a caller",
        )


def _warnings_of_grant(grant: Grant, ttl: TTLPolicy) -> Iterator[Finding]:
    if grant.scopes.can_manage_mode_registry and any(set(sender) == {"*"} for sender in grant.senders):
        yield warning(
            CHECK,
            f"grant {grant.name} allows can_manage_mode_registry for any sender",
            "write the senders that manage the registry, in a grant for them alone",
        )
    if grant.scopes == Ceiling():
        yield warning(
            CHECK,
            f"grant {grant.name} has no scopes, so its tokens allow nothing",
            "write scopes, at least allowed_modes",
        )
    if grant.max_ttl_seconds > ttl.maximum:
        yield warning(
            CHECK,
            f"max_ttl_seconds of grant {grant.name} has no effect: all tokens live {ttl.maximum} s at most",
            "lower it, or raise MACP_AUTH_MAX_TTL_SECONDS",
        )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
