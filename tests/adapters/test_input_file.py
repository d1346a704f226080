"""What others can do with a file, where the system does not say all of it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from macp_auth.adapters.input_file import Custody, InputFile, file_version, leads_to, weaknesses_of
from tools.support.service import wait_until

SOON = 5.0


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


def write(path: Path) -> None:
    path.write_bytes(b"new")


def write_and_hide(path: Path) -> None:
    """With the time of modification put back."""
    before = path.stat()
    path.write_bytes(b"new")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def change_mode(path: Path) -> None:
    path.chmod(path.stat().st_mode ^ 0o040)


def replace(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    other.replace(path)


@pytest.mark.parametrize("change", [write, write_and_hide, change_mode, replace, Path.unlink])
def test_a_change_of_a_file_is_another_version(tmp_path: Path, change: Callable[[Path], None]) -> None:
    """Also behind a symbolic link; a check changes nothing."""
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_bytes(b"old")
    link.symlink_to(file)
    before = file_version(link)
    assert before == file_version(file) is not None

    def is_another() -> bool:
        change(file)
        return file_version(link) != before

    wait_until(is_another, within=SOON, what="the clock of the file system has moved")


def test_a_file_that_was_moved_or_replaced_is_no_longer_there(tmp_path: Path) -> None:
    """Written in place, it still is."""
    file = tmp_path / "file"
    file.write_bytes(b"old")
    with file.open("rb") as opened:
        write(file)
        assert leads_to(file, opened.fileno())
        replace(file)
        assert not leads_to(file, opened.fileno())
        file.unlink()
        assert not leads_to(file, opened.fileno())
