"""What others can do with a file, where the system does not say all of it."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any, NoReturn

import pytest

from macp_auth.adapters.input_file import Custody, InputFile, weaknesses_of


def test_a_folder_of_a_file_system_without_access_lists_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FUSE may not know of extended attributes."""
    folder = tmp_path / "keys"
    folder.mkdir()
    folder.chmod(0o775)
    if folder.stat().st_gid not in {0, os.geteuid()}:
        pytest.skip("this user has no group of its own number: run as root")
    file = folder / "keys.json"
    file.write_bytes(b"{}")
    file.chmod(0o600)

    def refuse(*_: Any) -> NoReturn:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(os, "listxattr", refuse, raising=False)
    assert InputFile(file, Custody.KEYS, 10).read().data == b"{}"


@pytest.mark.parametrize(
    ("euid", "remedy"),
    [(0, "run this as uid 12345"), (1000, "run as that user, or chown it")],
    ids=["root", "another"],
)
def test_the_file_of_another_user_is_left_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, euid: int, remedy: str
) -> None:
    """Root, who runs doctor for a service, would break the service by a chown."""
    file = tmp_path / "keys.json"
    file.touch(0o600)
    real = file.stat()
    foreign = os.stat_result((*real[:4], 12345, *real[5:10]))
    monkeypatch.setattr(os, "geteuid", lambda: euid)
    [weakness] = weaknesses_of(foreign, {0, euid})
    assert weakness.remedy == remedy
