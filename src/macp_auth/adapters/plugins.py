"""Loads the selected signer plugin, and imports no other."""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points, version

import pluggy
from msgspec import Struct

from macp_auth.adapters import hookspecs
from macp_auth.adapters.hookspecs import API_VERSION, PROJECT, SignerPlugin
from macp_auth.domain.errors import SignerMisconfigured

BUILT_IN = {
    "ephemeral": "macp_auth.adapters.signers.ephemeral",
    "env-jwk": "macp_auth.adapters.signers.env_jwk",
    "jwk-file": "macp_auth.adapters.signers.jwk_file",
    "vault-transit": "macp_auth.adapters.signers.vault_transit",
}
"""The built-in plugins. Registered first, so that no installed package can take their names."""
IN_PROCESS = frozenset({"ephemeral", "env-jwk", "jwk-file"})
"""Those whose signatures our own code makes in this process: they need no host."""

BUILT_IN_SECRETS = ("MACP_AUTH_SIGNING_KEY_JSON", "MACP_AUTH_VAULT_TOKEN", "MACP_AUTH_VAULT_SECRET_ID")
"""The variables of theirs that hold a secret: to import their settings would slow each start."""
BUILT_IN_FALLBACKS = ("VAULT_TOKEN",)
"""Likewise, but a name that another signer's library may read as well."""


class KnownSigner(Struct, frozen=True):
    """An available signer and its distribution."""

    name: str
    distribution: str
    version: str


def known_signers() -> list[KnownSigner]:
    """Return the available signers: built-in, then installed by name. Imports none of them."""
    ours = [KnownSigner(name, "macp-auth", version("macp-auth")) for name in BUILT_IN]
    installed = {
        (entry_point.name, entry_point.dist.name, entry_point.dist.version)
        for entry_point in entry_points(group=PROJECT)
        if entry_point.dist
    }
    return ours + [KnownSigner(*each) for each in sorted(installed) if each[0] not in BUILT_IN]


def available_signers() -> list[str]:
    """Return the names of the available signers, in that order."""
    return list(dict.fromkeys(signer.name for signer in known_signers()))


def load_signer_plugin(name: str) -> SignerPlugin:
    """Import and return the plugin called ``name``.

    Raises:
        SignerMisconfigured: it does not exist, two packages have it, it fails to import, it registers
            another name, or it was written for another version of the plugin API.
    """
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hookspecs)
    if name in BUILT_IN:
        manager.register(importlib.import_module(BUILT_IN[name]), name)
    elif name in (names := available_signers()):
        _check_that_one_package_brings(name)
        _load_installed(manager, name)
    else:
        raise SignerMisconfigured(f"unknown signer in MACP_AUTH_SIGNER; available: {', '.join(names)}")
    plugin = _registered(manager, name)
    if name not in BUILT_IN:  # built-in plugins match this version
        _check_api_version(plugin)
    return plugin


def _registered(manager: pluggy.PluginManager, name: str) -> SignerPlugin:
    try:
        registered = manager.hook.macp_auth_signer()
    except KeyboardInterrupt:  # the operator's
        raise
    except BaseException as error:
        raise SignerMisconfigured(
            f"the signer plugin {name!r} can't register ({type(error).__name__}: {error}); "
            "upgrade or fix its package, or select another signer"
        ) from error
    match registered:
        case [SignerPlugin() as plugin] if plugin.name == name:
            return plugin
    raise SignerMisconfigured(f"the signer plugin {name!r} registers no signer of that name")


def _check_api_version(plugin: SignerPlugin) -> None:
    declared = plugin.api_version
    if declared == API_VERSION:
        return
    if declared is None:
        raise SignerMisconfigured(
            f"the signer plugin {plugin.name!r} declares no api_version, which must be {API_VERSION}; "
            "upgrade the package of the plugin"
        )
    raise SignerMisconfigured(
        f"the signer plugin {plugin.name!r} was written for version {declared} of the plugin API, and this "
        f"macp-auth has version {API_VERSION}; "
        f"upgrade {'macp-auth' if declared > API_VERSION else 'the package of the plugin'}"
    )


def _check_that_one_package_brings(name: str) -> None:
    packages = [f"{each.distribution} {each.version}" for each in known_signers() if each.name == name]
    if len(packages) > 1:
        raise SignerMisconfigured(
            f"several packages bring a signer plugin {name!r}: {', '.join(packages)}; uninstall all but one"
        )


def _load_installed(manager: pluggy.PluginManager, name: str) -> None:
    try:
        manager.load_setuptools_entrypoints(PROJECT, name=name)
        manager.check_pending()  # a misspelt hook name would be ignored silently
    except KeyboardInterrupt:  # the operator's
        raise
    except BaseException as error:  # includes sys.exit(), which would end the command silently
        raise SignerMisconfigured(
            f"the signer plugin {name!r} can't be loaded ({type(error).__name__}: {error}); "
            "fix or uninstall its package, or select another signer"
        ) from error
