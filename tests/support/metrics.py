"""Scrapes a service as Prometheus does, and reads what comes with the parser of another project."""

from __future__ import annotations

import urllib.request

from msgspec import Struct
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from tools.support.bounded import HANG_SECONDS
from tools.support.service import Service, free_port

Labels = tuple[str, ...]


def metrics_env() -> dict[str, str]:
    """Metrics on a free port."""
    return {"MACP_AUTH_METRICS_PORT": str(free_port())}


class Scrape(Struct, frozen=True):
    """One answer."""

    text: str
    families: dict[str, Metric]

    def values(self, sample: str, *labels: str) -> dict[Labels, float]:
        """Every value of a sample, by these of its labels."""
        return {
            tuple(each.labels[label] for label in labels): each.value
            for family in self.families.values()
            for each in family.samples
            if each.name == sample
        }

    def value(self, sample: str, **labels: str) -> float:
        """The one value of a sample with exactly these labels."""
        [value] = [
            each.value
            for family in self.families.values()
            for each in family.samples
            if each.name == sample and labels.items() <= each.labels.items()
        ]
        return value


def scrape(service: Service) -> Scrape:
    """Ask for the metrics, on the port that the log names."""
    [port] = [event["port"] for event in service.events if event["event"] == "metrics"]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=HANG_SECONDS) as response:
        assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
        text = response.read().decode()
    return Scrape(text, {family.name: family for family in text_string_to_metric_families(text)})
