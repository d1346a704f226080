"""The directory in which workers count: made for one service, and swept after one that was killed."""

from __future__ import annotations

import stat
import tempfile
from pathlib import Path

import pytest

from macp_auth.domain.errors import ConfigurationError
from macp_auth.entrypoints.server import shared_directory as module
from macp_auth.entrypoints.server.shared_directory import shared_directory


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place of the test's own, where no other service sweeps."""
    monkeypatch.setattr(module, "_IN_MEMORY", tmp_path)
    return tmp_path


def test_it_is_there_for_as_long_as_it_is_used(memory: Path) -> None:
    """Only its owner can read it."""
    with shared_directory() as made:
        (made / "1.cells").write_bytes(b"x")
        assert made.parent == memory
        assert stat.S_IMODE(made.stat().st_mode) == 0o700
    assert list(memory.iterdir()) == []


def test_what_a_killed_service_left_is_swept(memory: Path) -> None:
    """And nothing else: locked directories stay, and those of other software."""
    left, other = memory / "macp-auth-metrics-left", memory / "macp-auth-other"
    for each in (left, other):
        each.mkdir()
        (each / "1.cells").write_bytes(b"x")
    with shared_directory() as held, shared_directory() as made:
        assert sorted(memory.iterdir()) == sorted([other, held, made])


def test_without_memory_it_is_a_temporary_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no /dev/shm, as on macOS."""
    monkeypatch.setattr(module, "_IN_MEMORY", tmp_path / "absent")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with shared_directory() as made:
        assert made.parent == tmp_path


def test_without_any_place_the_variable_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service does not start, and says what to mount or to set."""

    def nowhere() -> str:
        raise FileNotFoundError

    monkeypatch.setattr(module, "_IN_MEMORY", tmp_path / "absent")
    monkeypatch.setattr(tempfile, "gettempdir", nowhere)
    with pytest.raises(ConfigurationError, match=r"MACP_AUTH_METRICS_PORT .* set TMPDIR"), shared_directory():
        pass
