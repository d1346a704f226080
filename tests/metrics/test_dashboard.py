"""The Grafana dashboard: a real Prometheus has an answer for each panel, and the panels can be imported.

Grafana itself is not here. What it does with a panel is to put the variables into the expression, and to ask
Prometheus for it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

from macp_auth.adapters.callers.secret import digest_of, new_secret
from tests.docs.pages import ROOT
from tests.metrics.prometheus import JOB, NAMESPACE, Prometheus, Series
from tests.support.metrics import metrics_env
from tests.support.signers import example_signer, rotated_file
from tools.support import callers
from tools.support.openbao import OpenBao
from tools.support.processes import mint_bytes
from tools.support.service import Service, wait_until
from tools.support.tls import make_certificates
from tools.support.tls_service import TLSService, tls_settings
from tools.support.vault_environment import with_token
from tools.support.wire import exchange

pytestmark = pytest.mark.slow  # a Prometheus, and four services that it reads

DASHBOARD = json.loads((ROOT / "deploy/helm/macp-auth/dashboard.json").read_text())
SECRET = new_secret()
CREDENTIAL = ("Authorization", f"Bearer {SECRET}")
SEEN_SECONDS = 20  # a bound for a loaded machine; Prometheus scrapes each second
TARGETS = [
    pytest.param(target, id=f"{panel['title']} {target['refId']}")
    for panel in DASHBOARD["panels"]
    for target in panel.get("targets", ())
]


class Watched(Struct, frozen=True):
    """Services, and the Prometheus that has scraped them."""

    prometheus: Prometheus
    healthy: str
    """The instance whose answers were tokens, and refusals of what was wrong."""

    def ask(self, expression: str, job: str = f'job="{JOB}"') -> list[Series]:
        """Ask as Grafana does."""
        for variable, value in {"$namespace": NAMESPACE, 'job="$job"': job, "$__rate_interval": "1m"}.items():
            expression = expression.replace(variable, value)
        assert "$" not in expression
        return self.prometheus.query(expression)


def _reporting(directory: Path) -> dict[str, str]:
    """Settings of a service that reports what its callers file would refuse: each request of this test."""
    caller = f'[[caller]]\nname = "a"\nsecret_sha256 = "{digest_of(SECRET).hex()}"\n{callers.RISK}'
    caller = callers.UNREADABLE_ISSUER + caller
    return {**callers.write(directory / "callers.toml", caller), "MACP_AUTH_CALLERS_MODE": "report"}


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """Services with signers of each kind, and one with callers. In the end, Vault is sealed."""
    directory = tmp_path_factory.mktemp("dashboard")
    with ExitStack() as stack:
        bao = stack.enter_context(OpenBao(directory))
        bao.create_key("macp", "ecdsa-p256")
        settings = [with_token(bao, "macp"), example_signer(directory), _reporting(directory)]
        settings.append(rotated_file(directory))
        environments = [{**metrics_env(), "MACP_AUTH_WORKERS": "2", **each} for each in settings]
        services = [stack.enter_context(Service(directory, each)) for each in environments]
        ports = [int(each["MACP_AUTH_METRICS_PORT"]) for each in environments]
        certificates = make_certificates(directory)
        secured = {**metrics_env(), **tls_settings(certificates.pair)}
        stack.enter_context(TLSService(directory, certificates.ca, secured))
        ports.insert(0, int(secured["MACP_AUTH_METRICS_PORT"]))
        prometheus = stack.enter_context(Prometheus(directory, ports))
        # A rate needs two readings of a series, and one begins with what it counts.
        asked = ask_and_wait(prometheus, services)
        asked = ask_and_wait(prometheus, services, after=asked)
        bao.seal()
        asked = ask_and_wait(prometheus, services, after=asked)
        ask_and_wait(prometheus, services, after=asked)
        yield Watched(prometheus, f"localhost:{ports[-1]}")


def ask_and_wait(prometheus: Prometheus, services: list[Service], *, after: int = 0) -> int:
    """Ask each service for a token, a bad one and its keys; Prometheus has seen all of it then."""
    for service in services:
        exchange(service.port, mint_bytes(CREDENTIAL))
        assert exchange(service.port, mint_bytes(CREDENTIAL, body=b"{}")).status == 400
        service.jwks()
    seen = "sum(macp_auth_mints_total) + sum(macp_auth_jwks_requests_total)"
    asked = after + 3 * len(services)
    wait_until(
        lambda: [each.value for each in prometheus.query(seen)] == [asked],
        within=SEEN_SECONDS,
        what=f"{asked} requests are counted",
    )
    return asked


@pytest.mark.parametrize("target", TARGETS)
def test_every_panel_has_data(watched: Watched, target: dict[str, Any]) -> None:
    """Its expression is PromQL, gives numbers, and has the labels that the legend shows."""

    def is_drawn() -> bool:
        found = watched.ask(target["expr"])
        return bool(found) and all(each.value == each.value for each in found)

    wait_until(is_drawn, within=SEEN_SECONDS, what="there is data")
    legend = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
    assert all(legend <= each.labels.keys() for each in watched.ask(target["expr"]))


def test_a_service_without_a_failure_shows_none(watched: Watched) -> None:
    """Zero, where "No data" would look like a fault of the dashboard."""
    [failed] = [panel for panel in DASHBOARD["panels"] if panel["title"].startswith("Failed")]
    healthy = f'job="{JOB}", instance="{watched.healthy}"'
    assert [each.value for each in watched.ask(failed["targets"][0]["expr"], healthy)] == [0]


def test_the_variables_find_the_service(watched: Watched) -> None:
    """What may be chosen is what Prometheus has."""
    offered = {}
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            selector, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["definition"]).groups()  # type: ignore[union-attr]  # a failure, if it is another function
            offered[label] = watched.prometheus.label_values(selector.replace("$namespace", NAMESPACE), label)
    assert offered == {"namespace": [NAMESPACE], "job": [JOB]}


def test_every_alert_can_be_evaluated(watched: Watched) -> None:
    """With series of real services, and not of samples made up for it; a sealed Vault is noticed."""
    wait_until(
        lambda: all(rule["health"] != "unknown" for rule in watched.prometheus.rules().values()),
        within=SEEN_SECONDS,
        what="all were evaluated",
    )
    rules = watched.prometheus.rules()
    assert {name: rule["lastError"] for name, rule in rules.items() if rule["health"] != "ok"} == {}
    wait_until(
        lambda: watched.prometheus.rules()["MacpAuthWorkerNotReady"]["state"] == "pending",
        within=SEEN_SECONDS,
        what="the alert is pending",
    )


def test_it_can_be_imported() -> None:
    """It names no data source of its own, its panels have ids of their own and do not overlap."""
    assert set(_sources(DASHBOARD)) == {"${datasource}"}
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells


def test_no_colour_is_grafanas_own() -> None:
    """Where a panel chooses none, Grafana makes every number above 80 red: tokens a second, too."""
    coloured = [panel for panel in DASHBOARD["panels"] if panel["type"] in ("stat", "state-timeline")]
    assert coloured
    for panel in coloured:
        assert {"thresholds", "color", "mappings"} & panel["fieldConfig"]["defaults"].keys(), panel["title"]


def _sources(within: Any) -> Iterator[str]:
    if isinstance(within, dict):
        if "datasource" in within:
            yield within["datasource"]["uid"]
        within = list(within.values())
    if isinstance(within, list):
        for value in within:
            yield from _sources(value)
