"""``vault-transit``: a key that never leaves HashiCorp Vault, or OpenBao.

Settings: ``MACP_AUTH_VAULT_*``, see ``settings.py``; Vault's own ``VAULT_ADDR``, ``VAULT_TOKEN``,
    ``VAULT_NAMESPACE`` and those of TLS are honoured. The algorithm is the key's own.
Privileges: ``read`` on ``<mount>/keys/<key>`` and ``update`` on ``<mount>/sign/<key>``; its own
    token it may look up, renew and revoke by Vault's ``default`` policy.
Fails: at start-up, on settings that can't work together. Later, with ``SignerUnavailable`` while
    Vault is away, sealed, a standby or slow, and with ``SignerRefused`` where it says no. Each has
    a reason. A signature takes 2 s at most, all retries included.

``signer.py`` is where to begin. It makes one call of many requests. ``credential.py`` keeps the token
alive, ``transit.py`` uses the key, both through ``connection.py``, which follows the files of TLS, and
``transport.py``, which knows hvac. ``doctor.py`` examines a Vault before a deployment goes live.
"""

from __future__ import annotations

from macp_auth.adapters.hookspecs import SignerPlugin, hookimpl
from macp_auth.adapters.signers.vault_transit.connection import client_context, files
from macp_auth.adapters.signers.vault_transit.doctor import diagnose
from macp_auth.adapters.signers.vault_transit.settings import PREFIX, VaultSettings
from macp_auth.adapters.signers.vault_transit.signer import VaultTransitSigner


def prepare(settings: VaultSettings) -> VaultSettings:
    """Check the settings; each worker logs in for itself."""
    settings.check()
    if files(settings) or settings.cacert_bytes is not None:
        client_context(settings)
    return settings


@hookimpl
def macp_auth_signer() -> SignerPlugin:
    """Register the signer."""
    return SignerPlugin(
        name="vault-transit",
        settings=VaultSettings,
        settings_prefix=PREFIX,
        prepare=prepare,
        open=VaultTransitSigner,
        diagnose=diagnose,
    )
