"""``pkcs11``: keys that never leave a PKCS#11 token, such as a hardware security module or SoftHSM.

Settings:
    ``MACP_AUTH_PKCS11_MODULE``        the path of the vendor's PKCS#11 library.
    ``MACP_AUTH_PKCS11_TOKEN_LABEL``   the token's label; with ``..._TOKEN_SERIAL`` if several share it.
    ``MACP_AUTH_PKCS11_PIN_FILE``      the path of a file with the user PIN.
    ``MACP_AUTH_PKCS11_KEY_LABEL``     the label of the key, and the stem of its later versions' labels.
    ``MACP_AUTH_PKCS11_REOPEN``        whether each refresh opens the token again.
Schedule: the labels define it. A private key labelled ``macp`` has no creation time; one labelled
    ``macp@2026-12-01T06:00:00Z`` was created at that time, and signs a publish lead later.
Privileges: the token's user PIN, to find and use private keys in a read-only session; read access to the
    PIN file, which only its owner may write, and only its owner and group may read.
Fails: at start-up, without the library, or with a PIN file that others may read. Later, a lost session
    is opened again, once per request; a refused PIN is never presented again.
"""

from __future__ import annotations

from macp_auth import SignerPlugin, hookimpl
from macp_auth_pkcs11.settings import PKCS11Settings, prepare
from macp_auth_pkcs11.signer import PKCS11Signer

__all__ = ["PKCS11Settings", "PKCS11Signer", "macp_auth_signer"]

_LIBRARIES_READ = (
    "SOFTHSM2_CONF",
    *("OPENSC_*", "PCSCLITE_*", "PKCS11SPY*"),
    "P11_KIT_*",
    *("TPM2_PKCS11_*", "TSS2_*", "DBUS_SESSION_BUS_ADDRESS", "DBUS_SYSTEM_BUS_ADDRESS"),
    *("YUBIHSM_PKCS11_*", "YKCS11_*"),
    "ChrystokiConfigurationPath",  # Thales Luna
    *("CKNFAST_*", "NFAST_*"),  # Entrust nShield
    "CS_PKCS11_*",  # Utimaco
    *("KMS_PKCS11_CONFIG", "GOOGLE_APPLICATION_CREDENTIALS"),  # Google Cloud
    "KRYOPTIC_*",
)

_SIGN_SECONDS = 5.0
"""A smart card needs a second, and signatures wait while a refresh opens the token."""
_CONCURRENT_SIGNS = 4
"""The token makes one at a time; the others keep it busy, and a refresh does not wait for many."""


@hookimpl
def macp_auth_signer() -> SignerPlugin:
    """Register the signer."""
    return SignerPlugin(
        name="pkcs11",
        api_version=1,
        settings=PKCS11Settings,
        settings_prefix="MACP_AUTH_PKCS11_",
        prepare=prepare,
        open=PKCS11Signer,
        environment=_LIBRARIES_READ,
        sign_seconds=_SIGN_SECONDS,
        concurrent_signs=_CONCURRENT_SIGNS,
    )
