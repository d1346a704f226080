"""Reads settings from environment variables, and finds unread variables.

A settings type is a msgspec struct with one field per variable, whose ``Meta`` has its meaning
(``description``) and its valid values (``extra["expects"]``). The service's settings are in
:mod:`macp_auth.entrypoints.settings`; a signer declares its own in the same way. No message shows a
value: it may be a secret, or a secret in the wrong variable.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta, Struct

from macp_auth.adapters.linear_pattern import LinearPattern
from macp_auth.domain.errors import ConfigurationError
from macp_auth.domain.secret import Secret

PREFIX = "MACP_AUTH_"
ECOSYSTEM = frozenset(
    PREFIX + name
    for name in (
        # The MACP runtime, 0.6 to 0.13 (crate macp-auth).
        *("ISSUER", "AUDIENCE", "JWKS_JSON", "JWKS_TTL_SECS", "JWKS_URL", "JWT_ALGS"),
        *("TOKENS_FILE", "TOKENS_JSON"),
        # Clients that mint: the control plane, the playground.
        *("SERVICE_URL", "SERVICE_TIMEOUT_MS", "SCOPES_JSON"),
        *("TOKEN_TTL_SECONDS", "TOKEN_SENDER", "TOKEN_CAN_MANAGE_REGISTRY"),
        "SERVICE_IMAGE",  # deploy/docker-compose.yml of the runtime
    )
)
"""Variables of other MACP software, which may share an environment file with this service."""

# https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
_LINK_NAMES = re.compile(
    r"_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_NEAR = 0.8  # MACP_AUTH_METRIC_PORT is near MACP_AUTH_METRICS_PORT; others are not
_SERVICE_LINK = re.compile(r"(tcp|udp|sctp)://")
_QUOTES = "\"'`"
_INVISIBLE = "\u200b\u2060\ufeff"  # zero-width space, word joiner, byte order mark: look like white space
_UNPRINTABLE = {"Cc", "Zl", "Zp"}  # of Unicode's general categories: controls, and separators of lines
_CONTROL_NAMES = {"\t": "a tab", "\n": "a line feed", "\r": "a carriage return", " ": "a space"}

SettingsT = TypeVar("SettingsT", bound=Struct)


class Variable(Struct, frozen=True):
    """One environment variable, as a settings type declares it."""

    name: str
    field: str
    type: Any
    description: str
    expects: str
    required: bool
    default: Any
    fallback: str | None
    """Another variable, read if this one is not set: the name in the backend's own tools."""
    multiline: bool
    """Whether white space is insignificant, as in JSON and PEM."""

    @property
    def names(self) -> list[str]:
        """The name, and the fallback if there is one."""
        return [self.name] if self.fallback is None else [self.name, self.fallback]


def variables(settings: type[Struct], prefix: str) -> list[Variable]:
    """Return the variables that fill ``settings``, in the order of its fields."""
    hints = get_type_hints(settings, include_extras=True)
    found = []
    for field in msgspec.structs.fields(settings):
        meta = next((m for m in _metas(hints[field.name]) if m.extra), Meta(extra={}))
        extra = meta.extra or {}
        found.append(
            Variable(
                name=extra.get("variable", prefix + field.name.upper()),
                field=field.name,
                type=hints[field.name],
                description=meta.description or "",
                expects=extra.get("expects", "a valid value"),
                required=field.required,
                default=None if field.required else field.default,
                fallback=extra.get("fallback"),
                multiline=extra.get("multiline", False),
            )
        )
    return found


def read_settings(settings: type[SettingsT], prefix: str, environ: Mapping[str, str]) -> SettingsT:
    """Return ``settings`` filled from ``environ``.

    A service link of Kubernetes counts as not set: the chart's Service ``macp-auth-jwks`` sets
    MACP_AUTH_JWKS_PORT, to an address, in every pod of its namespace.

    Raises:
        ConfigurationError: a variable is empty, malformed or missing; the text names it.
    """
    values = {}
    for variable in variables(settings, prefix):
        name = _name_in(environ, variable)
        if name in environ and not _is_service_link(name, environ[name]):
            values[variable.field] = _convert(environ[name], name, variable)
        elif variable.required:
            names = name if variable.fallback is None else f"{name} (or {variable.fallback})"
            raise ConfigurationError(f"{names} must be set, to {variable.expects}")
    return settings(**values)


def _name_in(environ: Mapping[str, str], variable: Variable) -> str:
    """Return the name that is set in the environment, or the variable's own."""
    if variable.fallback is None or variable.name in environ or variable.fallback not in environ:
        return variable.name
    return variable.fallback


def _convert(text: str, name: str, variable: Variable) -> Any:
    if not text:
        remedy = "give it a value" if variable.required else "unset it for the default"
        raise ConfigurationError(f"{name} is set but empty; {remedy}. It must be {variable.expects}")
    # A variable of the backend's tools may be set only for them; the signer checks it if it uses it.
    if not variable.multiline and name != variable.fallback:
        _check_characters(text, name)
    try:
        text.encode()
        value = msgspec.convert(text, variable.type, strict=False, dec_hook=decode_custom)
        if value is None or (isinstance(value, int) and not text.isdecimal()):
            raise ValueError("null, 1e3 and 3.0 are valid for msgspec, but not here")
    except (ValueError, re.error, RecursionError, OverflowError):
        # The cause contains the value, which must not be shown.
        raise ConfigurationError(f"{name} must be {variable.expects}") from None
    return value


def _check_characters(text: str, name: str) -> None:
    """Reject invisible characters, and artefacts of a Secret, an env file or a copied page.

    Raises:
        ConfigurationError: white space at an end, quotes around it, or a character that is not printable.
    """
    for place, character in (("begins", text[0]), ("ends", text[-1])):
        if character.isspace() or character in _INVISIBLE:
            raise ConfigurationError(f"{name} {place} with {_named(character)}; remove it")
    if len(text) > 1 and text[0] == text[-1] and text[0] in _QUOTES:
        raise ConfigurationError(
            f"{name} is in quotes ({text[0]}): outside of a shell they are part of the value; remove them"
        )
    for character in text:
        if character in _INVISIBLE or unicodedata.category(character) in _UNPRINTABLE:
            raise ConfigurationError(f"{name} contains {_named(character)}; remove it")


def _named(character: str) -> str:
    name = _CONTROL_NAMES.get(character) or unicodedata.name(character, "a control character").lower()
    return f"U+{ord(character):04X} ({name})"


def _is_service_link(name: str, text: str) -> bool:
    """Whether Kubernetes sets such a variable for a Service, in each pod of its namespace."""
    return name.endswith("_PORT") and _SERVICE_LINK.match(text) is not None


def decode_custom(expected: type, value: Any) -> Any:
    """Convert a text to a ``Secret`` or a pattern, for msgspec."""
    origin = get_origin(expected) or expected
    if origin is Secret:
        return Secret(value)
    if origin is LinearPattern:
        return LinearPattern(value)
    if origin is re.Pattern:
        return re.compile(value)
    raise NotImplementedError(expected)


def _metas(annotation: Any) -> Iterator[Meta]:
    """Yield the metadata of a type, outermost first: ``Annotated[int, Meta(...)] | None``."""
    arguments = get_args(annotation)
    yield from (argument for argument in arguments if isinstance(argument, Meta))
    for argument in arguments:
        yield from _metas(argument)


class UnreadVariable(Struct, frozen=True):
    """A variable that is set but not read."""

    name: str
    remedy: str


def unread_variables(environ: Mapping[str, str], known: Collection[str]) -> list[UnreadVariable]:
    """Return the variables with this service's prefix that are neither ``known`` nor of other software.

    Kubernetes sets some for every Service in the namespace (service links). They are recognised by their
    values: for a Service ``macp-auth``, MACP_AUTH_PORT is a ``tcp://`` URL.
    """
    made_by_kubernetes = set(_made_by_kubernetes(environ))
    return [
        UnreadVariable(name, _remedy(name, known))
        for name in sorted(environ.keys() - set(known) - ECOSYSTEM - made_by_kubernetes)
        if name.startswith(PREFIX)
    ]


def _made_by_kubernetes(environ: Mapping[str, str]) -> Iterable[str]:
    services = [
        name.removesuffix("_PORT") for name, value in environ.items() if _is_service_link(name, value)
    ]
    for name in environ:
        if any(
            name.startswith(service) and _LINK_NAMES.fullmatch(name[len(service) :]) for service in services
        ):
            yield name


def _remedy(name: str, known: Collection[str]) -> str:
    if (bare := name.removeprefix(PREFIX)) in known:
        return f"the variable is {bare}"
    names = {each.removeprefix(PREFIX): each for each in known}  # all are alike with it
    if near := difflib.get_close_matches(bare, names, n=1, cutoff=_NEAR):
        return f"did you mean {names[near[0]]}? Correct the name, or unset {name}"
    return f"correct the name, select the signer that reads it, or unset {name}"
