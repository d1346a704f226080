"""The real helm and kubectl, and what the chart renders."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from msgspec import Struct

from tests.docs.pages import ROOT
from tools.generate.chart import CHART
from tools.support.helm_programs import helm_and_kubectl

REQUIRED = CHART / "ci/default-values.yaml"
"""Without these, nothing is rendered."""
EXAMPLES = sorted((ROOT / "deploy/helm/examples").glob("*.yaml"))

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
        self,
        *files: Path,
        values: Values | None = None,
        kubernetes: str = "1.34",
        release: str = "macp-auth",
        namespace: str = "default",
        tests: bool = False,
    ) -> list[Manifest]:
        """What the chart makes of the values; with ``tests``, also what `helm test` makes."""
        options = ["--namespace", namespace, "--kube-version", kubernetes, *_values(REQUIRED, *files)]
        options += [] if tests else ["--skip-tests"]
        run = self.run("template", release, CHART, *options, values=values)
        assert run.returncode == 0, run.stderr
        return [manifest for manifest in yaml.safe_load_all(run.stdout) if manifest]

    def refusal(self, values: Values, *files: Path, release: str = "macp-auth") -> str:
        """Why the chart refuses the values, which win over those of files."""
        run = self.run("template", release, CHART, *_values(REQUIRED, *files), values=values)
        assert run.returncode != 0, "the chart took it"
        return run.stderr

    def notes(self, *files: Path, values: Values | None = None) -> str:
        """The notes that Helm prints after an installation."""
        options = ["--dry-run=client", *_values(REQUIRED, *files)]
        run = self.run("install", "macp-auth", CHART, *options, values=values)
        assert run.returncode == 0, run.stderr
        return run.stdout.partition("\nNOTES:\n")[2]


def _values(*files: Path) -> list[str | Path]:
    return [argument for file in files for argument in ("--values", file)]


def find_tools() -> Tools:
    return Tools(*helm_and_kubectl())


def only(manifests: list[Manifest], kind: str) -> Manifest:
    """The one manifest of that kind."""
    [found] = [manifest for manifest in manifests if manifest["kind"] == kind]
    return found


def pod_spec(manifests: list[Manifest]) -> Manifest:
    spec: Manifest = only(manifests, "Deployment")["spec"]["template"]["spec"]
    return spec
