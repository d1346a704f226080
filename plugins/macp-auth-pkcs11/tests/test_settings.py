"""What is checked before the library is loaded."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from macp_auth import SignerMisconfigured, SignerUnavailable
from macp_auth_pkcs11.settings import PKCS11Settings, prepare, read_pin


def settings(tmp_path: Path, pin: bytes = b"4711\n", mode: int = 0o600) -> PKCS11Settings:
    module = tmp_path / "library.so"
    module.touch()
    pin_file = tmp_path / "pin"
    pin_file.write_bytes(pin)
    pin_file.chmod(mode)
    return PKCS11Settings(module=str(module), token_label="macp", pin_file=str(pin_file), key_label="macp")


def test_prepare_loads_nothing(tmp_path: Path) -> None:
    """A file that is no library passes: it is for the worker process to load, after the fork."""
    given = settings(tmp_path)
    assert pickle.loads(pickle.dumps(prepare(given))) == given  # noqa: S301 - as the host does


@pytest.mark.parametrize("folder", [False, True])
def test_missing_library_stops_the_start(tmp_path: Path, *, folder: bool) -> None:
    """A path without a file is named, with its variable; a folder is no file."""
    given = settings(tmp_path)
    Path(given.module).unlink()
    if folder:
        Path(given.module).mkdir()
    with pytest.raises(SignerMisconfigured, match="MACP_AUTH_PKCS11_MODULE: there is no file .*library.so"):
        prepare(given)


@pytest.mark.parametrize("mode", [0o604, 0o620, 0o602, 0o644, 0o601])
def test_pin_that_others_may_reach_stops_the_start(tmp_path: Path, mode: int) -> None:
    """A PIN file that others may read, or its group may write, is refused with its mode."""
    with pytest.raises(
        SignerMisconfigured, match=rf"MACP_AUTH_PKCS11_PIN_FILE: .* \(mode {mode:04o}\); chmod 600"
    ):
        prepare(settings(tmp_path, mode=mode))


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o440])
@pytest.mark.parametrize("pin", [b"4711", b"4711\n", b"4711\r\n"])
def test_pin_is_one_line(tmp_path: Path, pin: bytes, mode: int) -> None:
    """The PIN is the line without its end, and does not show in a repr."""
    read = read_pin(prepare(settings(tmp_path, pin, mode)).pin_file)
    assert read.reveal() == "4711"
    assert "4711" not in repr(read)


@pytest.mark.parametrize("pin", [b"", b"\n", b"4711\n4712\n", b"\xff4711", b"4711" * 300])
def test_file_that_holds_no_pin_is_refused(tmp_path: Path, pin: bytes) -> None:
    """An empty file, several lines, or another sort of file is no PIN; its content is not shown."""
    with pytest.raises(SignerMisconfigured, match=r"PIN on one line|over 1024 bytes") as caught:
        prepare(settings(tmp_path, pin))
    assert "4711" not in str(caught.value)


def test_pin_file_may_be_away_later(tmp_path: Path) -> None:
    """A missing PIN file stops the start-up; at a later login it is worth another try."""
    given = settings(tmp_path)
    Path(given.pin_file).unlink()
    with pytest.raises(SignerMisconfigured, match="PIN_FILE: .* can't be read: No such file"):
        prepare(given)
    with pytest.raises(SignerUnavailable, match="PIN_FILE: .* can't be read: No such file"):
        read_pin(given.pin_file)
