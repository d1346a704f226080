"""Edits a private JWK Set file atomically, under a lock.

Unknown members are kept. So are the file's owner, group, mode and extended attributes, including its
access list: the service may run as a different user from the command.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from macp_auth.adapters import jose
from macp_auth.adapters.input_file import leads_to
from macp_auth.adapters.signers.jwk_document import DEFAULT_KID
from macp_auth.adapters.signers.jwk_file import parse_keys, read_keys_file, version_of
from macp_auth.domain.errors import SignerMisconfigured
from macp_auth.domain.key_changes import Revocation, Rotation, UnsafeChange
from macp_auth.domain.keys import KeyVersion

_OWNER_ONLY = 0o600
_OF_CONTENT = {"security.ima", "security.evm"}
"""Attributes derived from a file's content: the system sets them for a new file."""
_READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}


class JWKFileEditor:
    """An open, locked keys file."""

    def __init__(
        self, path: Path, descriptor: int, versions: list[KeyVersion], jwks: list[dict[str, Any]]
    ) -> None:
        self._path = path
        self._descriptor = descriptor
        self._jwks = jwks
        self.versions = versions

    def rotate(self, rotation: Rotation, new: jose.PrivateKey, kid: str, now: float) -> None:
        """Add ``new``, let the retiring key expire, and remove those that have left the JWKS.

        Raises:
            UnsafeChange: the kid is not printable, or is already in use.
        """
        _check_printable(kid)
        if any(_kid(jwk) == kid for jwk in self._jwks):
            raise UnsafeChange(f"a kid is never used again, and {kid!r} names another key; leave --kid out")
        gone = {version.kid for version in rotation.gone}
        kept = [jwk for jwk in self._jwks if _kid(jwk) not in gone]
        for jwk in kept:
            if _kid(jwk) == rotation.retiring.kid:
                jwk["exp"] = rotation.retiring_leaves
        self._jwks = [*kept, new_jwk(new, kid, issued_at=now, not_before=rotation.signs_from)]

    def revoke(self, kid: str, revocation: Revocation) -> None:
        """Remove ``kid`` and those that have left the JWKS, and the expiry of the key that signs on."""
        out = {kid, *(version.kid for version in revocation.gone)}
        self._jwks = [jwk for jwk in self._jwks if _kid(jwk) not in out]
        for jwk in self._jwks:
            if _kid(jwk) == revocation.carries_on:
                jwk.pop("exp", None)

    def save(self) -> None:
        """Replace the file with the changed one.

        Raises:
            SignerMisconfigured: the folder can't be written, or the new file can't get the owner, group, mode
                and access list of the old one.
        """
        _write(self._path, self._jwks, self._descriptor)


@contextmanager
def edit_jwk_file(path: Path) -> Iterator[JWKFileEditor]:
    """Open ``path`` for one change.

    Raises:
        SignerUnavailable: it can't be read.
        SignerMisconfigured: it is not a valid keys file, or another command is changing it.
    """
    path = path.resolve()  # replace the file itself, not a symbolic link to it
    read_keys_file(path)  # rejects unsafe and invalid files
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise SignerMisconfigured(f"{path} is being changed by another command; try again") from None
        if not leads_to(path, file.fileno()):
            raise SignerMisconfigured(f"{path} was changed a moment ago; try again")
        # From here on, no other command can change the file, so read it again.
        data = file.read()
        versions = [version_of(jwk) for jwk in parse_keys(data, str(path))]
        document = json.loads(data)
        yield JWKFileEditor(path, file.fileno(), versions, document.get("keys", [document]))


def create_jwk_file(path: Path, key: jose.PrivateKey, kid: str, now: float) -> None:
    """Create ``path``, readable by its owner only, with a first key.

    Raises:
        UnsafeChange: the kid is not printable.
        SignerMisconfigured: the folder can't be written.
    """
    _check_printable(kid)
    _write(path, [new_jwk(key, kid, issued_at=now)])


def new_jwk(
    key: jose.PrivateKey, kid: str, *, issued_at: float | None = None, not_before: float | None = None
) -> dict[str, Any]:
    """Return the private JWK of a new key, with its times in whole seconds."""
    times = {"iat": issued_at, "nbf": not_before}
    return {
        **jose.private_jwk(key),
        "kid": kid,
        "alg": jose.algorithm_of(key).value,
        "use": "sig",
        **{name: int(value) for name, value in times.items() if value is not None},
    }


def _write(path: Path, jwks: list[dict[str, Any]], old: int | None = None) -> None:
    """Write a new file beside ``path``, then replace it atomically.

    Only the owner can read the new file, unless an ``old`` one is open: then it gets the same permissions.
    """
    try:
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            beside = Path(file.name)
            try:
                json.dump({"keys": jwks}, file, indent=2)
                file.write("\n")
                file.flush()
                os.fsync(file.fileno())
                if old is None:
                    beside.chmod(_OWNER_ONLY)
                else:
                    _give(path, file.fileno(), old)
                beside.replace(path)
            except BaseException:
                beside.unlink()
                raise
    except FileNotFoundError:
        raise SignerMisconfigured(
            f"{path} can't be written: there is no folder {path.parent}; create it first"
        ) from None
    except OSError as error:
        text = f"{path} can't be written: {error.strerror}; nothing changed"
        if error.errno in _READ_ONLY:
            text += ". (A mounted Secret is read-only: change a copy of it, and update the Secret from that.)"
        raise SignerMisconfigured(text) from None


def _give(path: Path, new: int, old: int) -> None:
    """Give the new file the owner, group, mode and attributes of the old one.

    Raises:
        SignerMisconfigured: that is not allowed.
    """
    status = os.fstat(old)
    try:
        os.fchown(new, status.st_uid, status.st_gid)
        os.fchmod(new, stat.S_IMODE(status.st_mode))
        _copy_attributes(new, old)
    except OSError as error:
        raise SignerMisconfigured(
            f"{path} belongs to uid {status.st_uid} and gid {status.st_gid}, and the new file can't be given "
            f"its owner, group, mode and access list ({error.strerror}), so the service might not read it; "
            "nothing changed. Run this as root or as the owner"
        ) from None


def _copy_attributes(new: int, old: int) -> None:
    """Copy the extended attributes of the old file, and remove others inherited from the folder."""
    if not hasattr(os, "listxattr"):
        return
    wanted, found = _attributes(old), _attributes(new)
    for name in found.keys() - wanted.keys():
        os.removexattr(new, name)
    for name, value in wanted.items():
        if found.get(name) != value:
            os.setxattr(new, name, value)


def _attributes(descriptor: int) -> dict[str, bytes]:
    try:
        names = os.listxattr(descriptor)
    except OSError as error:
        if error.errno == errno.ENOTSUP:  # not supported here
            return {}
        raise
    return {name: os.getxattr(descriptor, name) for name in names if name not in _OF_CONTENT}


def _check_printable(kid: str) -> None:
    """Reject a new kid that could break a table; existing ones are accepted."""
    if not kid.isprintable():
        raise UnsafeChange("a new kid must be printable: it is shown in tables; choose another --kid")


def _kid(jwk: dict[str, Any]) -> Any:
    return jwk.get("kid", DEFAULT_KID)
