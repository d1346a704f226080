"""The settings of a signer plugin, whose type somebody else wrote."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, get_args, get_origin

import msgspec
from msgspec import Struct, inspect

from macp_auth.adapters.hookspecs import SignerPlugin
from macp_auth.adapters.plugins import BUILT_IN, BUILT_IN_FALLBACKS, BUILT_IN_SECRETS
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
        ConfigurationError: a variable is not good, or the plugin's settings type; the text names it.
    """
    for fault in unusable_settings(plugin):
        raise ConfigurationError(
            f"the signer plugin {plugin.name!r} can't be configured: {fault}; upgrade or fix its package"
        )
    try:
        return read_settings(plugin.settings, plugin.settings_prefix, environ)
    except MACPAuthError:
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001 - its __post_init__ may raise anything, with a value in the text
        raise ConfigurationError(
            f"the settings type of the signer plugin {plugin.name!r} raised {type(error).__name__} when it "
            "was filled; check its variables, or fix its package"
        ) from None


def unusable_settings(plugin: SignerPlugin) -> Iterator[str]:
    """Say of which fields of the settings type no variable can be read, and why.

    msgspec finds out when it converts: a type that is wrong stays unnoticed until its variable is set.
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


def secret_variables(plugin: SignerPlugin) -> list[str]:
    """Return the variables with a secret that a service with this ``plugin`` need not keep.

    They are what it declares, and what another signer that was selected before may have left behind. Those
    of its backend's own library, such as ``AWS_SECRET_ACCESS_KEY``, are not among them.
    """
    fallbacks = BUILT_IN_FALLBACKS if plugin.name in BUILT_IN else ()
    return sorted({*declared_secrets(plugin), *BUILT_IN_SECRETS, *fallbacks})


def declared_secrets(plugin: SignerPlugin) -> list[str]:
    """Return the variables whose content ``plugin`` declares to be a secret."""
    declared = variables(plugin.settings, plugin.settings_prefix)
    secrets = [each for each in declared if _is_secret(each.type)]
    return [name for each in secrets for name in (each.name, each.fallback) if name is not None]


def _is_secret(annotation: Any) -> bool:
    return (get_origin(annotation) or annotation) is Secret or any(map(_is_secret, get_args(annotation)))


def _fault_of(annotation: Any) -> str | None:
    """Say why no text can be converted to ``annotation``; None if some can."""
    try:
        msgspec.convert("", annotation, strict=False, dec_hook=decode_custom)
    except msgspec.ValidationError:
        pass  # this text can't, others may
    except NotImplementedError:
        return "its type is none that msgspec knows, nor a Secret or a re.Pattern"
    except Exception as error:  # noqa: BLE001 - msgspec says what is wrong with a type by a TypeError, and more
        return str(error)
    if all(isinstance(kind, _NEVER_TEXT) for kind in _kinds(inspect.type_info(annotation))):
        return "no text becomes such a value; take a str, and split it in prepare()"
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
