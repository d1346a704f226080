"""Makes a server's TLS context from its PEM files; errors name the variable."""

from __future__ import annotations

import datetime as dt
import os
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes, PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from msgspec import Struct

from macp_auth.adapters.input_file import Custody, FileTooLong, FileUnusable, file_version, input_file
from macp_auth.domain.certificates import CLIENT_AUTHORITY, SERVER, Validity
from macp_auth.domain.errors import ConfigurationError
from macp_auth.entrypoints.environment import PREFIX
from macp_auth.entrypoints.settings import TLSFiles

CERTIFICATE, KEY = PREFIX + "TLS_CERT_FILE", PREFIX + "TLS_KEY_FILE"
CLIENT_CA = PREFIX + "TLS_CLIENT_CA_FILE"
_MAX_BYTES = 1024 * 1024
_DESCRIPTORS = "/proc/self/fd"
_MFD_NOEXEC_SEAL = 0x8  # linux/memfd.h; Python has no name for it


class LoadedTLS(Struct, frozen=True):
    """The content of the files."""

    context: ssl.SSLContext
    anonymous_context: ssl.SSLContext
    """For clients that have no certificate: the same, without a client CA."""
    serial: str
    """The certificate's serial number, in hexadecimal digits."""
    expires: dt.datetime
    certificates: Mapping[str, Validity]
    """The validity of each file of certificates, by :data:`SERVER` and :data:`CLIENT_AUTHORITY`."""


def end_of(validity: Validity) -> str:
    """Return when a certificate expires, in the format of RFC 3339."""
    return dt.datetime.fromtimestamp(validity.ends, dt.UTC).isoformat()


def versions_of(files: TLSFiles) -> object:
    """Return a value that changes when one of the files changes."""
    paths = (files.certificate, files.key, files.client_ca)
    return [file_version(path) for path in paths if path is not None]


def load_tls(files: TLSFiles) -> LoadedTLS:
    """Return a new server context: TLS 1.2 or 1.3, with HTTP/1.1.

    With a client CA it is TLS 1.3, and a client may present a certificate; one that the CA does not verify
    ends the handshake. Each route decides whether it needs one.

    Raises:
        ConfigurationError: the files are unusable; the text names the variable, never a content.
    """
    chain, key = _read(files.certificate, CERTIFICATE), _read(files.key, KEY, Custody.KEYS)
    certificate, public_key, expires = _certificate(chain, CERTIFICATE)
    if _private_key(key).public_key() != public_key:
        raise ConfigurationError(f"{KEY} is not the key of the first certificate in {CERTIFICATE}")
    context = anonymous = _server_context(files, chain, key)
    # A chain is valid until the first of it expires; of the authorities, one valid one is enough.
    certificates = {SERVER: min(_validities(chain), key=lambda each: each.ends)}
    if files.client_ca is not None:
        authorities = _read(files.client_ca, CLIENT_CA)
        context = _server_context(files, chain, key)
        _request_client_certificates(context, authorities)
        certificates[CLIENT_AUTHORITY] = max(_validities(authorities), key=lambda each: each.ends)
    return LoadedTLS(context, anonymous, f"{certificate.serial_number:x}", expires, certificates)


def _server_context(files: TLSFiles, chain: bytes, key: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION  # each costs a handshake; OpenSSL 1.1 allows them
    context.set_alpn_protocols(["http/1.1"])
    try:
        with _as_read(chain, files.certificate) as chain_path, _as_read(key, files.key) as key_path:
            context.load_cert_chain(
                chain_path, key_path, password=""
            )  # without a password, OpenSSL asks the terminal
    except (OSError, ValueError) as error:  # what only OpenSSL checks, such as the key's strength
        raise ConfigurationError(f"cannot use {CERTIFICATE} and {KEY}: {_openssl_reason(error)}") from None
    return context


def _validities(content: bytes) -> list[Validity]:
    return [
        Validity(each.not_valid_before_utc.timestamp(), each.not_valid_after_utc.timestamp())
        for each in x509.load_pem_x509_certificates(content)
    ]


def _request_client_certificates(context: ssl.SSLContext, authorities: bytes) -> None:
    _certificate(authorities, CLIENT_CA)
    try:
        context.load_verify_locations(cadata=authorities.decode("ascii", "replace"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"cannot use {CLIENT_CA}: {_openssl_reason(error)}") from None
    context.verify_mode = ssl.CERT_OPTIONAL
    # A resumed session does not verify the client's certificate again, which may have expired since.
    # TLS 1.2 resumes sessions also without tickets, and Python cannot disable OpenSSL's session cache.
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0


def _openssl_reason(error: Exception) -> str:
    return f"OpenSSL reports {getattr(error, 'reason', None) or type(error).__name__}"


def _read(path: Path, variable: str, custody: Custody = Custody.PUBLIC) -> bytes:
    try:
        return input_file(path, custody, _MAX_BYTES).read().data
    except FileTooLong as error:
        raise ConfigurationError(f"{variable}: the file {error}; is it PEM?") from None
    except FileUnusable as error:
        raise ConfigurationError(f"{variable}: the file {error}") from None


@contextmanager
def _as_read(content: bytes, path: Path) -> Iterator[str]:
    """Yield a path to ``content`` for OpenSSL, in memory if the system can: the file may change."""
    descriptor = _memory()
    if descriptor is None:
        yield str(path)
        return
    with open(descriptor, "wb", buffering=0) as memory:  # noqa: PTH123 - no path
        memory.write(content)
        found = f"{_DESCRIPTORS}/{descriptor}"
        yield found if os.access(found, os.R_OK) else str(path)


def _memory() -> int | None:
    """Return a new file in memory; None if the system does not support or allow it."""
    if not hasattr(os, "memfd_create"):
        return None
    for flags in (os.MFD_CLOEXEC | _MFD_NOEXEC_SEAL, os.MFD_CLOEXEC):
        try:
            return os.memfd_create("tls", flags)
        except OSError:  # a kernel before 6.3 does not know the first; vm.memfd_noexec may refuse the second
            continue
    return None


def _certificate(
    content: bytes, variable: str
) -> tuple[x509.Certificate, CertificatePublicKeyTypes, dt.datetime]:
    """Return the first certificate, its key and its expiry: the last two are parsed only on access."""
    try:
        first = x509.load_pem_x509_certificates(content)[0]
        return first, first.public_key(), first.not_valid_after_utc
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigurationError(f"{variable} must name a PEM file of certificates") from None


def _private_key(content: bytes) -> PrivateKeyTypes:
    try:
        return load_pem_private_key(content, password=None)
    except TypeError:
        raise ConfigurationError(
            f"{KEY}: the key is encrypted; decrypt it (openssl pkey), and restrict the file's mode"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigurationError(f"{KEY} must name a PEM file of a private key") from None
