"""The plugin template, as its author's first user has it: installed into an environment of its own."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tools.support.service import Service
from tools.support.verifiers import verify_with_pyjwt

ROOT = Path(__file__).parents[2]
TEMPLATE = ROOT / "plugins" / "template"
FOR_TESTS = {"iniconfig", "joserfc", "packaging", "pygments", "pytest"}
"""What the template's tests need besides what macp-auth needs, dependencies included."""
INSTALL_SECONDS = 240
pytestmark = pytest.mark.timeout(INSTALL_SECONDS + 60)


def _run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with macp-auth, its locked requirements, the template, and what its tests need."""
    directory = tmp_path_factory.mktemp("clean")
    locked = (ROOT / "requirements" / "dev.txt").read_text(encoding="utf-8")
    wanted = [entry for entry in re.split(r"\n(?=\S)", locked) if entry.split("==")[0] in FOR_TESTS]
    assert len(wanted) == len(FOR_TESTS)
    (directory / "tests.txt").write_text("\n".join(wanted))

    _run(sys.executable, "-m", "venv", "--without-pip", "venv", cwd=directory)
    python = directory / "venv" / "bin" / "python"
    pip: list[str | Path] = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    # Built here, where hatchling is: the clean environment has nothing that its users do not get.
    _run(*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", "wheels", ROOT, TEMPLATE, cwd=directory)
    into = [*pip, "--python", python, "install"]
    runtime = ROOT / "requirements" / "runtime.txt"
    _run(*into, "--require-hashes", "--no-deps", "-r", runtime, "-r", "tests.txt", cwd=directory)
    _run(*into, "--no-index", "--no-deps", *directory.glob("wheels/*.whl"), cwd=directory)
    return python


def test_its_tests_pass_there(python: Path, tmp_path: Path) -> None:
    """A copy of the directory is all that an author needs."""
    copy = shutil.copytree(TEMPLATE, tmp_path / "template", ignore=shutil.ignore_patterns("__pycache__"))
    found = _run(python, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", cwd=copy)
    assert re.search(r"^\d+ passed", found, re.MULTILINE), found


def test_service_mints_with_it(python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service finds the installed signer by its name, and its token verifies."""
    key = ec.generate_private_key(ec.SECP256R1())
    path = tmp_path / "key.pem"
    path.touch(0o600)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    monkeypatch.setattr(sys, "executable", str(python))  # with which Service runs the service
    with Service(
        tmp_path, {"MACP_AUTH_SIGNER": "example", "MACP_AUTH_EXAMPLE_KEY_FILE": str(path)}
    ) as service:
        token = service.mint(sender="agent://risk")["token"]
        assert verify_with_pyjwt(token, service.jwks())["sub"] == "agent://risk"
