"""Keys from a file that changes, breaks and comes back while it is in use."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from macp_auth.adapters.signers.jwk_file import JWKFileSettings, JWKFileSigner, prepare, read_keys_file
from macp_auth.application.key_ring import KeyRing
from macp_auth.domain.errors import SignerError, SignerMisconfigured, SignerUnavailable, UnknownKid
from macp_auth.domain.keys import Algorithm
from macp_auth.domain.rotation import Timing
from tests.support import jwks

NOW = 1_800_000_000
RSA = {**jwks.rsa(), "kid": "r"}
EC = {**jwks.ec(), "kid": "e"}
SEEN = {**jwks.public(jwks.ec(copy=1)), "kid": "seen"}
SECRETS = [value for jwk in (RSA, EC) for name, value in jwk.items() if name in {"d", *jwks.RSA_PRIMES}]


def write(path: Path, *keys: dict[str, Any], mode: int = 0o600) -> Path:
    """Put ``keys`` where ``path`` is, at one stroke."""
    new = path.with_name(path.name + ".new")
    new.write_text(json.dumps({"keys": list(keys)}))
    new.chmod(mode)
    new.replace(path)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "keys.json", RSA, SEEN)


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


def opened(path: Path) -> tuple[JWKFileSigner, KeyRing]:
    """A signer, and a key ring that has read it."""
    signer = JWKFileSigner(prepare(JWKFileSettings(str(path))))
    ring = KeyRing(signer, Timing(publish_lead=100, retire_lag=50))
    run(ring.refresh(NOW))
    return signer, ring


def published(ring: KeyRing) -> list[str]:
    return [key["kid"] for key in json.loads(ring.keys.jwks)["keys"]]


def assert_shows_no_secret(error: BaseException) -> None:
    shown = f"{error} {error!r} {error.__cause__!r}"
    assert not any(secret in shown for secret in SECRETS)


def test_a_good_set(tmp_path: Path) -> None:
    """Public members, who may sign, and the standard members of time."""
    path = write(tmp_path / "keys.json", {**RSA, "iat": 5, "nbf": 6.5, "exp": 7}, EC, SEEN)
    rsa, ec, seen = run(JWKFileSigner(str(path)).key_versions())
    assert (rsa.kid, rsa.algorithm, rsa.can_sign) == ("r", Algorithm.RS256, True)
    assert (rsa.created_at, rsa.not_before, rsa.not_after) == (5, 6.5, 7)
    assert (ec.kid, ec.algorithm, ec.can_sign) == ("e", Algorithm.ES256, True)
    assert (ec.created_at, ec.not_before, ec.not_after) == (None, None, None)
    assert (seen.kid, seen.can_sign) == ("seen", False)


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o440, 0o640])
def test_good_modes(path: Path, mode: int) -> None:
    path.chmod(mode)
    assert [key.kid for key in read_keys_file(path)] == ["r", "seen"]


@pytest.mark.parametrize("mode", [0o644, 0o620, 0o602, 0o604, 0o601, 0o666])
def test_bad_modes(path: Path, mode: int) -> None:
    """The message names the file, its mode, and the remedy."""
    path.chmod(mode)
    with pytest.raises(SignerMisconfigured) as refused:
        read_keys_file(path)
    for part in (str(path), f"mode {mode:04o}", "chmod 600", "defaultMode: 0440"):
        assert part in str(refused.value)


def test_the_mode_of_a_link_is_that_of_its_target(path: Path) -> None:
    """A link's own mode is 0777 on Linux."""
    link = path.with_name("link.json")
    link.symlink_to(path)
    assert read_keys_file(link)
    path.chmod(0o644)
    with pytest.raises(SignerMisconfigured):
        read_keys_file(link)


def test_a_kubernetes_secret_is_followed_through_its_swap(tmp_path: Path) -> None:
    """keys.json -> ..data/keys.json, ..data -> ..2026_x; the kubelet swaps ..data."""

    def mount(name: str, *keys: dict[str, Any]) -> None:
        (tmp_path / name).mkdir()
        write(tmp_path / name / "keys.json", *keys, mode=0o440)
        swapping = tmp_path / "..data_tmp"
        swapping.symlink_to(name)
        swapping.replace(tmp_path / "..data")

    mount("..2026_1", RSA)
    path = tmp_path / "keys.json"
    path.symlink_to(Path("..data/keys.json"))
    _, ring = opened(path)
    assert published(ring) == ["r"]
    mount("..2026_2", RSA, {**EC, "iat": NOW})
    run(ring.refresh(NOW))
    assert published(ring) == ["r", "e"]
    assert ring.keys.signing.version.kid == "r"
    run(ring.refresh(NOW + 100))
    assert ring.keys.signing.version.kid == "e"


def _becomes_a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


BREAK: dict[str, tuple[Callable[[Path], Any], type[SignerError], str]] = {
    "half-written": (lambda p: p.write_text(p.read_text()[:900]), SignerMisconfigured, "not valid JSON"),
    "empty": (lambda p: p.write_text(""), SignerMisconfigured, "not valid JSON"),
    "deleted": (Path.unlink, SignerUnavailable, "No such file"),
    "oversize": (lambda p: p.write_text(" " * (2**20 + 1)), SignerMisconfigured, "over 1048576 bytes"),
    "not UTF-8": (lambda p: p.write_text(p.read_text(), "utf-16"), SignerMisconfigured, "not UTF-8"),
    "binary": (lambda p: p.write_bytes(bytes(1000)), SignerMisconfigured, "not valid JSON"),
    "directory": (_becomes_a_directory, SignerUnavailable, "directory"),
    "no signing key": (lambda p: write(p, SEEN), SignerMisconfigured, "no private key"),
    "no keys": (write, SignerMisconfigured, "at least one"),
    "same kid": (lambda p: write(p, RSA, {**EC, "kid": "r"}), SignerMisconfigured, "same kid"),
    "mixed halves": (
        lambda p: write(p, {**RSA, "n": jwks.rsa(copy=1)["n"]}),
        SignerMisconfigured,
        "key 1 of 1",
    ),
    "readable by all": (lambda p: p.chmod(0o644), SignerMisconfigured, "chmod 600"),
}


@pytest.mark.parametrize("how", BREAK)
def test_a_broken_file_keeps_the_last_good_keys(path: Path, how: str) -> None:
    """They sign, and their schedule goes on; a good file is taken up again."""
    write(path, RSA, {**EC, "iat": NOW})
    signer, ring = opened(path)
    do, error, message = BREAK[how]
    do(path)
    with pytest.raises(error, match=message) as failed:
        run(ring.refresh(NOW + 1))
    assert str(failed.value).startswith("MACP_AUTH_SIGNING_KEYS_FILE")
    assert_shows_no_secret(failed.value)
    ring.reschedule(NOW + 1)
    assert (ring.keys.signing.version.kid, published(ring)) == ("r", ["r", "e"])
    ring.reschedule(NOW + 100)
    assert (ring.keys.signing.version.kid, published(ring)) == ("e", ["r", "e"])
    for kid in "re":
        assert run(signer.sign(kid, b"input"))
    if path.is_dir():
        path.rmdir()
    write(path, EC)
    run(ring.refresh(NOW + 101))
    assert published(ring) == ["e"]


@pytest.mark.parametrize("how", BREAK)
def test_a_broken_file_stops_the_start(path: Path, how: str) -> None:
    """For every cause, with the variable's name, and without its content."""
    do, _, message = BREAK[how]
    do(path)
    with pytest.raises(SignerMisconfigured, match=message) as refused:
        prepare(JWKFileSettings(str(path)))
    assert str(refused.value).startswith("MACP_AUTH_SIGNING_KEYS_FILE")
    assert str(path) not in str(refused.value)
    assert_shows_no_secret(refused.value)


@pytest.mark.parametrize("key", [RSA, EC], ids=["long", "short"])
def test_a_key_in_the_place_of_its_path_is_not_shown(key: dict[str, Any]) -> None:
    """Neither at the start nor by a worker that reads again."""
    text = json.dumps(key)
    with pytest.raises(SignerMisconfigured, match=r"MACP_AUTH_SIGNING_KEYS_FILE can't be read: ") as refused:
        prepare(JWKFileSettings(text))
    assert_shows_no_secret(refused.value)
    with pytest.raises(SignerUnavailable) as failed:
        run(JWKFileSigner(text).key_versions())
    assert_shows_no_secret(failed.value)


def test_a_removed_key_signs_no_more_after_a_good_reading(path: Path) -> None:
    """Until then it does: a broken file takes nothing away."""
    signer, ring = opened(path)
    path.write_text("{")
    with pytest.raises(SignerMisconfigured):
        run(ring.refresh(NOW))
    assert run(signer.sign("r", b"input"))
    write(path, EC)
    run(ring.refresh(NOW))
    with pytest.raises(UnknownKid):
        run(signer.sign("r", b"input"))
    assert len(run(signer.sign("e", b"input"))) == 64
    assert published(ring) == ["e"]


def test_a_public_key_can_not_sign(path: Path) -> None:
    signer, _ = opened(path)
    for kid in ("seen", "never"):
        with pytest.raises(UnknownKid):
            run(signer.sign(kid, b"input"))


def test_closed(path: Path) -> None:
    """Twice is as good as once, and nothing brings its keys back."""
    signer, _ = opened(path)
    run(signer.aclose())
    run(signer.aclose())
    for work in (signer.sign("r", b"input"), signer.key_versions(), signer.sign("r", b"input")):
        with pytest.raises(SignerUnavailable, match="closed"):
            run(work)


def test_nothing_secret_is_handed_over(path: Path) -> None:
    """A worker is given the path, not the keys."""
    settings = JWKFileSettings(str(path))
    signer, ring = opened(path)
    shown = f"{settings!r} {prepare(settings)!r} {signer!r} {run(signer.key_versions())!r} {ring.keys.jwks!r}"
    assert not any(secret in shown for secret in SECRETS)
