"""Diagnoses a deployment before it goes live: the settings, the signer, and what verifiers expect.

A signer's own diagnosis comes first; if it has no failure, the signer is used as the service uses it.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from functools import partial
from pathlib import Path

from msgspec import Struct

from macp_auth.adapters.audit.destination import check_place
from macp_auth.adapters.blocking_call import BlockingCall
from macp_auth.adapters.callers.file import MAX_BYTES, Callers, Issuer
from macp_auth.adapters.input_file import Custody, Risk, Weakness, input_file
from macp_auth.adapters.plugins import load_signer_plugin
from macp_auth.adapters.sandbox.planning import diagnosed
from macp_auth.adapters.verifying import VerifyingSigner
from macp_auth.application.key_ring import KeyRing
from macp_auth.domain.certificates import CLIENT_AUTHORITY, SERVER
from macp_auth.domain.claims import probe_claims
from macp_auth.domain.diagnosis import Finding, Status, failure, ok, warning
from macp_auth.domain.errors import ConfigurationError, SignerError
from macp_auth.domain.policy import VERIFIERS, RotationPolicy, Verifier
from macp_auth.domain.signer import Signer
from macp_auth.entrypoints.cli import caller_findings
from macp_auth.entrypoints.plan import ServicePlan, callers_file, open_signer, plan_service
from macp_auth.entrypoints.server.listening import check_addresses, is_loopback, is_unspecified
from macp_auth.entrypoints.server.tls_files import CERTIFICATE, CLIENT_CA, end_of, load_tls
from macp_auth.entrypoints.settings import Settings

SECONDS = 10.0
"""Upper bound on all checks of the signer together."""
_LONG_DEFAULT_TTL = 3600  # the default maximum: a request without a lifetime should not get more
_LONG_MAX_TTL = 24 * 3600  # a stolen token works until it expires: tokens cannot be revoked
_ODD_SENDERS = (
    "a",
    "0",
    "agent://risk",
    "a b",
    "~!§%&/()=?\\\"'",
    "Ελένη",
    "x" * 200,
)  # no scheme has all of these
_CERTIFICATES = {
    SERVER: (CERTIFICATE, "renew it; the service follows the file, without a restart (docs/tls.md)"),
    CLIENT_AUTHORITY: (CLIENT_CA, "add the authority's new certificate to the file (docs/tls.md)"),
}
_TLS = "set MACP_AUTH_TLS_CERT_FILE and MACP_AUTH_TLS_KEY_FILE, or end TLS in a local proxy or mesh"
_READ = "docs/troubleshooting.md, and the documentation of the signer"


Found = Callable[[Finding], None]


class Check(StrEnum):
    """The checks of every deployment, in order. A signer's own checks come before ``keys``."""

    CONFIGURATION = "configuration"
    AUDIT = "audit"
    VARIABLES = "variables"
    EXPOSURE = "exposure"
    ADDRESSES = "addresses"
    TRANSPORT = "transport"
    SENDERS = "senders"
    CALLERS = caller_findings.CHECK
    CALLER_KEYS = "caller-keys"
    CERTIFICATE = "certificate"
    ISSUER = "issuer"
    AUDIENCE = "audience"
    LIFETIME = "lifetime"
    VERIFIER = "verifier"
    SIGNER = "signer"
    KEYS = "keys"
    SIGNATURE = "signature"


class Expected(Struct, frozen=True, kw_only=True):
    """The verifiers, and the ``iss`` and ``aud`` that they expect; None if unknown."""

    verifiers: Sequence[Verifier]
    issuer: str | None = None
    audience: str | None = None


def diagnose(environ: Mapping[str, str], expected: Expected) -> Iterator[Finding]:
    """Diagnose the service that this environment configures. Yields each finding as soon as it is known."""
    try:
        plan = plan_service(environ)
        callers = None if (file := callers_file(plan.settings)) is None else file.check()
        weaknesses = check_place(plan.settings.audit_log)
        check_addresses(plan.settings)
    except ConfigurationError as error:
        yield failure(Check.CONFIGURATION, str(error), "correct the variable (docs/configuration.md)")
        return
    yield ok(Check.CONFIGURATION, f"valid; the signer is {plan.signer}")
    for weakness in weaknesses:
        text = f"others can change the audit log: {weakness.text}"
        yield warning(Check.AUDIT, text, weakness.remedy)
    yield from _diagnose_settings(plan, callers, expected)
    yield from _diagnose_signer(plan)


# --- the settings -------------------------------------------------------------------------------------


def _diagnose_settings(plan: ServicePlan, callers: Callers | None, expected: Expected) -> Iterator[Finding]:
    settings = plan.settings
    for variable in plan.unread_variables:
        text = f"{variable.name} is set, but nothing reads it"
        yield warning(Check.VARIABLES, text, variable.remedy)
    yield _exposure(settings)
    yield from _addresses(settings)
    yield from _transport(settings, callers)
    yield from _senders(settings)
    if callers is not None and settings.callers_file is not None:
        yield from _callers(settings, Path(settings.callers_file), callers)
        if callers.jwt_subjects:
            yield from _issuers(callers.issuers)
    yield from _certificates(settings)
    yield _claim(Check.ISSUER, "iss", settings.issuer, expected.issuer)
    yield from _discovery(settings.issuer)
    yield _claim(Check.AUDIENCE, "aud", settings.audience, expected.audience)
    yield _lifetime(settings)
    for verifier in expected.verifiers:
        yield _verifier(settings.rotation, verifier)


def _exposure(settings: Settings) -> Finding:
    where = f"the service listens on {settings.host} port {settings.port}"
    if is_loopback(settings.host):
        return ok(Check.EXPOSURE, f"{where}, for this machine only")
    if settings.callers_enforced:
        return ok(Check.EXPOSURE, f"{where}, and a token needs a grant of the callers file")
    if settings.tls_client_ca_file is not None:
        text = f"{where}, and a token needs a client certificate, which does not limit its sender"
        return ok(Check.EXPOSURE, text)
    if settings.sender_pattern is not None and not _matches_everything(settings):
        return ok(Check.EXPOSURE, f"{where} without authentication, and MACP_AUTH_SENDER_PATTERN is set")
    return warning(
        Check.EXPOSURE,
        f"{where}: anyone who can reach it can get a token for any sender",
        "MACP_AUTH_CALLERS_MODE=enforce"
        if settings.callers_file is not None
        else "set MACP_AUTH_CALLERS_FILE (docs/callers.md), or at least MACP_AUTH_SENDER_PATTERN or "
        "MACP_AUTH_TLS_CLIENT_CA_FILE (SECURITY.md)",
    )


def _addresses(settings: Settings) -> Iterator[Finding]:
    if is_unspecified(settings.host):
        yield warning(
            Check.ADDRESSES,
            f"the service listens on all addresses of this machine ({settings.host})",
            "set MACP_AUTH_HOST to the address that callers use; in a container, limit access to it",
        )
    keys = settings.jwks_address
    if keys is not None and is_unspecified(keys[0]) and not is_unspecified(settings.host):
        yield warning(
            Check.ADDRESSES,
            f"the listener for the keys listens on all addresses of this machine ({keys[0]})",
            "set MACP_AUTH_JWKS_HOST to the address that verifiers use; in a container, limit access to it",
        )
    metrics = settings.metrics_address
    if metrics is not None and is_unspecified(metrics[0]):
        yield warning(
            Check.ADDRESSES,
            f"the metrics listen on all addresses of this machine ({metrics[0]})",
            "set MACP_AUTH_METRICS_HOST to the address that is scraped; in a container, limit access to it",
        )


def _transport(settings: Settings, callers: Callers | None) -> Iterator[Finding]:
    keys = settings.jwks_address
    otherwise_safe = settings.tls is not None or is_loopback(settings.host)
    plain = settings.tls is None or settings.jwks_tls == "off"
    if keys is not None and plain and otherwise_safe and not is_loopback(keys[0]):
        yield warning(
            Check.TRANSPORT,
            f"keys travel over plain HTTP from {keys[0]} port {keys[1]}: who can change them makes verifiers "
            "accept any token",
            "MACP_AUTH_JWKS_HOST=127.0.0.1 and a verifier or a sidecar beside it, or a mesh that encrypts "
            "(docs/tls.md#the-keys-without-tls)",
        )
    if settings.tls is not None or is_loopback(settings.host):
        return
    yield warning(
        Check.TRANSPORT,
        "tokens and keys travel over plain HTTP: who can read it has the tokens, who can change it makes "
        "verifiers accept any",
        _TLS,
    )
    if callers is not None and (callers.secrets or callers.jwt_subjects):
        yield warning(
            Check.TRANSPORT,
            "secrets and JWTs of callers travel over plain HTTP: who can read it can mint as these callers",
            _TLS,
        )


def _senders(settings: Settings) -> Iterator[Finding]:
    if _matches_everything(settings):
        yield warning(
            Check.SENDERS,
            "MACP_AUTH_SENDER_PATTERN matches every test sender, so it rejects no sender",
            "set it to your naming scheme, such as (agent://)?[a-z0-9-]{1,64}",
        )


def _matches_everything(settings: Settings) -> bool:
    pattern = settings.sender_pattern
    return pattern is not None and all(map(pattern.matches, _ODD_SENDERS))


def _callers(settings: Settings, path: Path, callers: Callers) -> Iterator[Finding]:
    yield ok(Check.CALLERS, caller_findings.summary(callers))
    if settings.callers_mode == "report":
        yield warning(
            Check.CALLERS,
            "MACP_AUTH_CALLERS_MODE is report: what the callers file does not grant is logged, and minted",
            "MACP_AUTH_CALLERS_MODE=enforce, as soon as the log reports no caller that you know",
        )
    for weakness in _replaceable(path):
        yield warning(Check.CALLERS, f"others can change the callers file: {weakness.text}", weakness.remedy)
    header = callers.client_certificate_header
    if callers.spiffe_ids or callers.dns_names:
        if header is not None and not is_loopback(settings.host):
            yield ok(Check.CALLERS, f"{header} is accepted from proxies at loopback addresses only")
        if header is None and settings.tls_client_ca_file is None:
            yield warning(
                Check.CALLERS,
                "nothing verifies client certificates, so callers that have one are refused",
                "set MACP_AUTH_TLS_CLIENT_CA_FILE, or write the proxy's header to [proxy] (docs/callers.md)",
            )
    mistakes = list(caller_findings.warnings_of(callers, settings.ttl))
    yield from mistakes[:1]
    if len(mistakes) > 1:
        text = f"{len(mistakes) - 1} more likely mistakes in the callers file"
        yield warning(Check.CALLERS, text, f"macp-auth callers check {path}")


def _replaceable(path: Path) -> Iterator[Weakness]:
    """Yield the ways in which others can replace the callers file; what it says is no secret."""
    read_only = os.statvfs(path).f_flag & os.ST_RDONLY  # as Kubernetes mounts a ConfigMap, in a 0777 folder
    for weakness in input_file(path, Custody.GRANTS, MAX_BYTES).read().weaknesses:
        if weakness.risk is Risk.OWNER or (weakness.risk is Risk.FOLDER and not read_only):
            yield weakness


def _issuers(issuers: Sequence[Issuer]) -> Iterator[Finding]:
    """Read the keys of each issuer, as the service does."""
    from macp_auth.adapters.callers.issuer_keys import fault_of  # noqa: PLC0415 - as in the service

    async def faults() -> list[str | None]:
        return await asyncio.gather(*map(fault_of, issuers))

    try:
        found = BlockingCall(lambda: asyncio.run(faults()), "doctor").result(SECONDS)
    except TimeoutError:
        found = [f"they can't be read within {SECONDS:g} s"] * len(issuers)
    for issuer, fault in zip(issuers, found, strict=True):
        if fault is None:
            yield ok(Check.CALLER_KEYS, f"the keys of issuer {issuer.name} can be read")
        else:
            yield failure(
                Check.CALLER_KEYS,
                f"the keys of issuer {issuer.name} can't be read, so its JWTs are refused: {fault}",
                "correct the issuer in the callers file, or allow this service to reach it (docs/callers.md)",
            )


def _certificates(settings: Settings) -> Iterator[Finding]:
    if settings.tls is None:
        return
    now = time.time()
    for use, validity in load_tls(settings.tls).certificates.items():
        variable, remedy = _CERTIFICATES[use]
        if now < validity.begins:
            yield failure(Check.CERTIFICATE, f"{variable} is not valid yet: correct the clock", remedy)
        elif now >= validity.ends:
            yield failure(Check.CERTIFICATE, f"{variable} has expired, at {end_of(validity)}", remedy)
        elif validity.ends_soon(now):
            yield warning(Check.CERTIFICATE, f"{variable} expires soon, at {end_of(validity)}", remedy)
        else:
            yield ok(Check.CERTIFICATE, f"{variable} is valid until {end_of(validity)}")


def _claim(check: Check, claim: str, value: str, expected: str | None) -> Finding:
    # The MACP runtime's variable has the same name as the service's.
    variable = f"MACP_AUTH_{check.name}"
    if expected is None:
        return ok(check, f"{claim} is {value!r}; the MACP runtime needs {variable}={value}")
    if value == expected:
        return ok(check, f"{claim} is {value!r}, as verifiers expect")
    return failure(check, f"{claim} is {value!r}; verifiers expect {expected!r}", f"{variable}={expected}")


def _discovery(issuer: str) -> Iterator[Finding]:
    from macp_auth.entrypoints.http import discovery  # noqa: PLC0415 - slow, and for this only

    if issuer.lower().startswith("https:") and discovery.provider_metadata(issuer) is None:
        yield warning(
            Check.ISSUER,
            f"{discovery.PATH} is a 404: iss is an https URL, but not of host, port and path only",
            "remove all else from MACP_AUTH_ISSUER, and from what verifiers expect "
            "(docs/api.md#get-well-knownopenid-configuration)",
        )


def _lifetime(settings: Settings) -> Finding:
    ttl = settings.ttl
    text = f"tokens live {ttl.default} s, or up to {ttl.maximum} s on request"
    for variable, seconds, limit in (
        ("MACP_AUTH_DEFAULT_TTL_SECONDS", ttl.default, _LONG_DEFAULT_TTL),
        ("MACP_AUTH_MAX_TTL_SECONDS", ttl.maximum, _LONG_MAX_TTL),
    ):
        if seconds > limit:
            return warning(Check.LIFETIME, f"{text}: a stolen one works as long", f"{variable}={limit}")
    return ok(Check.LIFETIME, text)


def _verifier(policy: RotationPolicy, verifier: Verifier) -> Finding:
    timing = policy.timing
    lead, lag = policy.needed_lead(verifier).seconds, policy.needed_lag(verifier).seconds
    text = (
        f"{verifier.name} needs a publish lead of {lead} s and a retire lag of {lag} s; "
        f"they are {timing.publish_lead} s and {timing.retire_lag} s"
    )
    if timing.publish_lead >= lead and timing.retire_lag >= lag:
        return ok(Check.VERIFIER, text)
    option = (
        f"--verifier {verifier.name}"
        if verifier.name in VERIFIERS
        else f"--custom {verifier.name}:{verifier.cache_ttl}:{verifier.stale_grace}"
    )
    return failure(Check.VERIFIER, text, f"macp-auth rotation plan {option} prints the variables to set")


# --- the signer ---------------------------------------------------------------------------------------


def _diagnose_signer(plan: ServicePlan) -> Iterator[Finding]:
    if plan.signer == "ephemeral":
        yield failure(
            Check.SIGNER,
            "the ephemeral key is lost when the service stops, and each replica has another",
            "MACP_AUTH_SIGNER=vault-transit, or another signer that keeps its key (docs/configuration.md)",
        )
    deadline = time.monotonic() + SECONDS
    failed = False
    for finding in _until(deadline, partial(_ask_signer, plan)):
        failed = failed or finding.status is Status.FAILURE
        yield finding
    if failed:
        return  # its findings say more than an attempt to sign
    yield from _until(deadline, partial(_try, plan))


def _ask_signer(plan: ServicePlan, found: Found) -> None:
    """Find what the signer's own diagnosis finds."""
    if plan.hosted is not None:
        if plan.hosted.description.diagnoses:
            asyncio.run(diagnosed(plan.hosted, os.environ, plan.settings.rotation, found))
        return
    plugin = load_signer_plugin(plan.signer)
    if plugin.diagnose is not None:
        for finding in plugin.diagnose(plan.signer_state, plan.settings.rotation):
            found(finding)


def _try(plan: ServicePlan, found: Found) -> None:
    """Read the keys and sign, as a worker of the service does."""
    with asyncio.Runner() as runner:
        signer = runner.run(_opened(plan))
        keys = KeyRing(VerifyingSigner(signer, plan.signer), plan.settings.rotation.timing)
        try:
            found(_tried(Check.KEYS, lambda: runner.run(keys.refresh(time.time())), lambda: _summary(keys)))
            if keys.active is not None:
                claims = probe_claims(plan.settings.issuer, plan.settings.audience, time.time())
                begun = time.monotonic()
                found(
                    _tried(
                        Check.SIGNATURE,
                        lambda: runner.run(keys.self_test(claims)),
                        lambda: (
                            f"the service's signature verifies; {1000 * (time.monotonic() - begun):.0f} ms"
                        ),
                    )
                )
        finally:
            runner.run(keys.aclose())


async def _opened(plan: ServicePlan) -> Signer:
    return open_signer(plan)


def _tried(check: Check, attempt: Callable[[], None], result: Callable[[], str]) -> Finding:
    try:
        attempt()
    except SignerError as error:
        return failure(check, str(error), _READ)
    return ok(check, result())


def _summary(keys: KeyRing) -> str:
    schedule = keys.keys.schedule
    signing = schedule.signing
    count = f"{len(schedule.keys)} key{'s are' if len(schedule.keys) > 1 else ' is'} published"
    return f"{count}; {signing.kid} ({signing.algorithm}) signs"


def _until(deadline: float, diagnose: Callable[[Found], None]) -> Iterator[Finding]:
    """Yield what ``diagnose`` finds in a daemon thread.

    It is abandoned at ``deadline`` (monotonic seconds).
    """
    found: queue.SimpleQueue[Finding | None] = queue.SimpleQueue()

    def find() -> None:
        try:
            diagnose(found.put)
        except SignerError as error:
            found.put(failure(Check.SIGNER, str(error), _READ))
        except BaseException as error:  # noqa: BLE001 - a plugin may raise anything, with a secret in its text
            text = f"the diagnosis of the signer failed: {type(error).__name__}"
            found.put(failure(Check.SIGNER, text, "upgrade or fix the signer's package"))
        finally:
            found.put(None)

    threading.Thread(target=find, name="doctor", daemon=True).start()
    while True:
        try:
            finding = found.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            text = f"the signer took longer than {SECONDS:g} s"
            yield failure(Check.SIGNER, text, "check that its backend can be reached, and run this again")
            return
        if finding is None:
            return
        yield finding
