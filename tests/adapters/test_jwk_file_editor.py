"""Changes of a keys file that are refused, and what the refusal says."""

from __future__ import annotations

import errno
import json
import os
import struct
import tempfile
import time
from pathlib import Path
from typing import Any, NoReturn

import pytest

from macp_auth.adapters import jose
from macp_auth.adapters.signers.jwk_file_editor import create_jwk_file, edit_jwk_file, new_jwk
from macp_auth.domain.errors import SignerMisconfigured
from macp_auth.domain.key_changes import UnsafeChange, plan_revocation, plan_rotation
from macp_auth.domain.keys import Algorithm
from macp_auth.domain.rotation import Timing

KEY = jose.generate(Algorithm.ES256)
NOW = time.time()
_SECRET = "A mounted Secret is read-only"


def test_a_folder_that_does_not_exist_is_called_so(tmp_path: Path) -> None:
    """Its cause is no read-only Secret, and nothing is made."""
    with pytest.raises(SignerMisconfigured, match="can't be written: there is no folder") as refused:
        create_jwk_file(tmp_path / "nofolder" / "keys.json", KEY, "a", NOW)
    assert str(tmp_path / "nofolder") in str(refused.value)
    assert _SECRET not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "hinted"),
    [(errno.EROFS, True), (errno.EACCES, True), (errno.EPERM, True), (errno.ENOSPC, False)],
    ids=errno.errorcode.get,
)
def test_a_folder_that_can_not_be_written_may_be_a_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, *, hinted: bool
) -> None:
    """A full disk is none."""

    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise OSError(number, "refused")

    monkeypatch.setattr(tempfile, "NamedTemporaryFile", refuse)
    with pytest.raises(SignerMisconfigured, match="can't be written: refused; nothing changed") as caught:
        create_jwk_file(tmp_path / "keys.json", KEY, "a", NOW)
    assert (_SECRET in str(caught.value)) is hinted


@pytest.mark.parametrize("kid", ["a\nb", "\x1b[31mred", "\u202eback"], ids=ascii)
def test_a_new_kid_is_printable(tmp_path: Path, kid: str) -> None:
    """It is shown in tables; a first key's and a later one's is, and a refused one is not echoed."""
    file = tmp_path / "keys.json"
    with pytest.raises(UnsafeChange, match="printable") as refused:
        create_jwk_file(file, KEY, kid, NOW)
    assert kid not in str(refused.value)
    assert not file.exists()
    create_jwk_file(file, KEY, "a", NOW)
    with edit_jwk_file(file) as editor:
        rotation = plan_rotation(editor.versions, Timing(publish_lead=100, retire_lag=50), NOW, None)
        with pytest.raises(UnsafeChange, match="printable"):
            editor.rotate(rotation, KEY, kid, NOW)


def rotate(file: Path) -> None:
    with edit_jwk_file(file) as editor:
        plan = plan_rotation(editor.versions, Timing(publish_lead=100, retire_lag=50), NOW, None)
        editor.rotate(plan, jose.generate(Algorithm.ES256), "b", NOW)
        editor.save()


ACL = "system.posix_acl_access"
_ANYBODY = 0xFFFFFFFF
READABLE_BY_12345 = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", tag, allowed, who)
    for tag, allowed, who in (
        (1, 6, _ANYBODY), (2, 4, 12345), (4, 0, _ANYBODY), (16, 4, _ANYBODY), (32, 0, _ANYBODY)
    )
)  # fmt: skip
"""user::rw-, user:12345:r--, group::---, mask::r--, other::---, as Linux stores it."""


@pytest.mark.parametrize("attribute", [(ACL, READABLE_BY_12345), ("user.team", b"a")], ids=["acl", "user"])
def test_extended_attributes_stay(tmp_path: Path, attribute: tuple[str, bytes]) -> None:
    """The access list among them; and none comes with the folder that the file did not have."""
    file = tmp_path / "keys.json"
    create_jwk_file(file, KEY, "a", NOW)
    name, value = attribute
    try:
        os.setxattr(file, name, value)
    except OSError as error:
        pytest.skip(f"the file system of {tmp_path} has no {name}: {error.strerror}")
    before = file.stat()
    rotate(file)
    assert os.getxattr(file, name) == value
    assert file.stat().st_mode == before.st_mode


def test_an_access_list_of_the_folder_opens_no_file(tmp_path: Path) -> None:
    """A default list of the folder is handed down to new files, but the file did not have it."""
    file = tmp_path / "keys.json"
    create_jwk_file(file, KEY, "a", NOW)
    file.chmod(0o640)
    try:
        os.setxattr(tmp_path, "system.posix_acl_default", READABLE_BY_12345)
    except OSError as error:
        pytest.skip(f"the file system of {tmp_path} has no access lists: {error.strerror}")
    rotate(file)
    assert ACL not in os.listxattr(file)
    assert file.stat().st_mode & 0o777 == 0o640


def test_a_file_that_can_not_be_given_its_owner_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing changes, nothing is left beside it, and the message says who may do it."""
    file = tmp_path / "keys.json"
    create_jwk_file(file, KEY, "a", NOW)
    before = file.read_bytes()

    def refuse(*_: Any) -> NoReturn:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "fchown", refuse)
    with pytest.raises(SignerMisconfigured, match="nothing changed. Run this as root or as the owner"):
        rotate(file)
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["keys.json"]


def test_a_change_is_planned_on_what_the_locked_file_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another command may change the file after it was first read, and before it is locked."""
    file = tmp_path / "keys.json"
    keys = [new_jwk(jose.generate(Algorithm.ES256), kid, issued_at=NOW - 1000) for kid in ("a", "b")]
    file.write_text(json.dumps({"keys": keys}))
    file.chmod(0o600)
    timing = Timing(publish_lead=100, retire_lag=50)

    def revoke(kid: str) -> None:
        with edit_jwk_file(file) as editor:
            editor.revoke(kid, plan_revocation(editor.versions, kid, timing, NOW))
            editor.save()

    opened = Path.open

    def open_late(path: Path, *args: Any, **options: Any) -> Any:
        monkeypatch.setattr(Path, "open", opened)
        revoke("a")
        return path.open(*args, **options)

    monkeypatch.setattr(Path, "open", open_late)
    with pytest.raises(UnsafeChange):
        revoke("b")
    assert [key["kid"] for key in json.loads(file.read_text())["keys"]] == ["b"]
