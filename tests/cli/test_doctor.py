"""``macp-auth doctor``, for any signer: the settings, what verifiers expect, and a signer that misbehaves."""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from macp_auth.adapters.callers import issuer_keys
from macp_auth.adapters.hookspecs import hookimpl
from macp_auth.adapters.plugins import load_signer_plugin
from macp_auth.adapters.signers import jwk_file
from macp_auth.domain.diagnosis import Finding, Status, failure, ok
from macp_auth.domain.errors import SignerRefused
from macp_auth.domain.policy import MACP_RUNTIME, VERIFIERS, RotationPolicy, Verifier
from macp_auth.entrypoints.cli import diagnosis as doctor
from macp_auth.entrypoints.cli.diagnosis import Check, Expected
from tests.support import jwks
from tests.support.fake_server import FakeServer, Reply
from tools.support import callers
from tools.support.bounded import HANG_SECONDS
from tools.support.service import clean_environment
from tools.support.tls import Authority, make_certificates
from tools.support.tls_service import tls_settings


def run(env: dict[str, str], *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "macp_auth", "doctor", *args]
    return subprocess.run(
        command, env=clean_environment(env), capture_output=True, text=True, timeout=30, check=False
    )


def examined(env: dict[str, str], *verifiers: Verifier, **expected: str) -> list[Finding]:
    return list(doctor.diagnose(env, Expected(verifiers=verifiers or (MACP_RUNTIME,), **expected)))


def faults(found: Iterable[Finding]) -> list[tuple[str, Status]]:
    return [(finding.check, finding.status) for finding in found if finding.status is not Status.OK]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The variables of a service that is fit to go live."""
    file = tmp_path_factory.mktemp("keys") / "keys.json"
    subprocess.run(
        [sys.executable, "-m", "macp_auth", "keys", "rotate", file, "--alg", "ES256"],
        env=clean_environment(),
        check=True,
        capture_output=True,
        timeout=30,
    )
    return {"MACP_AUTH_SIGNER": "jwk-file", "MACP_AUTH_SIGNING_KEYS_FILE": str(file)}


# --- the command --------------------------------------------------------------------------------------


def test_a_deployment_that_is_fit_to_go_live(good: dict[str, str]) -> None:
    """Exit 0, a line a check in order, nothing on standard error, and nothing of the private key."""
    done = run(good)
    assert (done.returncode, done.stderr) == (0, "")
    *lines, empty, verdict = done.stdout.splitlines()
    assert (empty, verdict) == ("", "0 failures, 0 warnings")
    silent = {
        Check.AUDIT,
        Check.VARIABLES,
        Check.SIGNER,
        Check.ADDRESSES,
        Check.TRANSPORT,
        Check.SENDERS,
        Check.CALLERS,
        Check.CALLER_KEYS,
        Check.CERTIFICATE,
    }
    checks = [check for check in Check if check not in silent]
    assert [line.split()[:2] for line in lines] == [["ok", check] for check in checks]
    for key in json.loads(Path(good["MACP_AUTH_SIGNING_KEYS_FILE"]).read_text())["keys"]:
        assert key["d"] not in done.stdout


def test_an_ephemeral_key_is_not_fit() -> None:
    """Exit 1; the remedy is below the finding; what works is said all the same."""
    done = run({})
    assert done.returncode == 1
    assert "FAIL  signer             the ephemeral key is lost when the service stops" in done.stdout
    assert "\n      -> MACP_AUTH_SIGNER=vault-transit" in done.stdout
    assert "\nok    signature " in done.stdout
    assert done.stdout.endswith("\n1 failure, 0 warnings\n")


def test_warnings_fail_only_where_that_is_asked_for(good: dict[str, str]) -> None:
    """For a pipeline that wants a clean sheet: --strict."""
    misspelt = {**good, "MACP_AUTH_ISUER": "x"}
    assert run(misspelt).returncode == 0
    strict = run(misspelt, "--strict")
    assert strict.returncode == 1
    assert "WARN  variables          MACP_AUTH_ISUER is set, but nothing reads it" in strict.stdout


def test_client_certificates_answer_for_an_open_port(good: dict[str, str], tmp_path: Path) -> None:
    """A client needs a certificate to get a token."""
    made = make_certificates(tmp_path)
    tls = {
        "MACP_AUTH_HOST": "0.0.0.0",
        "MACP_AUTH_TLS_CERT_FILE": str(made.certificate),
        "MACP_AUTH_TLS_KEY_FILE": str(made.key),
        "MACP_AUTH_TLS_CLIENT_CA_FILE": str(made.ca),
    }
    assert "and a token needs a client certificate" in run({**good, **tls}, "--strict").stdout


def test_json(good: dict[str, str]) -> None:
    """For machines: a list of findings with the same members, and the same exit status."""
    done = run({**good, "MACP_AUTH_HOST": "0.0.0.0"}, "--json", "--issuer", "elsewhere")
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert all(list(finding) == ["check", "status", "text", "remedy"] for finding in found)
    statuses = {finding["check"]: finding["status"] for finding in found}
    assert (statuses["exposure"], statuses["issuer"], statuses["signature"]) == ("warning", "failure", "ok")
    [remedy] = [finding["remedy"] for finding in found if finding["check"] == "issuer"]
    assert remedy == "MACP_AUTH_ISSUER=elsewhere"


@pytest.mark.parametrize("args", [["--verifier", "netscape"], ["--custom", "x"], ["now"]])
def test_bad_options(args: list[str]) -> None:
    """Exit 2, as a command line does, and no finding."""
    refused = run({}, *args)
    assert (refused.returncode, refused.stdout) == (2, "")


# --- the settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"MACP_AUTH_AUDIT_LOG": "/nowhere/audit.log"}, "MACP_AUTH_AUDIT_LOG"),
        ({"MACP_AUTH_AUDIT_LOG": "/"}, "MACP_AUTH_AUDIT_LOG"),
        ({"MACP_AUTH_AUDIT_LOG": "/" + "x" * 300}, "File name too long"),
        ({"MACP_AUTH_HOST": "no-such-host.invalid"}, "MACP_AUTH_HOST"),
        ({"MACP_AUTH_METRICS_PORT": "9", "MACP_AUTH_METRICS_HOST": "a..b"}, "MACP_AUTH_METRICS_HOST"),
        ({"MACP_AUTH_METRICS_PORT": "3200"}, "MACP_AUTH_METRICS_PORT"),
    ],
)
def test_what_only_the_start_would_find_out(good: dict[str, str], wrong: dict[str, str], named: str) -> None:
    """Where the service would write, and where it would listen."""
    [found] = examined({**good, **wrong})
    assert (found.check, found.status) == (Check.CONFIGURATION, Status.FAILURE)
    assert named in found.text


def test_an_audit_log_that_is_not_there_yet_is_not_made(good: dict[str, str], tmp_path: Path) -> None:
    """It would belong to who examines, and the service could not append to it."""
    path = tmp_path / "audit.log"
    assert examined({**good, "MACP_AUTH_AUDIT_LOG": str(path)})[0].status is Status.OK
    assert not path.exists()


def test_a_configuration_that_can_t_work_is_the_only_finding() -> None:
    """The text names the variable, and not its value."""
    [finding] = examined({"MACP_AUTH_WORKERS": "s3cret"})
    assert (finding.check, finding.status) == (Check.CONFIGURATION, Status.FAILURE)
    assert "MACP_AUTH_WORKERS must be a whole number" in finding.text
    assert "s3cret" not in str(finding)


@pytest.mark.parametrize(
    ("env", "check"),
    [
        ({"MACP_AUTH_MAX_TTL_SECONDS": "7200", "MACP_AUTH_DEFAULT_TTL_SECONDS": "3601"}, Check.LIFETIME),
        ({"MACP_AUTH_MAX_TTL_SECONDS": "86401"}, Check.LIFETIME),
    ],
)
def test_settings_that_deserve_a_warning(good: dict[str, str], env: dict[str, str], check: Check) -> None:
    """They work, and the remedy says what would be better."""
    found = examined({**good, **env})
    assert faults(found) == [(check, Status.WARNING)]
    assert next(finding.remedy for finding in found if finding.check == check)


@pytest.mark.parametrize(
    "env",
    [
        {"MACP_AUTH_HOST": "::1"},
        {"MACP_AUTH_HOST": "localhost"},
        {"MACP_AUTH_MAX_TTL_SECONDS": "86400", "MACP_AUTH_DEFAULT_TTL_SECONDS": "3600"},
    ],
)
def test_settings_that_deserve_none(good: dict[str, str], env: dict[str, str]) -> None:
    """The edges of what is sensible."""
    assert faults(examined({**good, **env})) == []


@pytest.mark.parametrize(("claim", "check"), [("issuer", Check.ISSUER), ("audience", Check.AUDIENCE)])
def test_what_verifiers_expect_is_compared(good: dict[str, str], claim: str, check: Check) -> None:
    """To the letter; and where nothing is known of them, the text says what they need."""
    env = {**good, f"MACP_AUTH_{claim.upper()}": "risk"}
    assert faults(examined(env, **{claim: "risk"})) == []
    assert faults(examined(env, **{claim: "Risk"})) == [(check, Status.FAILURE)]
    [finding] = [finding for finding in examined(env) if finding.check == check]
    assert f"the MACP runtime needs MACP_AUTH_{claim.upper()}=risk" in finding.text


def test_each_verifier_is_asked_what_it_needs(good: dict[str, str]) -> None:
    """One that needs more than is configured is a failure, and the remedy says how much."""
    gateway = Verifier(name="gateway", cache_ttl=6000, stale_grace=0)
    found = examined(good, MACP_RUNTIME, VERIFIERS["istio"], gateway)
    assert faults(found) == 2 * [(Check.VERIFIER, Status.FAILURE)]
    remedies = [finding.remedy for finding in found if finding.status is Status.FAILURE]
    assert remedies == [
        "macp-auth rotation plan --verifier istio prints the variables to set",
        "macp-auth rotation plan --custom gateway:6000:0 prints the variables to set",
    ]


def test_the_retire_lag_counts_too(good: dict[str, str]) -> None:
    """A verifier with more leeway than is configured keeps accepting tokens after their key has left."""
    lenient = replace(MACP_RUNTIME, leeway=61)
    assert faults(examined(good, lenient)) == [(Check.VERIFIER, Status.FAILURE)]


# --- the signer ---------------------------------------------------------------------------------------


def test_keys_that_can_t_be_read(good: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The signer's own words say why, and no signature is tried."""

    async def key_versions(_: object) -> list[Any]:
        raise SignerRefused("it does not want to")

    monkeypatch.setattr(jwk_file.JWKFileSigner, "key_versions", key_versions)
    last = examined(good)[-1]
    assert (last.check, last.status, last.text) == (Check.KEYS, Status.FAILURE, "it does not want to")


def test_a_signature_that_does_not_verify(good: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A signer of our own is not believed either."""

    async def sign(*_: object) -> bytes:
        return b"x" * 64

    monkeypatch.setattr(jwk_file.JWKFileSigner, "sign", sign)
    assert faults(examined(good)) == [(Check.SIGNATURE, Status.FAILURE)]


def install(monkeypatch: pytest.MonkeyPatch, **fields: Any) -> None:
    """Have the signer jwk-file be another plugin."""
    plugin = replace(load_signer_plugin("jwk-file"), **fields)
    monkeypatch.setattr(jwk_file, "macp_auth_signer", hookimpl(lambda: plugin))


def test_a_signer_s_own_findings_come_first(good: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """It is given its state and the rotation policy; then it is tried as the service does."""
    given: list[Any] = []

    def diagnose(state: Any, policy: RotationPolicy) -> list[Finding]:
        given.extend([state, policy])
        return [ok("battery", "full")]

    install(monkeypatch, diagnose=diagnose)
    checks = [finding.check for finding in examined(good)]
    assert checks[-3:] == ["battery", Check.KEYS, Check.SIGNATURE]
    assert given[1].timing.publish_lead == 4500


def test_a_failure_of_its_own_is_enough(good: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What it says is better than that there is no signature, which is not said again."""
    install(monkeypatch, diagnose=lambda *_: [failure("battery", "empty", "charge it")])
    assert examined(good)[-1] == failure("battery", "empty", "charge it")


def _refuses(*_: object) -> Iterator[Finding]:
    yield ok("battery", "full")
    raise SignerRefused("it does not want to")


def _breaks(*_: object) -> Iterator[Finding]:
    yield ok("battery", "full")
    raise RuntimeError("the password is s3cret")


@pytest.mark.parametrize(("diagnose", "text"), [(_refuses, "it does not want to"), (_breaks, "RuntimeError")])
def test_an_examination_that_breaks_is_a_finding(
    good: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    diagnose: Callable[..., Iterator[Finding]],
    text: str,
) -> None:
    """What it found before stays, and the text of an exception that is no error of ours is not shown."""
    install(monkeypatch, diagnose=diagnose)
    *_, battery, broken = examined(good)
    assert battery.check == "battery"
    assert (broken.check, broken.status) == (Check.SIGNER, Status.FAILURE)
    assert text in broken.text
    assert "s3cret" not in str(broken)


def test_an_examination_that_hangs_is_left(good: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The command ends in time, with what was found until then."""

    def hang(*_: object) -> Iterator[Finding]:
        yield ok("battery", "full")
        time.sleep(60)

    install(monkeypatch, diagnose=hang)
    monkeypatch.setattr(doctor, "SECONDS", 0.3)
    begun = time.monotonic()
    *_, battery, late = examined(good)
    assert time.monotonic() - begun < HANG_SECONDS
    assert (battery.check, late.check, late.status) == ("battery", Check.SIGNER, Status.FAILURE)


# --- exposure and certificates --------------------------------------------------------------------------

EVERYWHERE = {"MACP_AUTH_HOST": "0.0.0.0"}


def exposure(env: dict[str, str]) -> list[tuple[str, Status]]:
    checks = {Check.EXPOSURE, Check.ADDRESSES, Check.TRANSPORT, Check.SENDERS, Check.CERTIFICATE}
    return [fault for fault in faults(examined(env)) if fault[0] in checks]


def test_each_way_to_be_exposed_is_a_finding_of_its_own(good: dict[str, str]) -> None:
    """On all addresses, over plain HTTP, without authentication."""
    assert exposure(good | EVERYWHERE) == [
        (Check.EXPOSURE, Status.WARNING),
        (Check.ADDRESSES, Status.WARNING),
        (Check.TRANSPORT, Status.WARNING),
    ]
    far = good | {"MACP_AUTH_HOST": "192.0.2.1"}
    assert exposure(far) == [(Check.EXPOSURE, Status.WARNING), (Check.TRANSPORT, Status.WARNING)]
    metrics = {"MACP_AUTH_METRICS_PORT": "9464", "MACP_AUTH_METRICS_HOST": "::"}
    assert exposure(good | metrics) == [(Check.ADDRESSES, Status.WARNING)]
    keys = {"MACP_AUTH_JWKS_PORT": "3201"}
    assert exposure(good | keys) == []
    assert exposure(good | keys | {"MACP_AUTH_JWKS_HOST": "192.0.2.1"}) == [(Check.TRANSPORT, Status.WARNING)]
    assert exposure(good | keys | {"MACP_AUTH_JWKS_HOST": "::"}) == [
        (Check.ADDRESSES, Status.WARNING),
        (Check.TRANSPORT, Status.WARNING),
    ]


@pytest.mark.parametrize("host", ["0", "0.0", "*", "0:0::0"])
def test_all_addresses_in_any_spelling(good: dict[str, str], host: str) -> None:
    """What the system reads as all addresses is all."""
    assert (Check.ADDRESSES, Status.WARNING) in exposure(good | {"MACP_AUTH_HOST": host})


def test_loopback_in_any_spelling(good: dict[str, str]) -> None:
    """What the system reads as loopback is loopback."""
    assert exposure(good | {"MACP_AUTH_HOST": "127.1"}) == []


@pytest.mark.parametrize(
    ("issuer", "warned"),
    [
        ("https://auth.example.com/path", False),
        ("macp-auth-service", False),
        ("http://auth.example.com", False),
        ("https://auth.example.com?tenant=a", True),
        ("https://user@auth.example.com", True),
        ("HTTPS://", True),
    ],
)
def test_an_https_issuer_without_discovery_is_a_warning(
    good: dict[str, str], issuer: str, *, warned: bool
) -> None:
    """Its verifiers would get a 404."""
    found = [each for each in examined(good | {"MACP_AUTH_ISSUER": issuer}) if each.check == Check.ISSUER]
    assert [each.status for each in found] == [Status.OK, *[Status.WARNING] * warned]


@pytest.mark.parametrize("pattern", [".*", ".+", r"[\s\S]+", "(?:.|x)*"])
def test_a_pattern_that_matches_everything_is_none(good: dict[str, str], pattern: str) -> None:
    """It has a finding of its own, and counts for nothing."""
    env = good | EVERYWHERE | {"MACP_AUTH_SENDER_PATTERN": pattern}
    assert (Check.EXPOSURE, Status.WARNING) in exposure(env)
    assert (Check.SENDERS, Status.WARNING) in exposure(env)
    assert exposure(good | {"MACP_AUTH_SENDER_PATTERN": pattern}) == [(Check.SENDERS, Status.WARNING)]


@pytest.mark.parametrize("pattern", ["agent://.*", "[a-z0-9-]+", "[ -~]+"])
def test_a_pattern_that_keeps_some_out_is_one(good: dict[str, str], pattern: str) -> None:
    assert exposure(good | {"MACP_AUTH_SENDER_PATTERN": pattern}) == []
    far = good | {"MACP_AUTH_HOST": "192.0.2.1", "MACP_AUTH_SENDER_PATTERN": pattern}
    assert exposure(far) == [(Check.TRANSPORT, Status.WARNING)]


@pytest.mark.parametrize(
    ("lives", "status"),
    [(-3600, Status.FAILURE), (3600, Status.WARNING), (13 * 86400, Status.WARNING), (15 * 86400, None)],
)
def test_the_end_of_a_certificate_is_a_finding(
    good: dict[str, str], tmp_path: Path, lives: int, status: Status | None
) -> None:
    """Expired, soon to expire, and good."""
    authority = Authority(tmp_path)
    pair = authority.issue("server", lives=dt.timedelta(seconds=lives), lived=dt.timedelta(days=76))
    found = exposure(good | tls_settings(pair))
    assert found == ([] if status is None else [(Check.CERTIFICATE, status)])


def test_a_certificate_of_a_day_ends_soon_with_a_quarter_left(good: dict[str, str], tmp_path: Path) -> None:
    """The chain's first to end counts; and authorities for clients end, too."""
    authority = Authority(tmp_path)
    for left, expected in ((7, []), (5, [(Check.CERTIFICATE, Status.WARNING)])):
        pair = authority.issue(
            f"server-{left}", lives=dt.timedelta(hours=left), lived=dt.timedelta(hours=24 - left)
        )
        assert exposure(good | tls_settings(pair)) == expected
    old = authority.issue("old", lives=dt.timedelta(hours=-1))
    env = tls_settings(authority.issue("fresh")) | {"MACP_AUTH_TLS_CLIENT_CA_FILE": str(old.certificate)}
    assert exposure(good | env) == [(Check.CERTIFICATE, Status.FAILURE)]


# --- callers --------------------------------------------------------------------------------------------

GRANT = '[[caller.grant]]\nsenders = ["a"]\nscopes.is_observer = true\n'
BY_SECRET = f'[[caller]]\nname = "a"\nsecret_sha256 = "{"0" * 64}"\n{GRANT}'
BY_CERTIFICATE = f'[[caller]]\nname = "a"\nspiffe_id = "spiffe://a/b"\n{GRANT}'
BY_JWT = f'[[caller]]\nname = "a"\njwt = {{ issuer = "cluster", subject = "a" }}\n{GRANT}'
PROXY = '[proxy]\nclient_certificate_header = "x-forwarded-client-cert"\n'
REPORT = {"MACP_AUTH_CALLERS_MODE": "report"}


def of_callers(env: dict[str, str]) -> list[tuple[str, Status, str]]:
    checks = {Check.EXPOSURE, Check.TRANSPORT, Check.CALLERS, Check.CALLER_KEYS}
    return [(each.check, each.status, each.text) for each in examined(env) if each.check in checks]


def test_a_callers_file_closes_an_open_port(good: dict[str, str], tmp_path: Path) -> None:
    """If it is enforced. Bearer secrets over plain HTTP are a warning beside that of the tokens."""
    env = good | EVERYWHERE | callers.write(tmp_path / "callers.toml", BY_SECRET)
    exposed, *transport, found = of_callers(env)
    assert exposed[1:] == (
        Status.OK,
        "the service listens on 0.0.0.0 port 3200, and a token needs a grant of the callers file",
    )
    assert [each[:2] for each in transport] == [(Check.TRANSPORT, Status.WARNING)] * 2
    assert "secrets and JWTs of callers travel over plain HTTP" in transport[1][2]
    assert found == (Check.CALLERS, Status.OK, "1 caller (1 by secret), 1 grant, 0 issuers")
    exposed, *_, found = of_callers(env | REPORT)
    assert exposed[1] is Status.WARNING
    assert found[:2] == (Check.CALLERS, Status.WARNING)
    assert "MACP_AUTH_CALLERS_MODE is report" in found[2]


@pytest.mark.parametrize(
    ("text", "host", "found"),
    [
        (PROXY + BY_CERTIFICATE, "127.0.0.1", []),
        (
            PROXY + BY_CERTIFICATE,
            "0.0.0.0",
            [
                (
                    Status.OK,
                    "x-forwarded-client-cert is accepted from proxies at loopback addresses only",
                )
            ],
        ),
        (
            BY_CERTIFICATE,
            "127.0.0.1",
            [
                (
                    Status.WARNING,
                    "nothing verifies client certificates, so callers that have one are refused",
                )
            ],
        ),
        (
            BY_SECRET.replace("scopes.is_observer = true", ""),
            "127.0.0.1",
            [(Status.WARNING, "grant a/1 has no scopes, so its tokens allow nothing")],
        ),
        (
            PROXY + BY_SECRET.replace("scopes.is_observer = true", ""),
            "127.0.0.1",
            [
                (Status.WARNING, "grant a/1 has no scopes, so its tokens allow nothing"),
                (Status.WARNING, "1 more likely mistakes in the callers file"),
            ],
        ),
    ],
)
def test_a_callers_file(
    good: dict[str, str], tmp_path: Path, text: str, host: str, found: list[tuple[Status, str]]
) -> None:
    """What fits together, what does not, and likely mistakes."""
    env = good | callers.write(tmp_path / "callers.toml", text) | {"MACP_AUTH_HOST": host}
    _, *shown = [each[1:] for each in of_callers(env) if each[0] == Check.CALLERS]
    assert shown == found


def test_a_callers_file_that_others_can_replace(
    good: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who can replace it decides who may mint what. Nobody can in a read-only volume, as of Kubernetes."""
    (folder := tmp_path / "open").mkdir()
    folder.chmod(0o777)
    text = PROXY + BY_CERTIFICATE
    env = good | callers.write(folder / "callers.toml", text)
    shown = of_callers(env)
    assert shown[-1][:2] == (Check.CALLERS, Status.WARNING)
    assert "others can change the callers file: others can replace it" in shown[-1][2]
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_flag=os.ST_RDONLY))
    assert of_callers(env) == shown[:-1]


def test_the_keys_of_issuers(good: dict[str, str], tmp_path: Path) -> None:
    """They are fetched, as the service does."""
    keys = json.dumps({"keys": [jwks.public(jwks.ec())]}).encode()
    with FakeServer(lambda request: Reply(200 if request.path == "/good" else 404, keys)) as server:
        issuers = "".join(
            f'[[issuer]]\nname = "{name}"\nissuer = "https://{name}"\naudience = "a"\n'
            f'jwks_url = "{server.url}/{path}"\n'
            for name, path in (("cluster", "good"), ("ci", "bad"))
        )
        env = good | callers.write(tmp_path / "callers.toml", issuers + BY_JWT)
        found = [each[1:] for each in of_callers(env) if each[0] == Check.CALLER_KEYS]
    assert found == [
        (Status.OK, "the keys of issuer cluster can be read"),
        (
            Status.FAILURE,
            "the keys of issuer ci can't be read, so its JWTs are refused: jwks_url answers with status 404",
        ),
    ]


def test_issuers_that_do_not_answer(
    good: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Name resolution may hang for longer than a fetch may take: the command ends in time."""

    async def hang(_: object) -> None:
        time.sleep(HANG_SECONDS * 2)  # noqa: ASYNC251 - the point

    monkeypatch.setattr(issuer_keys, "fault_of", hang)
    monkeypatch.setattr(doctor, "SECONDS", 0.3)
    issuer = '[[issuer]]\nname = "cluster"\nissuer = "https://a"\naudience = "a"\njwks_file = "/keys.json"\n'
    begun = time.monotonic()
    shown = of_callers(good | callers.write(tmp_path / "callers.toml", issuer + BY_JWT))
    assert time.monotonic() - begun < HANG_SECONDS
    assert shown[-1][:2] == (Check.CALLER_KEYS, Status.FAILURE)
    assert "they can't be read within 0.3 s" in shown[-1][2]
