"""``vault-transit``: a key that never leaves HashiCorp Vault, or OpenBao.

Settings: ``MACP_AUTH_VAULT_*`` (``settings.py``), or Vault's own ``VAULT_ADDR``, ``VAULT_TOKEN``,
    ``VAULT_NAMESPACE`` and those of TLS. The algorithm is the key's.
Privileges: ``read`` on ``<mount>/keys/<key>`` and ``update`` on ``<mount>/sign/<key>``; with Vault's
    ``default`` policy, a token may look up, renew and revoke itself.
Fails: at start-up, on an invalid combination of settings. Later, with ``SignerUnavailable`` while
    Vault is unreachable, sealed, a standby or slow, and with ``SignerRefused`` if it refuses. Each has
    a reason. A signature takes 2 s at most, including retries.

Read ``signer.py`` first; it batches requests. ``credential.py`` keeps the token alive, and
``transit.py`` uses the key, both through ``connection.py``, which reloads the TLS files, and
``transport.py``, which wraps hvac. ``doctor.py`` is the diagnosis for ``macp-auth doctor``.
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
        api_version=1,
        settings_prefix=PREFIX,
        prepare=prepare,
        open=VaultTransitSigner,
        diagnose=diagnose,
    )
