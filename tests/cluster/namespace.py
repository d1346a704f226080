"""A namespace of the cluster: kubectl and Helm in it."""

from __future__ import annotations

import json
import shlex
import subprocess
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self
from urllib.error import URLError

from tools.cluster.images import IMAGE
from tools.cluster.programs import Programs
from tools.generate.chart import CHART
from tools.support.service import wait_until

READY_SECONDS = 120  # a bound; a pod takes about 3
_HELM_SECONDS = 300  # a bound on one command
RELEASE = "macp-auth"
OUR_IMAGE = {"registry": "localhost", "repository": "macp-auth", "tag": IMAGE.rpartition(":")[2]}

Values = Mapping[str, Any]
Object = dict[str, Any]


class Namespace:
    """A namespace with the Pod Security level ``restricted``. Use as a context manager."""

    def __init__(self, name: str, programs: Programs) -> None:
        self.name = name
        self._programs = programs

    def __enter__(self) -> Self:
        labels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
        metadata = {"name": self.name, "labels": labels}
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        wait_until(
            lambda: self.exists("serviceaccount", "default"), within=READY_SECONDS, what="a ServiceAccount"
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.kubectl("delete", "namespace", self.name, "--wait=false")

    def kubectl(self, *args: str, text: str | None = None, within: float = 60) -> str:
        """What kubectl prints; fails the test if it refuses."""
        command: list[str | Path] = [self._programs.kubectl, "--namespace", self.name, *args]
        return _output(command, text, within)

    def apply(self, *objects: Object) -> None:
        for each in objects:
            self.kubectl("apply", "--filename", "-", text=json.dumps(each))

    def create_secret(self, name: str, files: Mapping[str, str]) -> None:
        self._create_files("Secret", name, files, "stringData")

    def create_config_map(self, name: str, files: Mapping[str, str]) -> None:
        self._create_files("ConfigMap", name, files, "data")

    def _create_files(self, kind: str, name: str, files: Mapping[str, str], member: str) -> None:
        self.apply({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, member: dict(files)})

    def get(self, kind: str, name: str) -> Object:
        found: Object = json.loads(self.kubectl("get", kind, name, "--output=json"))
        return found

    def all(self, kind: str, selector: str = "") -> list[Object]:
        chosen = [f"--selector={selector}"] if selector else []
        items: list[Object] = json.loads(self.kubectl("get", kind, *chosen, "--output=json"))["items"]
        return items

    def exists(self, kind: str, name: str) -> bool:
        return bool(self.kubectl("get", kind, name, "--ignore-not-found", "--output=name"))

    def pods(self) -> list[Object]:
        """The pods of the chart that are not about to stop."""
        found = self.all("pods", "app.kubernetes.io/name=macp-auth")
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def address(self, service: str) -> str:
        """The cluster address of a Service."""
        found: str = self.get("service", service)["spec"]["clusterIP"]
        return found

    def replicas(self) -> int:
        """How many pods the Deployment asks for."""
        found: int = self.get("deployment", RELEASE)["spec"]["replicas"]
        return found

    def token_reviewer(self) -> str:
        """A token of a ServiceAccount that may ask the API server whose a token is."""
        self.kubectl("create", "serviceaccount", "reviewer")
        self.kubectl(
            "create", "clusterrolebinding", f"reviewer-{self.name}",
            "--clusterrole=system:auth-delegator", f"--serviceaccount={self.name}:reviewer",
        )  # fmt: skip
        return self.kubectl("create", "token", "reviewer", "--duration=1h").strip()

    def helm(self, *args: str | Path, values: Values | None = None) -> str:
        """What Helm 4 prints."""
        return self._helm(self._programs.helm, *args, values=values)

    def helm3(self, *args: str | Path, values: Values | None = None) -> str:
        return self._helm(self._programs.helm3, *args, values=values)

    def _helm(self, program: Path, *args: str | Path, values: Values | None) -> str:
        more = ["--values", "-"] if values is not None else []
        text = None if values is None else json.dumps(values)
        return _output([program, "--namespace", self.name, *args, *more], text, _HELM_SECONDS)

    def upgrade(self, values: Values, *, files: Sequence[Path] = (), wait: bool = True) -> None:
        """Install or upgrade the release, with our image; ``values`` win over those of ``files``."""
        chosen = [part for file in files for part in ("--values", file)]
        waiting = ["--wait", f"--timeout={READY_SECONDS}s"] if wait else []
        self.helm(
            "upgrade", "--install", RELEASE, CHART, *chosen, *waiting,
            values={"image": OUR_IMAGE, **values},
        )  # fmt: skip

    def wait_until_rolled_out(self) -> None:
        """Wait until every pod is of the newest template and ready, and no other one is left."""
        timeout = f"--timeout={READY_SECONDS}s"
        self.kubectl("rollout", "status", f"deployment/{RELEASE}", timeout, within=READY_SECONDS + 30)
        wanted = self.replicas()
        wait_until(
            lambda: len(self.all("pods", "app.kubernetes.io/name=macp-auth")) == wanted,
            within=READY_SECONDS,
            what="the old pods are gone",
        )

    def wait_for_service(self) -> None:
        """Wait until the Service for callers answers: it is routed to pods after they are ready."""
        url = f"http://{self.address(RELEASE)}:3200/healthz"
        wait_until(lambda: answers(url), within=READY_SECONDS, what=url)

    def wait_for_end(self, pod: str) -> str:
        """Wait until a pod has ended, and return its log."""
        wait_until(
            lambda: self.phase(pod) in ("Succeeded", "Failed"), within=READY_SECONDS, what=f"{pod} ends"
        )
        return self.kubectl("logs", pod)

    def phase(self, pod: str) -> str:
        found: str = self.get("pod", pod)["status"]["phase"]
        return found


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except URLError:
        return False


def _output(command: Sequence[str | Path], text: str | None, within: float) -> str:
    run = subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=within)
    assert run.returncode == 0, f"{shlex.join(map(str, command))}\n{run.stdout}{run.stderr}"
    return run.stdout
