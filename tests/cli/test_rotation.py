"""``macp-auth rotation``, as a shell user sees it."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tools.support.bounded import HANG_SECONDS
from tools.support.service import clean_environment

SVG = "{http://www.w3.org/2000/svg}"
FEW = ("--verifiers", "50", "--rotations", "1")


def run(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "macp_auth", "rotation", *args]
    return subprocess.run(
        command, env=clean_environment(env), capture_output=True, text=True, timeout=HANG_SECONDS, check=False
    )


# --- plan ----------------------------------------------------------------------------------------------


def test_plan_for_the_runtime() -> None:
    """The defaults: what the runtime needs, why, and how to set it; the service's own are enough."""
    planned = run("plan")
    assert (planned.returncode, planned.stderr) == (0, "")
    lines = [line.strip() for line in planned.stdout.splitlines()]
    assert lines[0] == "macp-runtime"
    assert lines[1].startswith("publish lead: 30 (replica refresh) + ")
    assert [line.rsplit("= ", 1)[1] for line in lines[1:3]] == ["4025 s", "3720 s"]
    assert lines[3].startswith("revocation bound: 30 (replica refresh)")
    assert lines[4].startswith("revocation bound, fetches blocked: 30 (replica refresh)")
    assert "MACP_AUTH_KEY_PUBLISH_LEAD_SECONDS=4025" in lines
    assert "MACP_AUTH_KEY_RETIRE_LAG_SECONDS=3720" in lines
    assert lines[-2:] == ["Configured: publish lead 4500 s, retire lag 3720 s", "macp-runtime: enough"]


def test_plan_for_several_verifiers() -> None:
    """The longest of each counts; who is not served by what is configured is named, and by how much."""
    planned = run("plan", "--verifier", "istio", "--verifier", "envoy", "--custom", "gateway:60:0")
    assert planned.returncode == 1
    assert "revocation bound, fetches blocked: no bound" in planned.stdout
    assert "For all of them: publish lead 606125 s, retire lag 3720 s" in planned.stdout
    assert planned.stdout.splitlines()[-3:] == [
        "  istio: publish lead 601625 s too short",
        "  envoy: enough",
        "  gateway: enough",
    ]


@pytest.mark.parametrize(
    "args",
    [
        ["--verifier", "macp-runtime"],
        ["--verifier", "istio", "--verifier", "envoy", "--verifier", "jose"],
        ["--verifier", "pyjwt"],
        ["--verifier", "go-oidc"],
        ["--custom", "gateway:7200:600"],
    ],
)
def test_planned_settings_satisfy_the_plan(args: list[str]) -> None:
    """With the printed variables set, the service takes them, and they are enough."""
    planned = json.loads(run("plan", *args, "--json").stdout)
    settings = {name: str(value) for name, value in planned["settings"].items()}
    again = run("plan", *args, "--json", **settings)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["configured"] == {
        "publish_lead": planned["publish_lead"],
        "retire_lag": planned["retire_lag"],
    }


def test_plan_takes_the_services_own_terms_from_the_environment() -> None:
    planned = json.loads(run("plan", "--json", MACP_AUTH_KEY_REFRESH_SECONDS="60").stdout)
    assert (planned["publish_lead"], planned["retire_lag"]) == (4055, 3750)


@pytest.mark.parametrize("command", ["plan", "simulate"])
@pytest.mark.parametrize(
    ("name", "value"),
    [("MACP_AUTH_KEY_PUBLISH_LEAD_SECONDS", "10"), ("MACP_AUTH_KEY_REFRESH_SECONDS", "soon")],
)
def test_settings_that_cannot_work(command: str, name: str, value: str) -> None:
    """Named, as the service names them when it starts."""
    refused = run(command, **{name: value})
    assert (refused.returncode, refused.stdout) == (2, "")
    assert name in refused.stderr


@pytest.mark.parametrize(
    "args",
    [
        ["plan", "--verifier", "nobody"],
        ["plan", "--custom", "gateway"],
        ["plan", "--custom", "gateway:60"],
        ["plan", "--custom", "gateway:60:-1"],
        ["plan", "--custom", ":60:0"],
        ["simulate", "--verifier", "nobody"],
        ["simulate", "--verifiers", "0"],
        ["simulate", "--revocations"],
        ["simulate", "--lead", "-1"],
    ],
)
def test_bad_options(args: list[str]) -> None:
    refused = run(*args)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert args[1] in refused.stderr


# --- simulate ------------------------------------------------------------------------------------------


def test_simulation_of_the_planned_lead() -> None:
    """Nothing lost; a row a key shows when it signs."""
    simulated = run("simulate", *FEW, "--lead", "4025")
    assert (simulated.returncode, simulated.stderr) == (0, "")
    lines = simulated.stdout.splitlines()
    assert lines[0] == "52 verifiers, 1 rotation, publish lead 4025 s, retire lag 3720 s"
    rows = {line.split()[0]: line.split()[1] for line in lines[2:4]}
    assert rows["key-1"].strip("#-") == rows["key-2"].strip(".#") == ""
    assert rows["key-1"].startswith("#")
    assert rows["key-2"].startswith(".")
    assert "wrongly rejected: 0" in lines


@pytest.mark.parametrize(
    ("option", "value", "kid"), [("--lead", "4024", "key-2"), ("--lag", "3719", "key-1")]
)
def test_simulation_of_a_second_too_little(option: str, value: str, kid: str) -> None:
    """Exit 1, and the story."""
    simulated = run("simulate", *FEW, option, value)
    assert simulated.returncode == 1
    assert "wrongly rejected: 1\n" in simulated.stdout
    story = simulated.stdout.split("Events before the first failure")[1].splitlines()
    assert story[-1].endswith(f"the verifier (macp-runtime) rejects the token: it does not have {kid}")


def test_simulation_of_a_revocation() -> None:
    """The latest acceptance stands next to the bound, for verifiers that can fetch and for blocked ones."""
    simulated = run("simulate", *FEW, "--revoke")
    assert simulated.returncode == 0
    assert "accepted after revocation: " in simulated.stdout
    assert "macp-runtime: at the latest 39" in simulated.stdout
    assert "macp-runtime, fetches blocked: at the latest 399" in simulated.stdout
    assert "x" in simulated.stdout.splitlines()[3].removeprefix("key-2")


def test_simulation_for_machines_is_the_same_for_the_same_seed() -> None:
    first, second, other = (
        run("simulate", *FEW, "--lead", "60", "--json", "--seed", seed) for seed in ("1", "1", "2")
    )
    assert first.stdout == second.stdout != other.stdout
    report = json.loads(first.stdout)
    assert report["wrongly_rejected"] > 0
    assert report["first_failure"]["trace"][-1][1].endswith("does not have key-2")


def test_a_picture_of_a_simulation(tmp_path: Path) -> None:
    """The states of each key, the lead and the lag, the outage, and the key that was revoked."""
    picture = tmp_path / "rotations.svg"
    simulated = run("simulate", *FEW, "--revoke", "--json", "--svg", str(picture))
    assert simulated.returncode == 0
    assert json.loads(simulated.stdout)["wrongly_rejected"] == 0
    texts = ["".join(each.itertext()) for each in ET.parse(picture).iter(f"{SVG}text")]  # noqa: S314 - our own
    assert {"key-1", "key-2", "publish lead 1h 15m", "retire lag 1h 2m", "outage: no verifier can fetch"} <= {
        *texts
    }
    words = ["pre-activation", "active", "deactivated", "revoked"]
    in_bars = [text for text in texts if text in words]
    assert in_bars == ["active", "deactivated", "active", "pre-activation", "active", "revoked"]


def test_simulation_knows_other_verifiers_skews_and_outages() -> None:
    """Clocks twice as far apart as the policy allows for are seen to fail."""
    options = ("--verifier", "envoy", "--outages", "0", "--outage-rate", "0")
    assert run("simulate", *FEW, *options, "--lead", "725").returncode == 0
    assert run("simulate", *FEW, *options, "--lead", "725", "--skew", "60").returncode == 1
