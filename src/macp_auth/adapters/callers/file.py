"""The callers file: whose credentials are accepted, and what each caller may ask for.

It is TOML. A message names a place by its path, as ``caller[3].grant[1].senders[0]``, counted from 0. The
only values that it shows are names of callers.

Privileges: to read the file. Nobody but its owner may write it. If it holds digests of secrets, no other user
may read or replace it either.
"""

from __future__ import annotations

import ipaddress
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, TypeVar
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, Struct

from macp_auth.adapters.callers.identity import is_workload_id
from macp_auth.adapters.input_file import Custody, FileUnusable, input_file
from macp_auth.domain.errors import ConfigurationError, InvalidSender
from macp_auth.domain.grants import ALL_MODES, Ceiling, Grant, Grants
from macp_auth.domain.keys import Algorithm
from macp_auth.domain.redaction import shown
from macp_auth.domain.sender import SenderPolicy
from macp_auth.domain.visible import is_visible

MAX_BYTES = 32 * 1024 * 1024
"""100,000 grants with all their members have 20 MB."""
_MAX_TTL_SECONDS = 365 * 24 * 3600  # as MACP_AUTH_MAX_TTL_SECONDS
_MAX_PER_MINUTE = 1_000_000  # more than a replica can sign
_MAX_CHARS = 1024
_MAX_DNS_NAME_CHARS = 253  # RFC 1035, section 2.3.4, as text

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,63}")
_NAME_FORM = "1 to 64 letters, digits, dots, hyphens and underscores, a letter first"
_HEADER = re.compile(r"[a-z][a-z0-9-]{0,63}")
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DNS_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_TTL = Meta(ge=1, le=_MAX_TTL_SECONDS)
_PER_MINUTE = Meta(ge=1, le=_MAX_PER_MINUTE)

K = TypeVar("K")


class Issuer(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whose JWTs are accepted."""

    name: str
    """For logs and metrics."""
    issuer: str
    """The ``iss`` claim, compared exactly."""
    audience: str
    """What ``aud`` must be or contain."""
    jwks_url: str | None = None
    """Where its keys are: https, or http to a loopback address. Either this or ``jwks_file``."""
    jwks_file: str | None = None
    """The absolute path of its keys."""
    ca_file: str | None = None
    """The absolute path of the certificates that ``jwks_url`` is verified with; None for the system's."""
    bearer_token_file: str | None = None
    """The absolute path of a bearer token to send to ``jwks_url``."""
    algorithms: tuple[Algorithm, ...] = tuple(Algorithm)
    """The accepted values of ``alg``."""


class Callers(Struct, frozen=True, kw_only=True):
    """The content of a callers file. Identities lead to the name of the caller that has them."""

    issuers: tuple[Issuer, ...]
    client_certificate_header: str | None
    """The header in which a proxy on this host names its client's certificate, in lower case."""
    spiffe_ids: dict[str, str]
    dns_names: dict[str, str]
    jwt_subjects: dict[tuple[str, str], str]
    """By the issuer's :attr:`Issuer.name` and the ``sub`` claim."""
    secrets: dict[bytes, str]
    """By the SHA-256 digest of the secret."""
    grants: Grants

    def __repr__(self) -> str:
        return "Callers(...)"  # keeps the digests out of logs


class _Proxy(Struct, frozen=True, forbid_unknown_fields=True):
    client_certificate_header: str


class _JWTSubject(Struct, frozen=True, forbid_unknown_fields=True):
    issuer: str
    subject: str


class _Grant(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    name: str | None = None
    senders: tuple[str, ...]
    audiences: tuple[str, ...] | None = None
    max_ttl_seconds: Annotated[int, _TTL] | None = None
    scopes: Ceiling = Ceiling()
    per_minute: Annotated[int, _PER_MINUTE] | None = None


class _Caller(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    name: str
    spiffe_id: str | None = None
    dns_name: str | None = None
    jwt: _JWTSubject | None = None
    secret_sha256: str | None = None
    grant: tuple[_Grant, ...] = ()


class _File(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    issuer: tuple[Issuer, ...] = ()
    proxy: _Proxy | None = None
    caller: tuple[_Caller, ...] = ()


class _Fault(Exception):
    """A value is invalid. The path is extended on the way out, so that a valid file pays nothing for it."""

    def __init__(self, path: str, text: str) -> None:
        super().__init__(text)
        self.path = path

    def within(self, path: str) -> _Fault:
        """Return this fault, seen from outside of ``path``."""
        return _Fault(f"{path}.{self.path}" if self.path else path, str(self))


def read_callers(path: Path, source: str, *, audience: str, max_ttl_seconds: int) -> Callers:
    """Return the content of the file.

    Blocks for 2 s at most to read it, and for 20 to 60 us a grant to parse it.

    Args:
        path: its path; symbolic links are followed.
        source: its name in messages: the variable or the path.
        audience: of grants that name none.
        max_ttl_seconds: of grants that name none.

    Raises:
        ConfigurationError: it can't be read, is invalid, or others can access it; the text has the remedy.
    """
    try:
        content = input_file(path, Custody.GRANTS, MAX_BYTES).read()
    except FileUnusable as error:
        raise ConfigurationError(f"{source} {error}") from None
    callers = parse_callers(content.data, source, audience=audience, max_ttl_seconds=max_ttl_seconds)
    if callers.secrets and content.weaknesses:
        weakness = content.weaknesses[0]
        raise ConfigurationError(f"{source} holds digests of secrets, and {weakness.text}; {weakness.remedy}")
    return callers


def parse_callers(data: bytes, source: str, *, audience: str, max_ttl_seconds: int) -> Callers:
    """Return the content of a callers file; the arguments are those of :func:`read_callers`.

    Raises:
        ConfigurationError: it is invalid; the text has the path, the cause and the remedy.
    """
    document: dict[str, object] = {}
    try:
        document = tomllib.loads(data.decode())
        return _Reader(audience, max_ttl_seconds).callers(msgspec.convert(document, _File))
    except UnicodeDecodeError:
        text = "not UTF-8; save it as UTF-8 text"
    except msgspec.ValidationError as error:
        text = _located(_fault_of(str(error)), document)
    except _Fault as fault:
        text = _located(fault, document)
    except tomllib.TOMLDecodeError as error:
        text = f"not valid TOML: {shown(str(error))}; correct the syntax there"
    except (RecursionError, ValueError):
        text = "arrays nested hundreds deep, or an integer of thousands of digits; remove it"
    raise ConfigurationError(f"{source}: {text}")


class _Reader:
    """Checks a file, and builds what it describes."""

    def __init__(self, audience: str, max_ttl_seconds: int) -> None:
        self._audience = audience
        self._max_ttl_seconds = max_ttl_seconds
        self._spiffe_ids: dict[str, str] = {}
        self._dns_names: dict[str, str] = {}
        self._jwt_subjects: dict[tuple[str, str], str] = {}
        self._secrets: dict[bytes, str] = {}
        self._issuers: frozenset[str] = frozenset()

    def callers(self, file: _File) -> Callers:
        _check_issuers(file.issuer)
        self._issuers = frozenset(issuer.name for issuer in file.issuer)
        if file.proxy is not None and not _HEADER.fullmatch(file.proxy.client_certificate_header):
            raise _Fault(
                "proxy.client_certificate_header",
                'not a header name in lower case; Envoy\'s is "x-forwarded-client-cert"',
            )
        if not file.caller:
            raise _Fault("caller", "no caller, so no token could be minted; add a [[caller]]")
        grants: dict[str, list[Grant]] = {}
        for index, caller in enumerate(file.caller):
            try:
                _check_name(caller.name)
                if caller.name in grants:
                    raise _Fault("name", "an earlier caller has the same name; choose another")
                self._add_identity(caller)
                grants[caller.name] = self._grants(caller)
            except _Fault as fault:
                raise fault.within(f"caller[{index}]") from None
        return Callers(
            issuers=file.issuer,
            client_certificate_header=file.proxy.client_certificate_header if file.proxy else None,
            spiffe_ids=self._spiffe_ids,
            dns_names=self._dns_names,
            jwt_subjects=self._jwt_subjects,
            secrets=self._secrets,
            grants=Grants(grants),
        )

    def _add_identity(self, caller: _Caller) -> None:
        match caller:
            case _Caller(spiffe_id=str(text), dns_name=None, jwt=None, secret_sha256=None):
                if not is_workload_id(text):
                    raise _Fault(
                        "spiffe_id",
                        "not the SPIFFE ID of a workload; write spiffe://TRUST-DOMAIN/PATH, with a trust "
                        "domain in lower case, and without port, query, percent-encoding, empty segments, "
                        ". and ..",
                    )
                _add(self._spiffe_ids, text, caller.name, "spiffe_id")
            case _Caller(spiffe_id=None, dns_name=str(text), jwt=None, secret_sha256=None):
                if len(text) > _MAX_DNS_NAME_CHARS or not _DNS_NAME.fullmatch(text):
                    raise _Fault(
                        "dns_name",
                        "not a DNS name in lower case without wildcard; write it like a.example.org",
                    )
                _add(self._dns_names, text, caller.name, "dns_name")
            case _Caller(spiffe_id=None, dns_name=None, jwt=_JWTSubject() as jwt, secret_sha256=None):
                if jwt.issuer not in self._issuers:
                    raise _Fault(
                        "jwt.issuer", "no [[issuer]] has this name; add one, or write the name of one"
                    )
                _check_text("jwt.subject", jwt.subject)
                _add(self._jwt_subjects, (jwt.issuer, jwt.subject), caller.name, "jwt")
            case _Caller(spiffe_id=None, dns_name=None, jwt=None, secret_sha256=str(text)):
                if not _SHA256.fullmatch(text):
                    raise _Fault("secret_sha256", "not 64 hexadecimal digits in lower case; write the digest")
                _add(self._secrets, bytes.fromhex(text), caller.name, "secret_sha256")
            case _:
                raise _Fault(
                    "", "needs exactly one identity; write one of spiffe_id, dns_name, jwt and secret_sha256"
                )

    def _grants(self, caller: _Caller) -> list[Grant]:
        names: set[str] = set()
        grants = []
        for index, grant in enumerate(caller.grant):
            try:
                _check_grant(grant)
                if grant.name in names:
                    raise _Fault("name", "an earlier grant of the caller has the same name; choose another")
            except _Fault as fault:
                raise fault.within(f"grant[{index}]") from None
            if grant.name is not None:
                names.add(grant.name)
            grants.append(
                Grant(
                    name=f"{caller.name}/{grant.name or index + 1}",
                    senders=grant.senders,
                    audiences=grant.audiences or (self._audience,),
                    max_ttl_seconds=grant.max_ttl_seconds or self._max_ttl_seconds,
                    scopes=grant.scopes,
                    per_minute=grant.per_minute,
                )
            )
        return grants


def _check_issuers(issuers: Sequence[Issuer]) -> None:
    names: dict[str, str] = {}
    claims: dict[str, str] = {}
    for index, issuer in enumerate(issuers):
        try:
            _check_name(issuer.name)
            _check_text("issuer", issuer.issuer)
            _check_text("audience", issuer.audience)
            for key, holders, value in (("name", names, issuer.name), ("issuer", claims, issuer.issuer)):
                if value in holders:
                    raise _Fault(key, f"an earlier issuer has the same {key}; remove one of the two")
                holders[value] = issuer.name
            if not issuer.algorithms:
                raise _Fault("algorithms", 'empty; write "RS256", "ES256" or both, or leave the key out')
            _check_source_of_keys(issuer)
        except _Fault as fault:
            raise fault.within(f"issuer[{index}]") from None


def _check_source_of_keys(issuer: Issuer) -> None:
    if (issuer.jwks_url is None) == (issuer.jwks_file is None):
        raise _Fault("", "needs exactly one source of keys; write jwks_url or jwks_file")
    if issuer.jwks_url is not None and not _is_safe_url(issuer.jwks_url):
        raise _Fault(
            "jwks_url",
            "not an https URL, or an http URL of a loopback address, without user, password and fragment; "
            "over plain http, anyone on the way could replace the keys",
        )
    for key in ("jwks_file", "ca_file", "bearer_token_file"):
        path: str | None = getattr(issuer, key)
        if path is None:
            continue
        if issuer.jwks_url is None and key != "jwks_file":
            raise _Fault(key, "has no use without jwks_url; remove it")
        if not path.startswith("/") or "\0" in path:
            raise _Fault(key, "not an absolute path; write one that begins with /")


def _check_grant(grant: _Grant) -> None:
    if grant.name is not None:
        _check_name(grant.name)
    if not grant.senders:
        raise _Fault("senders", 'empty; write the senders, or "*" for all')
    for index, sender in enumerate(grant.senders):
        try:
            _ANY_SENDER.check(sender)
        except InvalidSender as error:
            raise _Fault(f"senders[{index}]", f"matches no sender: {error}; correct it") from None
    if grant.audiences is not None:
        if not grant.audiences:
            raise _Fault(
                "audiences", "empty; write the audiences, or leave the key out for the service's own"
            )
        for index, audience in enumerate(grant.audiences):
            _check_text(f"audiences[{index}]", audience)
    if grant.scopes.allowed_modes != ALL_MODES:
        _check_modes(grant.scopes.allowed_modes)


def _check_modes(modes: Sequence[str]) -> None:
    for index, mode in enumerate(modes):
        if "*" in mode:
            raise _Fault(
                f"scopes.allowed_modes[{index}]",
                '* is not allowed in the name of a mode; write the modes, or ["*"] for all',
            )


_ANY_SENDER = SenderPolicy()


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise _Fault("name", f"not a name of {_NAME_FORM}; choose another")


def _check_text(path: str, text: str) -> None:
    if not 0 < len(text) <= _MAX_CHARS or not is_visible(text) or text != text.strip():
        raise _Fault(
            path,
            f"not 1 to {_MAX_CHARS} visible characters without white space at the ends; correct it",
        )


def _add(names: dict[K, str], identity: K, name: str, key: str) -> None:
    if identity in names:
        raise _Fault(key, f"caller {names[identity]} has the same identity; remove one of the two")
    names[identity] = name


def _is_safe_url(url: str) -> bool:
    if not url.isascii() or not url.isprintable() or " " in url or "#" in url or len(url) > _MAX_CHARS:
        return False
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises for one that is no number, or too large
    except ValueError:
        return False
    if not parts.hostname or "@" in parts.netloc:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(parts.hostname))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _located(fault: _Fault, document: dict[str, object]) -> str:
    """Return the message, with the caller's name: in a long file, it is found sooner than a number."""
    place = fault.path or "the file"
    if found := re.match(r"caller\[(\d+)\]", fault.path):
        match document.get("caller"), int(found[1]):
            case [*callers], index if index < len(callers):
                match callers[index]:
                    case {"name": str(name)} if _NAME.fullmatch(name):
                        place = f"{place} (caller {name})"
    return f"{place}: {fault}"


_TABLES: dict[str, type[Struct]] = {
    "": _File,
    "issuer": Issuer,
    "proxy": _Proxy,
    "caller": _Caller,
    "jwt": _JWTSubject,
    "grant": _Grant,
    "scopes": Ceiling,
}
_ARRAYS = {"issuer": "[[issuer]]", "caller": "[[caller]]", "grant": "[[caller.grant]]"}
_TYPES = {
    "str": "a string",
    "int": "an integer",
    "float": "a float",
    "bool": "a boolean",
    "array": "an array",
    "object": "a table",
}


_REPORT = re.compile(r"(?P<text>.*?)(?: - at `\$\.?(?P<path>[\w.\[\]]+)`)?", re.DOTALL)


def _fault_of(report: str) -> _Fault:
    """Return the fault that msgspec reports, in the words of TOML."""
    found = _REPORT.fullmatch(report)
    assert found is not None  # noqa: S101 - it matches any text
    text, path = found["text"], found["path"] or ""
    key = re.sub(r"\[\d+\]$", "", path.rpartition(".")[2])
    if found := re.fullmatch(r"Object contains unknown field `(.*?)`?", text, re.DOTALL):
        keys = ", ".join(_TABLES.get(key, _File).__struct_fields__)
        return _Fault(path, f"unknown key {shown(found[1], 64)}; the keys are {keys}")
    if found := re.fullmatch(r"Object missing required field `(.*)`", text):
        return _Fault(path, f"the key {found[1]} is missing; add it")
    if text.startswith("Invalid enum value"):
        return _Fault(path, f"not an algorithm; write one of {', '.join(Algorithm)}")
    if found := re.fullmatch(r"Expected `(\w+)(?: \| null)?`, got `(\w+)`", text):
        wanted, got = (_TYPES.get(each, "a date or time") for each in found.groups())
        remedy = f"write {_ARRAYS[key]}" if path.endswith(key) and key in _ARRAYS else "correct it"
        return _Fault(path, f"expected {wanted}, found {got}; {remedy}")
    return _Fault(path, f"the integer must be {text.removeprefix('Expected `int` ')}; correct it")
