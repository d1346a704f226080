"""TLS files that can't serve: refused before anything listens, by the variable's name, without content."""

from __future__ import annotations

import errno
import os
import resource
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from structlog.testing import capture_logs

from macp_auth.domain.errors import ConfigurationError
from macp_auth.entrypoints.plan import plan_service
from macp_auth.entrypoints.server import tls_files
from macp_auth.entrypoints.server.tls_files import load_tls
from macp_auth.entrypoints.server.tls_reload import ReloadingContext
from macp_auth.entrypoints.settings import TLSFiles
from tools.support.tls import Authority, Pair, private_pem

CERT, KEY, CA = "MACP_AUTH_TLS_CERT_FILE", "MACP_AUTH_TLS_KEY_FILE", "MACP_AUTH_TLS_CLIENT_CA_FILE"
GONE = "No such file or directory"
SECRET = "c2VjcmV0"


class Place:
    """A folder with files that can serve, and what a test does to them."""

    def __init__(self, directory: Path) -> None:
        self.authority = Authority(directory)
        self.pair = self.authority.issue("server")
        self.environ = {
            CERT: str(self.pair.certificate),
            KEY: str(self.pair.key),
            CA: str(self.authority.path),
        }
        self.directory = directory

    @property
    def files(self) -> TLSFiles:
        return TLSFiles(self.pair.certificate, self.pair.key, self.authority.path)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def _unset(*names: str) -> Callable[[Place], object]:
    return lambda place: [place.environ.pop(name) for name in names]


def _missing(name: str) -> Callable[[Place], object]:
    return lambda place: Path(place.environ[name]).unlink()


def _written(name: str, content: str) -> Callable[[Place], object]:
    return lambda place: Path(place.environ[name]).write_text(content)


def _replaced(name: str, other: str) -> Callable[[Place], object]:
    return lambda place: Path(place.environ[name]).write_bytes(Path(place.environ[other]).read_bytes())


def _mode(mode: int) -> Callable[[Place], object]:
    return lambda place: place.pair.key.chmod(mode)


def _encrypted(place: Place) -> None:
    key = serialization.load_pem_private_key(place.pair.key.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    place.pair.key.write_bytes(private_pem(key, SECRET.encode()))


def _foreign_key(place: Place) -> None:
    place.pair.key.write_bytes(place.authority.issue("another").key.read_bytes())


def _key_of_another_type(place: Place) -> None:
    key = rsa.generate_private_key(65537, 2048)
    place.pair.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )


@pytest.mark.parametrize(
    ("fault", "named", "said"),
    [
        (_unset(CERT), CERT, "both"),
        (_unset(KEY), KEY, "both"),
        (_unset(CERT, KEY), CA, "both"),
        (_missing(CERT), CERT, "No such file"),
        (_missing(KEY), KEY, "No such file"),
        (_missing(CA), CA, "No such file"),
        (lambda place: place.environ.update({KEY: str(place.directory)}), KEY, "Is a directory"),
        (_written(CERT, SECRET), CERT, "PEM file of certificates"),
        (_written(CERT, ""), CERT, "PEM file of certificates"),
        (_replaced(CERT, KEY), CERT, "PEM file of certificates"),
        (_written(KEY, SECRET), KEY, "PEM file of a private key"),
        (_replaced(KEY, CERT), KEY, "PEM file of a private key"),
        (_written(CA, SECRET), CA, "PEM file of certificates"),
        (_written(CERT, SECRET * 2**17 * 2), CERT, "over 1048576 bytes"),
        (_encrypted, KEY, "encrypted"),
        (_foreign_key, KEY, "not the key of the first certificate"),
        (_key_of_another_type, KEY, "not the key of the first certificate"),
        (_mode(0o644), KEY, "mode 0644"),
        (_mode(0o660), KEY, "mode 0660"),
    ],
)
def test_what_can_not_serve_is_refused(
    place: Place, fault: Callable[[Place], object], named: str, said: str
) -> None:
    """The message names the variable and the remedy, and neither the path nor what is in the file."""
    fault(place)
    with pytest.raises(ConfigurationError) as refused:
        plan_service(place.environ)
    message = str(refused.value)
    assert named in message
    assert said in message
    assert str(place.directory) not in message
    assert SECRET not in message
    assert "BEGIN" not in message


@pytest.mark.parametrize("mode", [0o400, 0o440, 0o600, 0o640])
def test_a_key_for_its_owner_and_group_is_accepted(place: Place, mode: int) -> None:
    """As a mounted Secret has it, for a group that may read it."""
    place.pair.key.chmod(mode)
    plan_service(place.environ)


def test_what_the_context_is_like(place: Place) -> None:
    """A client may show a certificate, and gets no session that it could resume: TLS 1.2 can't refuse one."""
    context = load_tls(place.files).context
    assert context.minimum_version == ssl.TLSVersion.TLSv1_3
    assert context.verify_mode == ssl.CERT_OPTIONAL
    assert (context.num_tickets, ssl.OP_NO_TICKET in context.options) == (0, True)
    assert ssl.OP_NO_RENEGOTIATION in context.options
    without = load_tls(TLSFiles(place.pair.certificate, place.pair.key, None))
    assert without.context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert without.context.verify_mode == ssl.CERT_NONE
    assert without.serial == f"{place.pair.serial:x}"


def served(context: ssl.SSLContext, authority: Authority) -> int:
    """The serial number of the certificate that a new connection gets."""
    client_context = ssl.create_default_context(cafile=authority.path)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server, server_hostname="localhost")
    server = context.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(3):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    certificate = client.getpeercert()
    assert certificate is not None
    serial = certificate["serialNumber"]
    assert isinstance(serial, str)
    return int(serial, 16)


def test_files_are_read_only_when_they_have_changed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A check of good files costs three system calls; a corrected mode is a change."""
    readings = []

    def counted(files: TLSFiles) -> object:
        readings.append(files)
        return load_tls(files)

    monkeypatch.setattr("macp_auth.entrypoints.server.tls_reload.load_tls", counted)
    context = ReloadingContext(place.files)
    for expected in (1, 1):
        context.check_files()
        assert len(readings) == expected
    for mode in (0o644, 0o600):
        place.pair.key.chmod(mode)
        context.check_files()
    assert len(readings) == 3
    context.check_files()
    assert len(readings) == 3


def test_a_context_whose_files_were_never_good_serves_nobody_until_they_are(place: Place) -> None:
    """A handshake fails, and nothing else does."""
    good = place.pair.certificate.read_bytes()
    place.pair.certificate.write_text("broken")
    context = ReloadingContext(place.files)
    context.check_files()
    with pytest.raises(ssl.SSLError):
        served(context, place.authority)
    place.pair.certificate.write_bytes(good)
    context.check_files()
    assert served(context, place.authority) == place.pair.serial


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    """Nothing can be opened (EMFILE) in this context; what is open stays, and the files don't change."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def complaints(check: Callable[[], None], times: int = 1) -> list[str]:
    with capture_logs() as logs:
        for _ in range(times):
            check()
    return [line["detail"] for line in logs if line["log_level"] == "error"]


def test_files_that_could_not_be_read_for_a_moment_are_read_again(place: Place) -> None:
    """The trouble was the process's own: no file changes when it is over. It is said once."""
    context = ReloadingContext(place.files)
    context.check_files()
    place.pair.replace(place.authority.issue("renewed"))
    with no_descriptor_left():
        said = complaints(context.check_files, times=3)
    assert said == [f"{CERT}: the file can't be read: Too many open files"]
    context.check_files()
    assert served(context, place.authority) == place.pair.serial


def test_each_change_for_the_worse_is_said(place: Place) -> None:
    """Once: another fault, the same one in other files, and the same one after files that were good."""
    certificate, target = place.pair.certificate, place.directory / "target.pem"
    certificate.rename(target)
    certificate.symlink_to(target)
    context = ReloadingContext(place.files)
    good = target.read_bytes()
    for _ in range(2):
        target.write_text("broken")
        assert complaints(context.check_files, times=2) == [f"{CERT} must name a PEM file of certificates"]
    target.write_bytes(good)
    for _ in range(2):
        assert complaints(context.check_files) == []
        certificate.unlink()
        assert complaints(context.check_files, times=2) == [f"{CERT}: the file can't be read: {GONE}"]
        certificate.symlink_to(target)


def test_half_of_a_replacement_keeps_the_old_pair(place: Place) -> None:
    """The certificate is new, the key is not yet; then it is."""
    context = ReloadingContext(place.files)
    context.check_files()
    old, fresh = place.pair.serial, place.authority.issue("fresh")
    for file, new, serial in (
        (place.pair.certificate, fresh.certificate, old),
        (place.pair.key, fresh.key, fresh.serial),
    ):
        file.write_bytes(new.read_bytes())
        context.check_files()
        assert served(context, place.authority) == serial


def test_a_pair_is_replaced_by_renaming(place: Place) -> None:
    """With the times of the old files, as a copy that keeps them has."""
    context = ReloadingContext(place.files)
    context.check_files()
    fresh = Pair(place.authority.issue("fresh").certificate, place.directory / "fresh.key")
    place.pair.replace(fresh)
    context.check_files()
    assert served(context, place.authority) == fresh.serial


@pytest.mark.parametrize("lacking", ["memory", "proc", "flag"])
def test_openssl_finds_the_files_on_a_system_that_lacks(
    place: Place, monkeypatch: pytest.MonkeyPatch, lacking: str
) -> None:
    """``vm.memfd_noexec=2`` may refuse files in memory, a chroot has no /proc, an old kernel no such flag."""
    create = getattr(os, "memfd_create", None)

    def refuse(name: str, flags: int) -> int:
        if lacking == "memory" or create is None or flags & 8:
            raise OSError(errno.EACCES if lacking == "memory" else errno.EINVAL, "refused")
        return int(create(name, flags))

    if lacking == "proc":
        monkeypatch.setattr(tls_files, "_DESCRIPTORS", "/nowhere")
    else:
        monkeypatch.setattr(os, "memfd_create", refuse, raising=False)
    assert load_tls(place.files).serial
