"""The program of the runtime is found, or its tests skip with what to do."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tools.macp_runtime import build
from tools.support.macp_runtime import VERSION, runtime_program
from tools.support.programs import ProgramMissing


@pytest.fixture
def empty(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine with cargo, but without the runtime."""
    cargo = tmp_path / "bin" / "cargo"
    cargo.parent.mkdir()
    cargo.touch(0o755)
    monkeypatch.setenv("PATH", str(cargo.parent))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name in ("MACP_RUNTIME_BIN", "MACP_RUNTIME_BUILD_FAILED", "CI"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_what_was_built_is_found(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the cache, unless the variable names another."""
    built = empty / "macp-auth" / f"macp-runtime-{VERSION}" / "bin" / "macp-runtime"
    built.parent.mkdir(parents=True)
    built.touch()
    assert runtime_program() == built
    monkeypatch.setenv("MACP_RUNTIME_BIN", "/bin/sh")
    assert runtime_program() == Path("/bin/sh")


@pytest.mark.usefixtures("empty")
def test_without_it_tests_skip() -> None:
    """With the command that builds it."""
    with pytest.raises(ProgramMissing, match=r"run: make runtime \(needs cargo, and .*protobuf-compiler"):
        runtime_program()


def test_ci_fails_only_where_it_could_have_built_it(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With cargo it must be there; without, nothing can build it."""
    monkeypatch.setenv("CI", "true")
    with pytest.raises(AssertionError, match="make runtime"):
        runtime_program()
    monkeypatch.setenv("MACP_RUNTIME_BUILD_FAILED", "1")
    with pytest.raises(ProgramMissing, match="make runtime"):
        runtime_program()
    monkeypatch.delenv("MACP_RUNTIME_BUILD_FAILED")
    (empty / "bin" / "cargo").unlink()
    with pytest.raises(ProgramMissing):
        runtime_program()


def test_make_runtime_builds_it_once(
    empty: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """By cargo, into the cache; and it says what it needs."""
    with pytest.raises(SystemExit, match="needs cargo, and protoc of Debian's package protobuf-compiler"):
        build.main()
    cargo = empty / "bin" / "cargo"
    cargo.write_text('#!/bin/sh\necho "$@"\nmkdir -p "$9/bin" && echo > "$9/bin/macp-runtime"\n')
    shutil.copy(cargo, cargo.with_name("protoc"))
    monkeypatch.setenv("PATH", os.pathsep.join([str(cargo.parent), os.defpath]))
    build.main()
    expected = (
        f"install macp-runtime --version {VERSION} --debug --bin macp-runtime --root {empty}/macp-auth/"
    )
    assert expected in capfd.readouterr().out
    build.main()
    assert capfd.readouterr().out == f"{runtime_program()} is there\n"
