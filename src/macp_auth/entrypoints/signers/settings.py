"""Reads the settings of a signer plugin, whose type is untrusted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, get_args, get_origin

import msgspec
from msgspec import Struct, inspect

from macp_auth.adapters.hookspecs import SignerPlugin
from macp_auth.adapters.plugins import BUILT_IN_FALLBACKS, BUILT_IN_SECRETS
from macp_auth.domain.errors import ConfigurationError, MACPAuthError
from macp_auth.domain.secret import Secret
from macp_auth.entrypoints.environment import decode_custom, read_settings, variables

_NEVER_TEXT = (
    inspect.CollectionType,
    inspect.DataclassType,
    inspect.DictType,
    inspect.NamedTupleType,
    inspect.NoneType,
    inspect.StructType,
    inspect.TypedDictType,
)


def read_signer_settings(plugin: SignerPlugin, environ: Mapping[str, str]) -> Struct:
    """Return the settings of ``plugin``, filled from ``environ``.

    Raises:
        ConfigurationError: a variable or the plugin's settings type is invalid; the text names it.
    """
    check_declarations(plugin)
    try:
        return read_settings(plugin.settings, plugin.settings_prefix, environ)
    except MACPAuthError:
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001 - its __post_init__ may raise anything, with a value in the text
        raise ConfigurationError(
            f"the settings type of the signer plugin {plugin.name!r} raised {type(error).__name__} when it "
            "was filled; check its variables, or fix its package"
        ) from None


def check_declarations(plugin: SignerPlugin) -> None:
    """Check the settings type.

    Raises:
        ConfigurationError: no variables can fill it.
    """
    for fault in unusable_settings(plugin):
        raise ConfigurationError(
            f"the signer plugin {plugin.name!r} can't be configured: {fault}; upgrade or fix its package"
        )


def unusable_settings(plugin: SignerPlugin) -> Iterator[str]:
    """Yield the faults of the settings type.

    msgspec detects an invalid type only on conversion, that is, when its variable is set.
    """
    if not (isinstance(plugin.settings, type) and issubclass(plugin.settings, Struct)):
        yield "its settings are no subclass of msgspec.Struct"
        return
    name = plugin.settings.__name__
    try:
        declared = variables(plugin.settings, plugin.settings_prefix)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - resolving annotations runs them
        yield f"an annotation of {name} can't be resolved ({type(error).__name__}: {error})"
        return
    for variable in declared:
        if fault := _fault_of(variable.type):
            yield f"the field {variable.field!r} of {name} can't be read from {variable.name}: {fault}"


def secret_variables(declared: Iterable[str], *, built_in: bool) -> list[str]:
    """Return the secret variables that a service can clear, with those that its signer has ``declared``.

    They include those of other signers, which may be left from an earlier configuration, but not those of the
    backend's library, such as ``AWS_SECRET_ACCESS_KEY``.
    """
    fallbacks = BUILT_IN_FALLBACKS if built_in else ()
    return sorted({*declared, *BUILT_IN_SECRETS, *fallbacks})


def declared_secrets(plugin: SignerPlugin) -> list[str]:
    """Return the variables that ``plugin`` declares as secret."""
    declared = variables(plugin.settings, plugin.settings_prefix)
    return [name for each in declared if _is_secret(each.type) for name in each.names]


def _is_secret(annotation: Any) -> bool:
    return (get_origin(annotation) or annotation) is Secret or any(map(_is_secret, get_args(annotation)))


def _fault_of(annotation: Any) -> str | None:
    """Return why no text can be converted to ``annotation``; None if some can."""
    try:
        msgspec.convert("", annotation, strict=False, dec_hook=decode_custom)
    except msgspec.ValidationError:
        pass  # other texts may be valid
    except NotImplementedError:
        return "its type is not supported by msgspec, and is not Secret or re.Pattern"
    except Exception as error:  # noqa: BLE001 - msgspec says what is wrong with a type by a TypeError, and more
        return str(error)
    if all(isinstance(kind, _NEVER_TEXT) for kind in _kinds(inspect.type_info(annotation))):
        return "no text can be converted to its type; use str, and split it in prepare()"
    return None


def _kinds(kind: inspect.Type) -> Iterator[inspect.Type]:
    match kind:
        case inspect.Metadata():
            yield from _kinds(kind.type)
        case inspect.UnionType():
            for each in kind.types:
                yield from _kinds(each)
        case _:
            yield kind
