"""The unit tests, and a service, on each other Python that macp-auth supports and this machine has.

Each Python gets an environment in .cache/pythons, with the locked versions of what these tests import.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_TESTS = (
    *("tests/domain", "tests/application", "tests/adapters", "tests/http"),
    "tests/process/test_workers.py::test_each_worker_s_tokens_verify_with_the_other_s_keys",
)
_LEFT_OUT = "tests/http/test_openapi.py"  # schemathesis has 60 dependencies
_PACKAGES = ("hypothesis", "joserfc", "psutil", "pyjwt", "pytest", "pytest-timeout", "pytest-xdist")


def supported() -> list[str]:
    """The versions that pyproject.toml names, such as "3.11"."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    return re.findall(r'"Programming Language :: Python :: (3\.\d+)"', text)


def find(version: str) -> str | None:
    """An interpreter of ``version``, on the path or of pyenv."""
    of_pyenv = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python3"))
    for candidate in (shutil.which(f"python{version}"), *map(str, of_pyenv)):
        # A shim of pyenv is on the path also where its version is not selected.
        if candidate and subprocess.run([candidate, "-V"], capture_output=True, check=False).returncode == 0:
            return candidate
    return None


def passes(interpreter: str, version: str, uv: str) -> bool:
    """Whether the tests pass on ``interpreter``."""
    environment = ROOT / ".cache/pythons" / version
    python = str(environment / "bin/python")
    subprocess.run([uv, "venv", "--quiet", "--clear", "--python", interpreter, str(environment)], check=True)
    install = [uv, "pip", "install", "--quiet", "--python", python]
    for arguments in (
        ["--no-deps", "--requirements=requirements/runtime.txt", "--requirements=requirements/build.txt"],
        ["--constraints=requirements/dev.txt", *_PACKAGES],
        ["--no-deps", "--no-build-isolation", "--editable=.", "--editable=src/macp_auth/plugin_template"],
    ):
        subprocess.run([*install, *arguments], check=True, cwd=ROOT)
    pytest = [python, "-m", "pytest", "--quiet", "--numprocesses=2", "--dist=worksteal"]
    return subprocess.run([*pytest, f"--ignore={_LEFT_OUT}", *_TESTS], check=False, cwd=ROOT).returncode == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--uv", type=Path, required=True, help="the program uv")
    uv = str(parser.parse_args().uv.absolute())
    passed = {}
    for version in supported():
        if sys.version.startswith(f"{version}."):
            continue  # make test
        if (interpreter := find(version)) is None:
            print(f"Python {version}: not on this machine", flush=True)
            continue
        print(f"Python {version}: {interpreter}", flush=True)
        passed[version] = passes(interpreter, version, uv)
    print(
        "".join(f"Python {version}: {'passed' if good else 'FAILED'}\n" for version, good in passed.items())
    )
    sys.exit(not all(passed.values()))


if __name__ == "__main__":
    main()
