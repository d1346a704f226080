"""Loads the selected signer plugin, and imports no other."""

from __future__ import annotations

import importlib
import logging
from importlib.metadata import entry_points, version

import pluggy
from msgspec import Struct

from macp_auth.adapters import hookspecs
from macp_auth.adapters.hookspecs import API_VERSION, OLDEST_API_VERSION, PROJECT, SignerPlugin
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

_log = logging.getLogger(__name__)  # the library's own: this also runs where structlog is not set up


class KnownSigner(Struct, frozen=True):
    """An available signer and its distribution."""

    name: str
    distribution: str
    version: str


def known_signers() -> list[KnownSigner]:
    """Return the available signers: built-in, then installed by name. Imports none of them."""
    own_version = version("macp-auth")
    ours = [KnownSigner(name, "macp-auth", own_version) for name in BUILT_IN]
    installed = {
        (entry_point.name, entry_point.dist.name, entry_point.dist.version)
        for entry_point in entry_points(group=PROJECT)
        if entry_point.dist
    }
    return ours + [KnownSigner(*each) for each in sorted(installed) if each[0] not in BUILT_IN]


def available_signers() -> list[str]:
    """Return the names of the available signers, in that order."""
    return list(dict.fromkeys(signer.name for signer in known_signers()))


def check_installed(name: str) -> None:
    """Check that one package brings the plugin called ``name``, without importing it.

    Raises:
        SignerMisconfigured: none does, or several do.
    """
    known = known_signers()  # reads the metadata of all installed packages
    packages = [f"{each.distribution} {each.version}" for each in known if each.name == name]
    if not packages:
        names = dict.fromkeys(each.name for each in known)
        raise SignerMisconfigured(f"unknown signer in MACP_AUTH_SIGNER; available: {', '.join(names)}")
    if len(packages) > 1:
        raise SignerMisconfigured(
            f"several packages bring a signer plugin {name!r}: {', '.join(packages)}; uninstall all but one"
        )


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
    else:
        check_installed(name)
        _load_installed(manager, name)
    plugin = _registered(manager, name)
    if name not in BUILT_IN:  # built-in plugins match this version
        check_api_version(plugin)
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


def check_api_version(plugin: SignerPlugin) -> None:
    """Check that the plugin was written for a supported version of the plugin API.

    Logs a warning if that version is deprecated.

    Raises:
        SignerMisconfigured: it was not, or declares no valid version.
    """
    match plugin.api_version:
        case int() as version:
            first = last = version
        case (int() as first, int() as last) if first <= last:
            pass
        case _:
            raise SignerMisconfigured(
                f"the signer plugin {plugin.name!r} declares no valid api_version: a version, such as 1, or "
                "the first and the last one, such as (1, 2); upgrade the package of the plugin"
            )
    versions = _versions(first, last)
    written_for = f"the signer plugin {plugin.name!r} was written for {versions} of the plugin API"
    if first > API_VERSION or last < OLDEST_API_VERSION:
        raise SignerMisconfigured(
            f"{written_for}, and this macp-auth has {_versions(OLDEST_API_VERSION, API_VERSION)}; "
            f"upgrade {'macp-auth' if first > API_VERSION else 'the package of the plugin'}"
        )
    if last < API_VERSION:
        _log.warning("%s, which is deprecated; upgrade the package of the plugin", written_for)


def _versions(first: int, last: int) -> str:
    return f"version {first}" if first == last else f"versions {first} to {last}"


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
