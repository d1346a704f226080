"""Changes of a keys file that are refused, and what the refusal says."""

from __future__ import annotations

import errno
import tempfile
import time
from pathlib import Path
from typing import Any, NoReturn

import pytest

from macp_auth.adapters import jose
from macp_auth.adapters.jwk_file_editor import create_jwk_file, edit_jwk_file
from macp_auth.domain.errors import SignerMisconfigured
from macp_auth.domain.key_changes import UnsafeChange, plan_rotation
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
    with pytest.raises(SignerMisconfigured, match="can't be written: refused; nothing changed") as told:
        create_jwk_file(tmp_path / "keys.json", KEY, "a", NOW)
    assert (_SECRET in str(told.value)) is hinted


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
