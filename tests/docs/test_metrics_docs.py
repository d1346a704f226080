"""docs/metrics.md has every metric that services tell, and no other; rules and dashboard use no other either.

What a service tells depends on its signer, so several are asked.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

import macp_auth.entrypoints.composition  # noqa: F401 - brings in every module that defines an error
from macp_auth.adapters.callers.secret import digest_of, new_secret
from macp_auth.adapters.metrics.meter import MAX_GRANTS
from macp_auth.domain.errors import InvalidRequest
from macp_auth.entrypoints.http.errors import BROWSER, REASONS
from tests.docs.pages import ROOT, blocks, plain, read, rows, section, slug, without_blocks
from tests.metrics.prometheus import RULES
from tests.support.metrics import Scrape, metrics_env, scrape
from tests.support.signers import example_signer, rotated_file
from tools.support import callers
from tools.support.bounded import HANG_SECONDS
from tools.support.openbao import OpenBao
from tools.support.programs import require_tool
from tools.support.service import Service, wait_until
from tools.support.tls import make_certificates
from tools.support.tls_service import TLSService, tls_settings
from tools.support.vault_environment import with_token

PAGE = read("docs/metrics.md")
RULES_TEST = ROOT / "tests" / "deploy" / "rules.test.yaml"
DASHBOARD = ROOT / "deploy/helm/macp-auth/dashboard.json"
Labels = frozenset[str]
SECRET = new_secret()
CALLERS = f"""{callers.UNREADABLE_ISSUER}
[[caller]]
name = "a"
secret_sha256 = "{digest_of(SECRET).hex()}"
{callers.RISK}"""


def documented() -> dict[str, tuple[str, Labels]]:
    """Type and labels of each metric, as the page has them."""
    return {
        plain(name): (kind, frozenset(plain(labels).split(", ")) - {""})
        for name, kind, labels, _ in (row for row in rows(PAGE) if row[0].startswith("`macp_auth_"))
    }


def alerts() -> dict[str, Any]:
    return {rule["alert"]: rule for rule in yaml.safe_load(RULES.read_text())["groups"][0]["rules"]}


def names_in(expression: str) -> set[str]:
    """The metrics that an expression asks for, without what Prometheus appends for a histogram."""
    return {
        re.sub(r"_(bucket|sum|count)$", "", name)
        for name in re.findall(r"\b(?:macp_auth|kube)_[a-z0-9_]+", expression)
    }


@pytest.fixture(scope="module")
def scrapes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Scrape]]:
    """One of a service with each kind of signer; that of Vault is asked again once Vault is sealed."""
    directory = tmp_path_factory.mktemp("metrics")
    with ExitStack() as stack:
        bao = stack.enter_context(OpenBao(directory))
        bao.create_key("macp", "ecdsa-p256")
        signers = [with_token(bao, "macp"), example_signer(directory), rotated_file(directory)]
        services = [
            stack.enter_context(Service(directory, {**metrics_env(), **signer})) for signer in signers
        ]
        callers_env = {
            **callers.write(directory / "callers.toml", CALLERS),
            "MACP_AUTH_CALLERS_MODE": "report",
        }
        reporting = stack.enter_context(Service(directory, {**metrics_env(), **callers_env}))
        callers.mint(reporting.port, {"sender": "risk-agent"})
        callers.mint(reporting.port, {"sender": "risk-agent"}, bearer=SECRET)
        certificates = make_certificates(directory)
        secured = stack.enter_context(
            TLSService(directory, certificates.ca, {**metrics_env(), **tls_settings(certificates.pair)})
        )
        for service in services:
            service.mint()
            service.jwks()
            wait_until(
                lambda asked=service: is_ready(asked), within=HANG_SECONDS, what="it says that it is ready"
            )
        found = [scrape(service) for service in services]
        wait_until(
            lambda: "macp_auth_signer_signatures_in_flight" in scrape(services[1]).families,
            within=HANG_SECONDS,
            what="the plugin is asked",
        )
        found.append(scrape(services[1]))
        wait_until(lambda: is_ready(secured), within=HANG_SECONDS, what="it says that it is ready")
        found.append(scrape(secured))
        wait_until(lambda: is_ready(reporting), within=HANG_SECONDS, what="it says that it is ready")
        found.append(scrape(reporting))
        bao.client().sys.seal()
        wait_until(
            lambda: scrape(services[0]).values("macp_auth_not_ready", "reason") == {("sealed",): 1},
            within=HANG_SECONDS,
            what="it says that Vault is sealed",
        )
        yield [*found, scrape(services[0])]


def is_ready(service: Service) -> bool:
    return scrape(service).values("macp_auth_ready", "worker") == {("0",): 1}


def test_the_page_has_what_services_tell_and_no_more(scrapes: list[Scrape]) -> None:
    """Every metric by its name, type and labels."""
    exposed: dict[str, tuple[str, Labels]] = {}
    for found in scrapes:
        for family in found.families.values():
            name = f"{family.name}_total" if family.type == "counter" else family.name
            labels: Labels = frozenset().union(*(sample.labels for sample in family.samples))
            if family.samples:
                exposed[name] = (family.type, labels - {"le"})
    assert exposed == documented()


def test_what_was_done_is_what_is_exposed(scrapes: list[Scrape]) -> None:
    """A call to Vault, its login, and why it signs no more."""
    before, *_, after = scrapes
    assert before.value("macp_auth_signer_batch_size_count", signer="vault-transit") >= 1
    assert before.value("macp_auth_signer_logins_total") == 1
    assert before.value("macp_auth_signer_credential_seconds_left", worker="0") > 0
    assert after.values("macp_auth_not_ready", "reason") == {("sealed",): 1}


def test_each_state_of_a_rotation_is_exposed(scrapes: list[Scrape]) -> None:
    """The key that signs, the one that will, and when."""
    rotated = scrapes[2]
    states = {state: kid for kid, state in rotated.values("macp_auth_key_state", "kid", "state")}
    assert states.keys() == {"active", "pre-activation"}
    changes = rotated.values("macp_auth_key_next_change_timestamp_seconds", "kid")
    created = rotated.values("macp_auth_key_created_timestamp_seconds", "kid")
    lead = changes[states["pre-activation"],] - created[states["pre-activation"],]
    assert 4500 <= lead <= 4502  # whole seconds


@pytest.mark.parametrize("arguments", [["check", "rules", RULES], ["test", "rules", RULES_TEST]])
def test_promtool_accepts_the_alerts(arguments: list[str | Path]) -> None:
    """Their syntax, and what each does with recorded samples."""
    promtool = require_tool("promtool", "prometheus")
    ran = subprocess.run([promtool, *arguments], capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_every_alert_is_tested() -> None:
    """One that no sample sets off may never fire."""
    fired = set(re.findall(r"alertname[=:] ?\"?(\w+)", RULES_TEST.read_text()))
    assert fired == alerts().keys()


def test_every_alert_leads_to_a_procedure() -> None:
    """The page and the heading that it names are there, and the list of the runbook leads to the same."""
    listed = {
        alert: links
        for names, links in rows(section(read("docs/runbook.md"), "When an alert fires"))
        for alert in plain(names).split(", ")
    }
    assert listed.keys() == alerts().keys()
    for name, alert in alerts().items():
        page, _, anchor = alert["annotations"]["runbook"].partition("#")
        headings = re.findall(r"^#+ (.+)$", without_blocks(read(page)), re.MULTILINE)
        assert anchor in {slug(heading) for heading in headings}, name
        assert f"#{anchor})" in listed[name], name


def test_the_page_lists_the_alerts() -> None:
    """All of them, and no other."""
    listed = [name for row in rows(section(PAGE, "Alerts")) for name in plain(row[0]).split(", ")]
    assert sorted(listed) == sorted(alerts())


def test_alerts_ask_for_metrics_that_there_are() -> None:
    """Ours are on the page; the others are of kube-state-metrics."""
    asked = set().union(*(names_in(alert["expr"]) for alert in alerts().values()))
    kube = {"kube_deployment_status_replicas_ready", "kube_deployment_spec_replicas"}
    assert asked - kube <= documented().keys()


def test_the_command_that_names_a_service_works(tmp_path: Path) -> None:
    """As the page shows it, outside of Kubernetes."""
    [command] = [block.text for block in blocks(section(PAGE, "Alerts")) if block.language == "sh"]
    (tmp_path / "deploy").symlink_to(ROOT / "deploy")
    subprocess.run(["sh", "-ec", command], cwd=tmp_path, check=True, timeout=HANG_SECONDS)
    named = (tmp_path / "macp-auth.rules.yaml").read_text()
    rules = yaml.safe_load(named)["groups"][0]["rules"]
    assert not any("RELEASE_" in rule["expr"] for rule in rules)
    assert all('namespace="production"' in rule["expr"] for rule in rules)


def test_the_dashboard_asks_for_metrics_that_there_are() -> None:
    """Each of its expressions, and every metric of the page has a place on it, but for constants."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    asked = set().union(*(names_in(each["expr"]) for panel in panels for each in panel.get("targets", ())))
    constants = {
        "macp_auth_start_time_seconds", "macp_auth_workers", "macp_auth_key_refresh_interval_seconds",
        "macp_auth_tls_certificate_not_before_timestamp_seconds",
    }  # fmt: skip
    assert asked == documented().keys() - constants


def test_the_page_s_outcomes_are_the_code_s() -> None:
    """Every reason for which a request is refused is listed."""

    def reasons(kind: type[InvalidRequest]) -> Iterator[str]:
        for each in kind.__subclasses__():
            yield each.reason
            yield from reasons(each)

    [refused] = [row for row in rows(section(PAGE, "Outcomes")) if row[0] == "`refused`"]
    listed, _, rest = refused[1].partition("; ")
    assert "callers.md#reasons" in rest
    assert set(plain(listed).split(", ")) == {*reasons(InvalidRequest), *REASONS.values(), BROWSER}


def test_the_number_of_grants_is_the_code_s() -> None:
    """Beyond it, time series are not added."""
    assert f"A worker distinguishes {MAX_GRANTS} pairs of caller and grant" in PAGE
