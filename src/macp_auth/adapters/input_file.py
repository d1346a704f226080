"""Reads input files: private keys, credentials, certificates.

Like OpenSSH's StrictModes, it checks who can change or replace the file: its mode, its owner, and each
folder above it. Symbolic links are followed, because Kubernetes mounts a Secret behind them; the check
covers the opened file and the folders on its real path.

Only regular files are read, and no caller waits longer than :data:`READ_SECONDS` for one.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from enum import Enum, auto
from functools import cache
from pathlib import Path

from msgspec import Struct

from macp_auth.adapters.blocking_call import BlockingCall
from macp_auth.domain.errors import SignerMisconfigured, SignerUnavailable

READ_SECONDS = 2.0
"""Timeout for reading a file; a failing start must report its error within 5 s."""
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NOFOLLOW | os.O_NONBLOCK  # a FIFO opens at once
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_ACL = "system.posix_acl_access"
_ROOT = 0
_CHMOD = "chmod 600 it (in a Kubernetes volume: defaultMode: 0440)"
_ATTEMPTS = 3  # Kubernetes may swap the folder between resolving the path and opening it


class Risk(Enum):
    """What others can do with a file."""

    WRITE = auto()
    READ = auto()
    OWNER = auto()
    """It belongs to another user, who can do all of that."""
    FOLDER = auto()
    """They can replace the file."""


class Weakness(Struct, frozen=True):
    """One way in which others can access a file."""

    risk: Risk
    text: str
    """The fault, as a clause about the file."""
    remedy: str


class Custody(Enum):
    """The content of a file, and which risks are errors and which are warnings."""

    def __init__(self, holds: str, refused: AbstractSet[Risk], warned: AbstractSet[Risk]) -> None:
        self.holds = holds
        self.refused = refused
        self.warned = warned

    KEYS = ("private keys", frozenset(Risk), frozenset[Risk]())
    KEYS_OF_ANY_OWNER = ("private keys", frozenset(Risk) - {Risk.OWNER}, frozenset[Risk]())
    """For a command that edits the file of a service, which may run as another user."""
    SECRET = ("a secret", frozenset(Risk), frozenset[Risk]())
    CREDENTIAL = ("a credential", frozenset({Risk.WRITE}), frozenset(Risk) - {Risk.WRITE})
    """Another program may write it as its own user, as Vault Agent does."""
    JWT = ("a credential", frozenset({Risk.WRITE}), frozenset({Risk.OWNER, Risk.FOLDER}))
    """Kubernetes lets others read the token of a service account, unless the pod has an ``fsGroup``."""
    GRANTS = ("grants", frozenset({Risk.WRITE}), frozenset(Risk) - {Risk.WRITE})
    """Who writes it decides who may mint what. A Kubernetes ConfigMap may be in a folder of mode 0777."""
    TRUSTED_KEYS = ("keys that decide whom to trust", frozenset({Risk.WRITE}), frozenset[Risk]())
    """Public keys of an issuer: who writes them can authenticate as any of its subjects."""
    PUBLIC = ("certificates", frozenset[Risk](), frozenset[Risk]())


class FileUnusable(Exception):
    """A file can't be used; the text follows the file's name in a message, and never shows content."""


class FileUnreadable(FileUnusable):
    """It can't be read now."""


class FileTooLong(FileUnusable):
    """It is too long."""


class FileExposed(FileUnusable):
    """Others can access it."""


class Content(Struct, frozen=True):
    """The content of a file."""

    data: bytes
    weaknesses: list[Weakness]
    """The weaknesses to warn about."""

    def __repr__(self) -> str:
        return "Content(...)"


class InputFile:
    """A file that may be read repeatedly.

    Args:
        path: its path.
        custody: the kind of content.
        max_bytes: maximum size, so that a mistyped path does not fill the memory.
    """

    def __init__(self, path: Path, custody: Custody, max_bytes: int) -> None:
        self._path = path
        self._custody = custody
        self._max_bytes = max_bytes
        self._call = BlockingCall(self._read, "file")

    def read(self) -> Content:
        """Return the current content.

        Raises:
            FileUnreadable: it can't be read, is not a regular file, or took too long.
            FileTooLong: it is over ``max_bytes``.
            FileExposed: others can access it.
        """
        try:
            return self._call.result(READ_SECONDS)
        except TimeoutError:
            raise _too_slow() from None

    async def read_async(self) -> Content:
        """Like :meth:`read`, for an event loop."""
        try:
            return await self._call.result_async(READ_SECONDS)
        except TimeoutError:
            raise _too_slow() from None

    def _read(self) -> Content:
        try:
            descriptor, real = _open(self._path)
            try:
                status = os.fstat(descriptor)
                _check_is_regular(status)
                with open(descriptor, "rb", closefd=False) as file:
                    data = file.read(self._max_bytes + 1)
            finally:
                os.close(descriptor)
            weaknesses = list(self._weaknesses(status, real))
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            raise FileUnreadable(f"can't be read: {_words(error)}") from None
        for weakness in weaknesses:
            if weakness.risk in self._custody.refused:
                raise FileExposed(f"holds {self._custody.holds}, and {weakness.text}; {weakness.remedy}")
        if len(data) > self._max_bytes:
            raise FileTooLong(f"can't be used: it is over {self._max_bytes} bytes")
        return Content(data, [weakness for weakness in weaknesses if weakness.risk in self._custody.warned])

    def _weaknesses(self, status: os.stat_result, real: Path) -> Iterator[Weakness]:
        if self._custody is Custody.PUBLIC:
            return
        trusted = {_ROOT, os.geteuid()}
        if self._custody is Custody.KEYS_OF_ANY_OWNER:
            trusted |= {status.st_uid, real.parent.lstat().st_uid}  # a service owns its StateDirectory
        yield from weaknesses_of(status, trusted, _CHMOD)
        for folder in real.parents:
            yield from _weaknesses_of_folder(folder, trusted)


@cache
def input_file(path: Path, custody: Custody, max_bytes: int) -> InputFile:
    """Return the shared reader of ``path``, so that only one thread waits if its file system hangs."""
    return InputFile(path, custody, max_bytes)


def read_private_file(path: str, source: str, *, max_bytes: int) -> bytes:
    """Return the content of a file that no other user may read or change.

    It must be a regular file that belongs to root or to the user of this process, without access for
    others (its group may read it), in folders in which no other user can replace it.

    Args:
        path: its path; symbolic links are followed.
        source: its name in messages: the variable.
        max_bytes: the maximum size.

    Raises:
        SignerUnavailable: it can't be read, or not within 2 s.
        SignerMisconfigured: others can access it, or it is too long.
    """
    with signer_errors(source):
        return input_file(Path(path), Custody.SECRET, max_bytes).read().data


@contextmanager
def signer_errors(source: str) -> Iterator[None]:
    """Translate the errors of a file to signer errors that begin with ``source``.

    Raises:
        SignerUnavailable: it can't be read.
        SignerMisconfigured: others can access it, or it is too long.
    """
    try:
        yield
    except FileUnreadable as error:
        raise SignerUnavailable(f"{source} {error}") from None
    except FileUnusable as error:
        raise SignerMisconfigured(f"{source} {error}") from None


def file_version(path: Path) -> tuple[int, ...] | None:
    """Return a value that differs after the file was written, replaced, or given another mode or owner.

    It follows symbolic links, and is None for a file that is not there or can't be looked at. The clock of a
    file system moves every few milliseconds: of two changes within one, the second is seen by its size only.
    """
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_ctime_ns, status.st_size


def leads_to(path: Path, descriptor: int) -> bool:
    """Return whether ``path`` still leads to the open file: it was neither moved away nor replaced.

    Raises:
        OSError: it can't be looked at.
    """
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def weaknesses_of(
    status: os.stat_result, trusted: AbstractSet[int], remedy: str = "chmod 600 it"
) -> Iterator[Weakness]:
    """Yield what the mode and the owner of a file allow users other than the ``trusted`` ones.

    ``remedy`` is the remedy for the mode.
    """
    mode = stat.S_IMODE(status.st_mode)
    if mode & _OTHERS_WRITE:
        yield Weakness(Risk.WRITE, f"it is writable by group or others (mode {mode:04o})", remedy)
    elif mode & stat.S_IRWXO:
        yield Weakness(Risk.READ, f"it is accessible to group or others (mode {mode:04o})", remedy)
    if status.st_uid not in trusted:
        yield Weakness(
            Risk.OWNER,
            f"it belongs to uid {status.st_uid}, neither root nor the user of this process "
            f"(uid {os.geteuid()})",
            _remedy_of_owner(status.st_uid),
        )


def _remedy_of_owner(owner: int) -> str:
    # Root usually checks the file of another user's service, and a chown would take it from that service.
    return f"run this as uid {owner}" if os.geteuid() == _ROOT else "run as that user, or chown it"


def _weaknesses_of_folder(folder: Path, trusted: AbstractSet[int]) -> Iterator[Weakness]:
    status = folder.lstat()
    mode = stat.S_IMODE(status.st_mode)
    if status.st_uid not in trusted:
        yield Weakness(
            Risk.FOLDER,
            f"uid {status.st_uid}, which owns the folder {folder}, can replace it",
            f"run this as uid {status.st_uid}, or move the file to a folder of root"
            if os.geteuid() == _ROOT
            else "chown the folder, or move the file to one of root or of this user",
        )
    elif mode & _OTHERS_WRITE and not mode & stat.S_ISVTX and _others_can_write(folder, status):
        yield Weakness(
            Risk.FOLDER,
            f"others can replace it: the folder {folder} is writable (mode {mode:04o})",
            "chmod go-w the folder, or move the file to another",
        )


def _others_can_write(folder: Path, status: os.stat_result) -> bool:
    """Whether more than the owner's private group can write; that group's id equals the user's id."""
    if status.st_mode & stat.S_IWOTH or status.st_gid not in {_ROOT, status.st_uid}:
        return True
    return _has_acl(folder)  # the group mode is the ACL's mask


def _has_acl(folder: Path) -> bool:
    try:
        return hasattr(os, "listxattr") and _ACL in os.listxattr(folder)
    except OSError as error:
        if error.errno == errno.ENOTSUP:  # such as a FUSE file system
            return False
        raise


def _open(path: Path) -> tuple[int, Path]:
    """Return a descriptor and the real path that was opened."""
    for _ in range(_ATTEMPTS - 1):
        real = Path(os.path.realpath(path, strict=True))
        try:
            return os.open(real, _FLAGS), real
        except FileNotFoundError:
            continue
    real = Path(os.path.realpath(path, strict=True))
    return os.open(real, _FLAGS), real


def _check_is_regular(status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(None, "Is a directory")
    if not stat.S_ISREG(status.st_mode):
        kind = "a named pipe" if stat.S_ISFIFO(status.st_mode) else "a device or a socket"
        raise OSError(None, f"it is not a regular file but {kind}")


def _words(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or "invalid path"


def _too_slow() -> FileUnreadable:
    return FileUnreadable(
        f"can't be read: the file system does not answer within {READ_SECONDS:g} s; "
        "see whether its server is up and the mount is alive"
    )
