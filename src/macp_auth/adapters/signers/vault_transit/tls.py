"""TLS with Vault: whose certificate is accepted, and which one the service presents."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from pathlib import Path

from macp_auth.adapters.input_file import Custody, FileUnusable, InputFile, file_version, input_file
from macp_auth.adapters.signers.vault_transit.settings import TRUSTED, VaultSettings, names
from macp_auth.domain.errors import SignerMisconfigured

_MAX_BYTES = 4 * 2**20  # all the public authorities are 0.2 MiB
_FILES = ("cacert", "capath", "client_cert", "client_key")


def client_context(settings: VaultSettings) -> ssl.SSLContext:
    """Return what connections to Vault are made with. Blocks, while files are read.

    Raises:
        SignerMisconfigured: what a setting names can't be used; the text names the variable.
    """
    # Not create_default_context(): that one writes TLS's secrets where SSLKEYLOGFILE says.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusted = next((field for field in TRUSTED if getattr(settings, field) is not None), None)
    if trusted is None:
        context.load_default_certs()
    else:
        # As in Vault's own commands: what is given is trusted, be it an intermediate or Vault's certificate.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        pem = _authorities(trusted, getattr(settings, trusted))
        try:
            context.load_verify_locations(cadata=pem.decode("ascii", "replace"))
        except (ssl.SSLError, ValueError):
            raise _unusable(trusted, f"must be {_EXPECTED[trusted]}") from None
    if settings.client_cert is not None and settings.client_key is not None:
        _present(context, settings.client_cert, settings.client_key)
    return context


_EXPECTED = {
    "cacert": "the path of a PEM file of certificates",
    "cacert_bytes": "certificates in PEM",
    "capath": "the path of a folder with PEM files of certificates",
}


def files(settings: VaultSettings) -> dict[str, Path]:
    """Return the files and folders that may change, by the field that names them."""
    return {field: Path(path) for field in _FILES if (path := getattr(settings, field)) is not None}


def look(paths: dict[str, Path]) -> object:
    """Return a value that differs after one of the files has changed. Blocks."""
    return [file_version(each) for path in paths.values() for each in (path, *_files_in(path))]


def _files_in(folder: Path) -> Iterator[Path]:
    for parent, _, children in os.walk(folder):
        yield from (Path(parent, child) for child in sorted(children))


def _authorities(field: str, value: str) -> bytes:
    if field == "cacert_bytes":
        return value.encode()
    path = Path(value)
    try:
        if field == "cacert":
            return input_file(path, Custody.PUBLIC, _MAX_BYTES).read().data
        path.stat()
        return b"\n".join(InputFile(each, Custody.PUBLIC, _MAX_BYTES).read().data for each in _files_in(path))
    except FileUnusable as error:
        raise _unusable(field, str(error)) from None
    except OSError as error:
        raise _unusable(field, f"can't be read: {error.strerror}") from None


def _present(context: ssl.SSLContext, certificate: str, key: str) -> None:
    for field, path, custody in (
        ("client_cert", certificate, Custody.PUBLIC),
        ("client_key", key, Custody.KEYS),
    ):
        try:
            input_file(Path(path), custody, _MAX_BYTES).read()
        except FileUnusable as error:
            raise _unusable(field, str(error)) from None
    try:
        context.load_cert_chain(certificate, key, password="")  # or OpenSSL asks the terminal for one
    except (OSError, ValueError):
        raise _unusable(
            "client_cert",
            f"and {names('client_key')} must be PEM files of a certificate and its private key, which has no "
            "password",
        ) from None


def _unusable(field: str, text: str) -> SignerMisconfigured:
    return SignerMisconfigured(f"{names(field)} {text}", reason="tls")
