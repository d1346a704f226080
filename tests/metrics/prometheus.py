"""A real Prometheus, which scrapes services as docs/metrics.md says, and evaluates the alerts."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import requests
import yaml
from msgspec import Struct

from tests.docs.pages import ROOT, blocks, read, section
from tools.support.bounded import HANG_SECONDS
from tools.support.programs import require_tool
from tools.support.service import free_port, wait_until

NAMESPACE, JOB = "production", "macp-auth"
RULES = ROOT / "deploy" / "helm" / "macp-auth" / "rules.yaml"
_START_SECONDS = 20  # a bound for a loaded machine; it takes one


class Series(Struct, frozen=True):
    """One element of an answer."""

    labels: dict[str, str]
    value: float


class Prometheus:
    """A running Prometheus on loopback. Use as a context manager; it is gone afterwards.

    Args:
        directory: where its files go.
        ports: of the metrics of the services that it scrapes, each second.
    """

    def __init__(self, directory: Path, ports: Iterable[int]) -> None:
        self._program = require_tool("prometheus", "prometheus")
        self._directory = directory / "prometheus"
        self._directory.mkdir()
        self._address = f"127.0.0.1:{free_port()}"
        self._log_path = self._directory / "log"
        (self._directory / "rules.yaml").write_text(
            RULES.read_text().replace("RELEASE_NAMESPACE", NAMESPACE).replace("RELEASE_FULLNAME", JOB)
        )
        (self._directory / "prometheus.yaml").write_text(yaml.safe_dump(_configuration(ports)))

    def __enter__(self) -> Self:
        with self._log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    self._program,
                    f"--config.file={self._directory / 'prometheus.yaml'}",
                    f"--storage.tsdb.path={self._directory / 'data'}",
                    f"--web.listen-address={self._address}",
                    "--log.level=warn",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            wait_until(self._is_ready, within=_START_SECONDS, what="Prometheus is ready")
        except AssertionError as error:
            self.__exit__()
            error.add_note(self._log_path.read_text())
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def query(self, expression: str) -> list[Series]:
        """What the expression is now; fails the test if Prometheus refuses it."""
        result = self._get("query", {"query": expression})["result"]
        return [Series(each["metric"], float(each["value"][1])) for each in result]

    def label_values(self, selector: str, label: str) -> list[str]:
        """What Grafana offers for its variable ``label_values(selector, label)``."""
        values: list[str] = self._get(f"label/{label}/values", {"match[]": selector})
        return values

    def rules(self) -> dict[str, dict[str, Any]]:
        """Each alert, with its state and how its evaluation went."""
        [group] = self._get("rules", {})["groups"]
        return {rule["name"]: rule for rule in group["rules"]}

    def _get(self, path: str, parameters: Mapping[str, str]) -> Any:
        answer = requests.get(
            f"http://{self._address}/api/v1/{path}", params=parameters, timeout=HANG_SECONDS
        ).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    def _is_ready(self) -> bool:
        assert self._process.poll() is None, "Prometheus ended"
        try:
            return requests.get(f"http://{self._address}/-/ready", timeout=HANG_SECONDS).ok
        except requests.ConnectionError:
            return False


def _configuration(ports: Iterable[int]) -> dict[str, Any]:
    [page] = [
        block.text
        for block in blocks(section(read("docs/metrics.md"), "Scraping"))
        if block.language == "yaml"
    ]
    configuration: dict[str, Any] = yaml.safe_load(page)
    [targets] = configuration["scrape_configs"][0]["static_configs"]
    assert (configuration["scrape_configs"][0]["job_name"], targets["labels"]["namespace"]) == (
        JOB,
        NAMESPACE,
    )
    targets["targets"] = [f"localhost:{port}" for port in ports]
    often = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    return {"global": often, "rule_files": ["rules.yaml"], **configuration}
