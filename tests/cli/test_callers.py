"""``macp-auth callers``: what the file says, what would be minted, and a new secret."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from macp_auth.adapters.callers.file import parse_callers
from macp_auth.domain.diagnosis import Status
from macp_auth.domain.ttl import TTLPolicy
from macp_auth.entrypoints.cli.caller_findings import warnings_of
from tools.support.bounded import HANG_SECONDS
from tools.support.service import clean_environment

ISSUER = '[[issuer]]\nname = "cluster"\nissuer = "https://k"\naudience = "a"\njwks_file = "/keys.json"\n'
PROXY = '[proxy]\nclient_certificate_header = "x-forwarded-client-cert"\n'
BY_NAME = '[[caller]]\nname = "playground"\ndns_name = "playground.macp.svc"\n'
BY_SECRET = f'[[caller]]\nname = "playground"\nsecret_sha256 = "{"0" * 64}"\n'
PLAYGROUND = '[[caller]]\nname = "playground"\nspiffe_id = "spiffe://example.org/playground"\n'
GRANT = """
[[caller.grant]]
senders = ["risk-agent", "fraud-*"]
audiences = ["macp-runtime", "other"]
max_ttl_seconds = 900
scopes = { allowed_modes = ["macp.mode.decision.v1", ""], can_start_sessions = true, max_open_sessions = 4 }
"""
GOOD = PLAYGROUND + GRANT


def run(*args: str | Path, stdout: Any = subprocess.PIPE, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "macp_auth", "callers", *args],
        env=clean_environment(env), stdout=stdout, stderr=subprocess.PIPE, text=True,
        timeout=HANG_SECONDS, check=False,
    )  # fmt: skip


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "callers.toml"
    path.touch(mode=0o600)
    path.write_text(GOOD)
    return path


# --- check --------------------------------------------------------------------------------------------


def test_a_good_file(file: Path) -> None:
    """What is in it, in one line, and no warning."""
    shown = run("check", file)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout == "ok    callers            1 caller (1 by certificate), 1 grant, 0 issuers\n"


def test_a_file_that_the_service_could_not_use(file: Path) -> None:
    """The service's own words, and exit status 2."""
    file.write_text(GOOD.replace("senders", "sender"))
    refused = run("check", file)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith(
        f"macp-auth: {file}: caller[0].grant[0] (caller playground): unknown key sender; "
    )
    file.chmod(0o666)
    assert "it is writable by group or others" in run("check", file).stderr


def test_the_defaults_are_those_of_the_environment(file: Path) -> None:
    """What a shorter maximum makes of the file is a warning; the output is the same as JSON."""
    shown = run("check", file, "--json", MACP_AUTH_MAX_TTL_SECONDS="600")
    assert shown.returncode == 0
    summary, found = json.loads(shown.stdout)
    assert summary["status"] == "ok"
    assert found == {
        "check": "callers",
        "status": "warning",
        "text": "max_ttl_seconds of grant playground/1 has no effect: all tokens live 600 s at most",
        "remedy": "lower it, or raise MACP_AUTH_MAX_TTL_SECONDS",
    }


def warned(text: str) -> list[str]:
    """The warnings of a file, without their remedies."""
    parsed = parse_callers(text.encode(), "F", audience="macp-runtime", max_ttl_seconds=3600)
    found = list(warnings_of(parsed, TTLPolicy(default=300, maximum=3600)))
    assert all(finding.status is Status.WARNING and finding.remedy for finding in found)
    return [finding.text for finding in found]


SCOPES = "scopes.is_observer = true\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (GOOD, []),
        (
            f'{GOOD}[[caller.grant]]\nsenders = ["fraud-eu-*", "risk-agent"]\n{SCOPES}',
            ["grant playground/2 never decides: earlier ones match its senders, such as playground/1"],
        ),
        (f'{GOOD}[[caller.grant]]\nsenders = ["fraud-eu-*", "*"]\n{SCOPES}', []),
        (
            f'{PLAYGROUND}[[caller.grant]]\nsenders = ["a", "*"]\nscopes.can_manage_mode_registry = true\n',
            ["grant playground/1 allows can_manage_mode_registry for any sender"],
        ),
        (f'{PLAYGROUND}[[caller.grant]]\nsenders = ["a*"]\nscopes.can_manage_mode_registry = true\n', []),
        (
            f'{PLAYGROUND}[[caller.grant]]\nname = "rest"\nsenders = ["a"]\n',
            ["grant playground/rest has no scopes, so its tokens allow nothing"],
        ),
        (
            f'{PLAYGROUND}[[caller.grant]]\nsenders = ["a"]\nmax_ttl_seconds = 3601\n{SCOPES}',
            ["max_ttl_seconds of grant playground/1 has no effect: all tokens live 3600 s at most"],
        ),
        (PLAYGROUND, ["caller playground has no grant, so it can mint nothing"]),
        (ISSUER + GOOD, ["no caller has a JWT of issuer cluster"]),
        (PROXY + BY_NAME + GRANT, []),
        (
            PROXY + BY_SECRET + GRANT,
            ["[proxy] has no effect: no caller has a spiffe_id or a dns_name"],
        ),
    ],
)
def test_likely_mistakes(text: str, expected: list[str]) -> None:
    """Parts without effect, and grants that allow too much or nothing."""
    assert warned(text) == expected


# --- explain ------------------------------------------------------------------------------------------


def explain(file: Path, *args: str, **env: str) -> tuple[int, dict[str, Any]]:
    """The exit status and the answer."""
    shown = run("explain", file, "--caller", "playground", "--json", *args, **env)
    assert shown.stderr == ""
    return shown.returncode, json.loads(shown.stdout)


def test_what_would_be_minted(file: Path) -> None:
    """The grant, and what it leaves of the request."""
    assert explain(file, "--sender", "fraud-1", "--ttl", "3600", "--scopes", '{"max_open_sessions": 2}') == (
        0,
        {
            "grant": "playground/1",
            "audience": "macp-runtime",
            "ttl_seconds": 900,
            "scopes": {
                "can_start_sessions": True,
                "can_manage_mode_registry": False,
                "is_observer": False,
                "max_open_sessions": 2,
                "allowed_modes": ["macp.mode.decision.v1", ""],
            },
        },
    )
    shown = run("explain", file, "--caller", "playground", "--sender", "risk-agent", "--audience", "other")
    assert shown.returncode == 0
    assert shown.stdout.startswith(
        'grant        playground/1\naudience     other\nttl_seconds  300\nscopes       {"can_'
    )


@pytest.mark.parametrize(
    ("args", "reason", "grant"),
    [
        (["--sender", "fraud"], "no-grant", None),
        (["--sender", "risk-agent", "--audience", "x"], "audience-not-granted", "playground/1"),
        (
            ["--sender", "risk-agent", "--scopes", '{"is_observer": true}'],
            "scope-not-granted",
            "playground/1",
        ),
        (["--sender", "risk-agent", "--scopes", "[]"], "invalid-scopes", None),
        (["--sender", "risk-agent", "--ttl", "0"], "invalid-ttl", None),
        (["--sender", "risk-agent\n"], "invalid-sender", None),
    ],
)
def test_why_nothing_would_be_minted(file: Path, args: list[str], reason: str, grant: str | None) -> None:
    """The service's word and its message, and exit status 1."""
    status, answer = explain(file, *args)
    assert (status, answer["reason"], answer["grant"]) == (1, reason, grant)
    assert answer["error"]


def test_the_settings_of_the_environment_decide(file: Path) -> None:
    """Those that the service has."""
    limited = explain(file, "--sender", "fraud-1", MACP_AUTH_DEFAULT_TTL_SECONDS="9")[1]
    assert limited["ttl_seconds"] == 9
    refused = explain(file, "--sender", "fraud-1", MACP_AUTH_SENDER_PATTERN="risk-.*")
    assert (refused[0], refused[1]["reason"]) == (1, "invalid-sender")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--caller", "other"], "Invalid value for --caller: no caller of "),
        (["--caller", "playground", "--scopes", "{"], "Invalid value for '--scopes': not JSON"),
        (["--caller", "playground", "--scopes", "[" * 10_000], "Invalid value for '--scopes': not JSON"),
        (
            ["--caller", "playground", "--scopes", '{"is_observer": true, "is_observer": false}'],
            "Invalid value for '--scopes': not JSON",
        ),
    ],
)
def test_a_question_that_makes_no_sense(file: Path, args: list[str], said: str) -> None:
    """Exit status 2: a mistyped name is no refusal."""
    refused = run("explain", file, "--sender", "a", *args)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert said in refused.stderr


# --- secret -------------------------------------------------------------------------------------------


def test_a_new_secret() -> None:
    """Alone on standard output; its line for the file is beside it; the next one is another."""
    made, other = run("secret"), run("secret")
    assert made.returncode == 0
    digest = hashlib.sha256(made.stdout.rstrip("\n").encode()).hexdigest()
    assert made.stderr == f'secret_sha256 = "{digest}"\n'
    assert made.stdout != other.stdout
    parse_callers(f'[[caller]]\nname = "a"\n{made.stderr}'.encode(), "F", audience="a", max_ttl_seconds=3600)


def test_a_new_secret_as_json() -> None:
    """Both members, and nothing on standard error."""
    made = run("secret", "--json")
    assert made.stderr == ""
    members = json.loads(made.stdout)
    assert members["secret_sha256"] == hashlib.sha256(members["secret"].encode()).hexdigest()


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o640, True), (0o604, True)])
def test_a_secret_in_a_file_that_others_can_access(tmp_path: Path, mode: int, *, warned: bool) -> None:
    """A shell makes the file, so the command can only say that it is too late for this one."""
    path = tmp_path / "secret"
    path.touch()
    path.chmod(mode)
    with path.open("w") as output:
        made = run("secret", stdout=output)
    assert made.returncode == 0
    assert ("set umask 077" in made.stderr) is warned
    assert path.read_text().startswith("macp_")
