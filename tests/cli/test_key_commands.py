"""``macp-auth keys list``, ``timeline``, ``rotate`` and ``revoke`` on real files."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from macp_auth.entrypoints.cli.keys import new_key
from tests.docs.pages import read
from tests.support import jwks
from tools.support.bounded import HANG_SECONDS
from tools.support.service import clean_environment

LEAD, LAG = 4500, 3720  # with default settings
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def keys(tmp_path: Path) -> Command:
    """Runs ``macp-auth keys ...`` in an empty folder."""

    def run(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "macp_auth", "keys", *args],
            cwd=tmp_path, env=clean_environment(env), capture_output=True, text=True,
            timeout=HANG_SECONDS, check=False,
        )  # fmt: skip

    return run


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def content(file: Path) -> dict[str, Any]:
    """The keys of the file by their kid."""
    return {jwk["kid"]: jwk for jwk in json.loads(file.read_text())["keys"]}


def good(run: subprocess.CompletedProcess[str]) -> str:
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    return run.stdout


def refused(run: subprocess.CompletedProcess[str]) -> str:
    """One line on standard error, exit status 2, nothing on standard output."""
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith("macp-auth: ")
    assert run.stderr.count("\n") == 1
    return run.stderr


def states(keys: Command, *args: str, **env: str) -> dict[str, str]:
    return {key["kid"]: key["state"] for key in json.loads(good(keys("list", *args, "--json", **env)))}


def test_first_key(keys: Command, file: Path) -> None:
    """A missing file is created, accessible to its owner only, with a key that signs at once."""
    assert "signs at once" in good(keys("rotate", "keys.json", "--kid", "a", "--alg", "ES256"))
    assert file.stat().st_mode & 0o777 == 0o600
    assert content(file)["a"]["alg"] == "ES256"
    assert states(keys, "keys.json") == {"a": "active"}


def test_routine_rotation(keys: Command, file: Path) -> None:
    """The schedule stands in the file; the rest of the file, and its mode, stay."""
    first = {**jwks.rsa(), "kid": "a", "x-owner": "team"}
    file.write_text(json.dumps({"keys": [first]}))
    file.chmod(0o640)
    before = time.time()
    assert "old      a: signs until then" in good(keys("rotate", "keys.json", "--kid", "b"))
    new = content(file)["b"]
    assert new["alg"] == "RS256", "as the key before"
    assert before + LEAD <= new["nbf"] <= time.time() + LEAD + 1
    assert int(before) <= new["iat"] <= time.time()
    assert content(file)["a"] == {**first, "exp": new["nbf"] + LAG}
    assert file.stat().st_mode & 0o777 == 0o640
    assert states(keys, "keys.json") == {"a": "active", "b": "pre-activation"}
    assert [path.name for path in file.parent.iterdir()] == ["keys.json"], "nothing is left beside it"


def test_single_jwk_becomes_a_set(keys: Command, file: Path) -> None:
    """A file that holds one bare JWK, without a kid, can be rotated too."""
    file.write_text(json.dumps(jwks.ec()))
    file.chmod(0o600)
    good(keys("rotate", "keys.json", "--kid", "b"))
    assert states(keys, "keys.json") == {"key-1": "active", "b": "pre-activation"}


def test_algorithm_migration(keys: Command, file: Path) -> None:
    good(keys("rotate", "keys.json", "--kid", "a", "--alg", "RS256"))
    good(keys("rotate", "keys.json", "--kid", "b", "--alg", "ES256"))
    assert [jwk["alg"] for jwk in content(file).values()] == ["RS256", "ES256"]


@pytest.mark.parametrize("kid", ["-Ux3", "-h4c", "-"])
def test_a_kid_that_begins_with_a_hyphen(keys: Command, kid: str) -> None:
    """One thumbprint in 64 does, and in an emergency nobody should need to know about ``--``."""
    good(keys("rotate", "-keys.json", "--kid", kid, "--alg", "ES256"))
    good(keys("rotate", "-keys.json", "--kid", "b"))
    assert kid in states(keys, "-keys.json")
    good(keys("revoke", "-keys.json", kid, "--dry-run"))
    good(keys("revoke", "--", "-keys.json", kid))
    assert states(keys, "-keys.json") == {"b": "active"}


def test_a_kid_of_ours_begins_with_no_hyphen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key whose thumbprint does is thrown away: other tools would take the kid for an option."""
    thumbprints = iter(["-Ux3", "-h4c", "good"])
    monkeypatch.setattr("macp_auth.domain.keys.thumbprint", lambda _: next(thumbprints))
    assert new_key("ES256", None)[1] == "good"


def test_dry_run_changes_nothing(keys: Command, file: Path) -> None:
    assert "nothing was written" in good(keys("rotate", "keys.json", "--dry-run"))
    assert keys("rotate", "keys.json", "--at", "+2h").returncode == 2, "a first key can't wait"
    assert not file.exists()
    good(keys("rotate", "keys.json", "--kid", "a", "--alg", "ES256"))
    before = file.read_bytes()
    assert "nothing was written" in good(keys("rotate", "keys.json", "--dry-run"))
    good(keys("rotate", "keys.json", "--kid", "b"))
    assert before != (now := file.read_bytes())
    assert "nothing was written" in good(keys("revoke", "keys.json", "a", "--dry-run"))
    assert file.read_bytes() == now


def test_unsafe_requests_are_refused_and_the_rule_named(keys: Command, file: Path) -> None:
    """Each leaves the file as it is."""
    good(keys("rotate", "keys.json", "--kid", "a", "--alg", "ES256"))
    before = file.read_bytes()
    assert "publish lead" in refused(keys("rotate", "keys.json", "--at", "+10m"))
    assert "must remain" in refused(keys("revoke", "keys.json", "a"))
    assert "there is no key 'x'" in refused(keys("revoke", "keys.json", "x"))
    assert file.read_bytes() == before
    good(keys("rotate", "keys.json", "--at", "+75m", "--kid", "b"))
    assert "one rotation at a time" in refused(keys("rotate", "keys.json"))
    good(keys("revoke", "keys.json", "b"))
    assert "'a' names another key" in refused(keys("rotate", "keys.json", "--kid", "a"))
    assert "exp" not in content(file)["a"], "nothing replaces it any more"
    good(keys("rotate", "keys.json", "--kid", "c"))


def test_revocation(keys: Command, file: Path) -> None:
    """The key is gone, the next one signs although it is in its lead, and the bounds are printed."""
    good(keys("rotate", "keys.json", "--kid", "a", "--alg", "ES256"))
    good(keys("rotate", "keys.json", "--kid", "b"))
    output = good(keys("revoke", "keys.json", "a"))
    assert set(content(file)) == {"b"}
    assert states(keys, "keys.json") == {"b": "active"}
    assert "signs    b" in output
    (runtime,) = [line for line in output.splitlines() if line.split()[:1] == ["macp-runtime"]]
    assert "(in 6m 30s)" in runtime
    assert "(in 1h 6m)" in runtime


@pytest.mark.parametrize(
    "at",
    [
        "tomorrow",
        "10m",
        "2026-12-01T06:00",
        "+1w",
        "",
        "9999-12-31T23:59Z",
        "9999-12-31T23:59-14:00",
        f"+{'9' * 17}d",
        f"+{'9' * 999}d",
    ],
)
def test_bad_times(keys: Command, at: str) -> None:
    """Not a time, or out of the range of a schedule."""
    good(keys("rotate", "keys.json", "--alg", "ES256"))
    assert "--at" in refused(keys("rotate", "keys.json", "--at", at))


@pytest.mark.parametrize(
    ("text", "mode", "message"),
    [("{", 0o600, "not valid JSON"), ('{"keys":[]}', 0o600, "at least one"), (None, 0o644, "chmod 600")],
)
def test_bad_files(keys: Command, file: Path, text: str | None, mode: int, message: str) -> None:
    """No command works on a file that the service would not serve from."""
    file.write_text(text or json.dumps({"keys": [{**jwks.ec(), "kid": "a"}]}))
    file.chmod(mode)
    for args in (["list"], ["timeline"], ["rotate"]):
        assert message in refused(keys(*args, "keys.json"))
    assert message in refused(keys("revoke", "keys.json", "a"))


def test_full_disk(keys: Command, file: Path) -> None:
    """A file that can't be written stays as it was, and nothing is left beside it."""
    good(keys("rotate", "keys.json", "--kid", "a", "--alg", "ES256"))
    before = file.read_bytes()
    run = subprocess.run(
        [sys.executable, "-m", "macp_auth", "keys", "rotate", "keys.json"],
        cwd=file.parent, env=clean_environment(), capture_output=True, text=True,
        timeout=HANG_SECONDS, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)),
    )  # fmt: skip
    assert (run.returncode, run.stdout) == (2, "")
    assert "can't be written: File too large" in run.stderr
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == ["keys.json"]


def test_symbolic_link_stays_a_link(keys: Command, file: Path) -> None:
    """The file behind it is replaced."""
    good(keys("rotate", "keys.json", "--kid", "a", "--alg", "ES256"))
    link = file.parent / "link.json"
    link.symlink_to("keys.json")
    good(keys("rotate", "link.json", "--kid", "b"))
    assert link.is_symlink()
    assert set(content(file)) == {"a", "b"}


def test_list_of_the_configured_signer(keys: Command, file: Path) -> None:
    """Without a file, the keys are those of the signer that the environment configures."""
    good(keys("rotate", "keys.json", "--kid", "a", "--alg", "ES256"))
    configured = {"MACP_AUTH_SIGNER": "jwk-file", "MACP_AUTH_SIGNING_KEYS_FILE": str(file)}
    assert states(keys, **configured) == {"a": "active"}
    wrong = refused(keys("list", MACP_AUTH_KEY_PUBLISH_LEAD_SECONDS="60"))
    assert "MACP_AUTH_KEY_PUBLISH_LEAD_SECONDS" in wrong


@pytest.mark.parametrize("command", ["list", "timeline"])
def test_an_ephemeral_key_is_none_of_a_service(keys: Command, command: str) -> None:
    """Without any configuration a key is shown, and that it is made for that, where no machine reads."""
    shown = keys(command)
    assert shown.returncode == 0
    assert "dev-key-1" in shown.stdout
    assert "exists only in this command" in shown.stderr
    assert shown.stderr.count("\n") == 1


def test_a_file_that_is_not_there(keys: Command) -> None:
    """The message says what makes it."""
    for command in ("list", "timeline"):
        assert "create it with: macp-auth keys rotate missing.json" in refused(keys(command, "missing.json"))


def test_a_file_that_can_t_be_there(keys: Command) -> None:
    """One line, with what the system says of it; the name is longer than any file's may be."""
    for command in ("list", "rotate"):
        run = keys(command, "x" * 300)
        assert (run.returncode, run.stdout) == (1, "")
        assert run.stderr == f"macp-auth: {'x' * 300}: File name too long\n"


def test_rotating_without_a_file_says_where_keys_rotate(keys: Command) -> None:
    """Other signers have none."""
    assert "docs/rotation.md, 'Where keys rotate'" in refused(keys("rotate"))
    assert "\n## Where keys rotate\n" in read("docs/rotation.md")


def test_list_as_a_table(keys: Command) -> None:
    """A line a key, with what it is, since when, and what comes next."""
    good(keys("rotate", "keys.json", "--kid", "a", "--alg", "RS256"))
    good(keys("rotate", "keys.json", "--kid", "b", "--alg", "ES256"))
    heading, first, second = good(keys("list", "keys.json")).splitlines()
    assert heading.split() == ["KID", "ALG", "STATE", "SINCE", "NEXT", "CHANGE", "WHY"]
    assert first.split()[:3] == ["a", "RS256", "active"]
    assert first.endswith("stops signing")
    assert second.split()[:3] == ["b", "ES256", "pre-activation"]
    assert "(in 1h 1" in second
    assert second.endswith("starts signing")


def test_timeline(keys: Command, file: Path) -> None:
    """A bar a key: one signs first and fades, the other is published first and signs then."""
    good(keys("rotate", "keys.json", "--kid", "a", "--alg", "ES256"))
    good(keys("rotate", "keys.json", "--kid", "b"))
    headline, _, now, first, second, *_ = good(keys("timeline", "keys.json")).splitlines()
    assert headline.startswith("a signs. b takes over in 1h 1")
    assert now.strip() == "now"
    assert first.split()[:3] == ["a", "ES256", "active"]
    assert first.index("█") < first.index("▓")
    assert second.split()[:3] == ["b", "ES256", "pre-activation"]
    assert second.index("░") < second.index("█")
    assert good(keys("timeline", "keys.json", "--svg", "keys.svg")) == ""
    svg = ET.parse(file.parent / "keys.svg").getroot()  # noqa: S314 - we wrote it
    assert svg[0].text == "Signing keys"
    assert (svg[1].text or "").startswith("a signs. b takes over in 1h 1")


def test_a_drawing_that_can_t_be_written(keys: Command) -> None:
    """One line that names the file."""
    good(keys("rotate", "keys.json", "--alg", "ES256"))
    assert "cannot write nowhere/keys.svg" in refused(
        keys("timeline", "keys.json", "--svg", "nowhere/keys.svg")
    )


def test_nothing_private_is_shown(keys: Command, file: Path) -> None:
    """No output of any command holds a private member."""
    shown = [good(keys("rotate", "keys.json", "--kid", kid)) for kid in ("a", "b")]
    shown += [good(keys("list", "keys.json", "--json")), good(keys("timeline", "keys.json"))]
    private = [jwk[member] for jwk in content(file).values() for member in ("d", *jwks.RSA_PRIMES)]
    shown.append(good(keys("revoke", "keys.json", "a")))
    assert private
    assert not any(value in output for value in private for output in shown)
