"""The declared settings, and what is said of each."""

from __future__ import annotations

import re
from enum import Enum
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from macp_auth import Secret
from macp_auth.adapters.linear_pattern import LinearPattern
from macp_auth.adapters.plugins import BUILT_IN, load_signer_plugin
from macp_auth.entrypoints.environment import PREFIX, Variable, variables
from macp_auth.entrypoints.settings import Settings

UNITS = {"_SECONDS": ", seconds", "_MS": ", milliseconds"}


def groups() -> dict[str, list[Variable]]:
    """Each settings type's variables, by its heading in docs/configuration.md."""
    plugins = [load_signer_plugin(name) for name in BUILT_IN]
    return {
        "The service": variables(Settings, PREFIX),
        **{f"Signer: {each.name}": variables(each.settings, each.settings_prefix) for each in plugins},
    }


def default(variable: Variable) -> str | None:
    """The default as a variable's text; None if there is none."""
    value = variable.default
    return None if value is None else str(value.value if isinstance(value, Enum) else value)


def kind(variable: Variable) -> str:
    """The type, in a word or two."""
    bare = _bare(variable.type)
    if bare is int:
        return "integer" + next((unit for end, unit in UNITS.items() if variable.name.endswith(end)), "")
    if bare is LinearPattern:
        return "regular expression"
    if get_origin(bare) is Literal or (isinstance(bare, type) and issubclass(bare, Enum)):
        return "choice"
    return "string, secret" if is_secret(variable) else "string"


def is_secret(variable: Variable) -> bool:
    return get_origin(_bare(variable.type)) is Secret


def meaning(variable: Variable) -> str:
    """The meaning, in Markdown."""
    if variable.fallback is None:
        return variable.description
    return f"{variable.description} If it is not set, `{variable.fallback}` is read."


def without_links(markdown: str) -> str:
    return re.sub(r"\[([^]]+)\]\([^)]+\)", r"\1", markdown)


def _bare(annotation: Any) -> Any:
    """The type without what is said of it, and without None."""
    if get_origin(annotation) is Annotated:
        return _bare(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        [inner] = [each for each in get_args(annotation) if each is not type(None)]
        return _bare(inner)
    return annotation
