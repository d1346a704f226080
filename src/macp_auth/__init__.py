"""macp-auth: short-lived JWTs for MACP agents, and the keys to verify them.

This package exports the public API for signer plugins, :mod:`macp_auth.plugin_api`. It is loaded on first
use, so that importing a domain module loads nothing else.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from macp_auth.plugin_api import *  # noqa: F403 - its __all__ says which

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    plugin_api = import_module("macp_auth.plugin_api")

    if name == "__all__":
        return ["__version__", *plugin_api.__all__]
    if name in plugin_api.__all__:
        return getattr(plugin_api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    names: list[str] = __getattr__("__all__")
    return names
