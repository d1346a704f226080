"""Finds the one signer plugin that the operator selected, and imports no other."""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points

import pluggy

from macp_auth.adapters import hookspecs
from macp_auth.adapters.hookspecs import PROJECT, SignerPlugin
from macp_auth.domain.errors import SignerMisconfigured

BUILT_IN = {
    "ephemeral": "macp_auth.adapters.ephemeral",
    "env-jwk": "macp_auth.adapters.env_jwk",
    "jwk-file": "macp_auth.adapters.jwk_file",
    "vault-transit": "macp_auth.adapters.vault_transit",
}
"""Our own plugins. Registered first, so that no installed package can take their names."""


def available_signers() -> list[str]:
    """Return the names that can be selected: ours, then the installed ones in order."""
    installed = {entry_point.name for entry_point in entry_points(group=PROJECT)}
    return [*BUILT_IN, *sorted(installed - BUILT_IN.keys())]


def load_signer_plugin(name: str) -> SignerPlugin:
    """Import and return the plugin called ``name``.

    Raises:
        SignerMisconfigured: there is none, it fails to import, or it registers something else.
    """
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hookspecs)
    if name in BUILT_IN:
        manager.register(importlib.import_module(BUILT_IN[name]), name)
    elif name in (names := available_signers()):
        _load_installed(manager, name)
    else:
        raise SignerMisconfigured(f"MACP_AUTH_SIGNER names no signer; there are: {', '.join(names)}")
    registered: list[SignerPlugin] = manager.hook.macp_auth_signer()
    if [plugin.name for plugin in registered] != [name]:
        raise SignerMisconfigured(f"the signer plugin {name!r} registers no signer of that name")
    return registered[0]


def _load_installed(manager: pluggy.PluginManager, name: str) -> None:
    try:
        manager.load_setuptools_entrypoints(PROJECT, name=name)
        manager.check_pending()  # a hook whose name is misspelt would be ignored in silence
    except Exception as error:
        raise SignerMisconfigured(
            f"the signer plugin {name!r} can't be loaded ({type(error).__name__}: {error}); "
            "mend or uninstall its package, or select another signer"
        ) from error
