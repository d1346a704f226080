"""The signer on a real PKCS#11 module: SoftHSM, driven from outside with an operator's tools."""

from __future__ import annotations

import asyncio
import json
import sys
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import joserfc.jwt
import jwt
import msgspec
import pkcs11
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc.jwk import KeySet

from macp_auth import (
    Algorithm,
    KeyVersion,
    SignerMisconfigured,
    SignerRefused,
    SignerUnavailable,
    UnknownKid,
    thumbprint,
)
from macp_auth_pkcs11 import PKCS11Signer

pytestmark = pytest.mark.slow  # many tokens of SoftHSM

if TYPE_CHECKING:  # importable by mypy only: pytest imports each test file apart
    from conftest import SoftHSM

KEY_TYPES = {Algorithm.RS256: "rsa:2048", Algorithm.ES256: "EC:prime256v1"}
MADE = "2026-12-01T06:00:00Z"
MADE_AT = datetime(2026, 12, 1, 6, tzinfo=UTC).timestamp()


MAY_NOT_SIGN = """
import sys, pkcs11
token = pkcs11.lib(sys.argv[1]).get_token(token_label="macp")
capabilities = pkcs11.MechanismFlag.DECRYPT | pkcs11.MechanismFlag.ENCRYPT
token.open(rw=True, user_pin=sys.argv[2]).generate_keypair(
    pkcs11.KeyType.RSA, 2048, label="macp", id=b"3", store=True, capabilities=capabilities
)
"""


def base64url(octets: bytes) -> str:
    return urlsafe_b64encode(octets).rstrip(b"=").decode()


async def mint(signer: PKCS11Signer, version: KeyVersion, claims: Mapping[str, Any]) -> str:
    """A token, put together as the host does it."""
    header = {"alg": version.algorithm.value, "kid": version.kid, "typ": "JWT"}
    signing_input = ".".join(base64url(json.dumps(part).encode()) for part in (header, claims))
    return f"{signing_input}.{base64url(await signer.sign(version.kid, signing_input.encode()))}"


def assert_verifies(token: str, version: KeyVersion, claims: Mapping[str, Any]) -> None:
    """Two libraries that share no code with each other's signature checks have their say."""
    jwk = {**msgspec.to_builtins(version.public_jwk), "kid": version.kid, "alg": version.algorithm.value}
    algorithms = [version.algorithm.value]
    assert jwt.decode(token, jwt.PyJWK(jwk), algorithms=algorithms) == claims
    assert joserfc.jwt.decode(token, KeySet.import_key_set({"keys": [jwk]}), algorithms).claims == claims


@pytest.mark.parametrize("algorithm", Algorithm)
def test_signatures_verify(hsm: SoftHSM, algorithm: Algorithm) -> None:
    """PyJWT and joserfc accept tokens of either algorithm; the kid is the key's thumbprint."""
    hsm.generate("macp", "01", KEY_TYPES[algorithm])

    async def scenario() -> None:
        async with hsm.signer() as signer:
            (version,) = await signer.key_versions()
            assert version.algorithm is algorithm
            assert version.kid == thumbprint(version.public_jwk)
            assert (version.created_at, version.can_sign) == (None, True)
            for number in range(20):  # an ECDSA number has a leading zero now and then
                assert_verifies(await mint(signer, version, {"n": number}), version, {"n": number})

    asyncio.run(scenario())


def test_signs_without_having_listed(hsm: SoftHSM) -> None:
    """A kid from another process's listing signs at once."""
    hsm.generate("macp", "01")

    async def scenario() -> None:
        async with hsm.signer() as signer:
            (version,) = await signer.key_versions()
        async with hsm.signer() as signer:
            assert_verifies(await mint(signer, version, {}), version, {})

    asyncio.run(scenario())


def test_rotation_is_seen(hsm: SoftHSM) -> None:
    """The next read sees keys that another program makes or deletes; a label has its time."""
    hsm.generate("macp", "01", "rsa:2048")

    async def scenario() -> None:
        async with hsm.signer() as signer:
            (old,) = await signer.key_versions()
            hsm.generate(f"macp@{MADE}", "02")
            new = next(version for version in await signer.key_versions() if version != old)
            assert (new.algorithm, new.created_at) == (Algorithm.ES256, MADE_AT)
            for version in (old, new):
                assert_verifies(await mint(signer, version, {}), version, {})
            hsm.delete("01")
            assert await signer.key_versions() == [new]
            with pytest.raises(UnknownKid):
                await signer.sign(old.kid, b"x")

    asyncio.run(scenario())


RELABEL = """
import sys, pkcs11
token = pkcs11.lib(sys.argv[1]).get_token(token_label="macp")
session = token.open(rw=True, user_pin=sys.argv[2])
for key in list(session.get_objects({pkcs11.Attribute.ID: bytes([1])})):
    key[pkcs11.Attribute.LABEL] = "retired"
"""


def test_relabelled_key_is_no_longer_a_version(hsm: SoftHSM) -> None:
    """A key that is given another label stays on the token, and signs no more."""
    hsm.generate("macp", "01")
    hsm.generate(f"macp@{MADE}", "02")

    async def scenario() -> None:
        async with hsm.signer() as signer:
            before = await signer.key_versions()
            hsm.run(sys.executable, "-c", RELABEL, hsm.module, hsm.pin)
            (kept,) = await signer.key_versions()
            for version in before:
                if version != kept:
                    with pytest.raises(UnknownKid):
                        await signer.sign(version.kid, b"x")

    asyncio.run(scenario())


def test_deleted_key_can_not_sign_even_before_the_next_read(hsm: SoftHSM) -> None:
    """The token's refusal of a handle that is gone reads as an unknown kid."""
    hsm.generate("macp", "01")
    hsm.generate(f"macp@{MADE}", "02")

    async def scenario() -> None:
        async with hsm.signer() as signer:
            old = next(version for version in await signer.key_versions() if version.created_at is None)
            hsm.delete("01")
            with pytest.raises(UnknownKid):
                await signer.sign(old.kid, b"x")

    asyncio.run(scenario())


def test_order_is_the_same_on_every_replica(hsm: SoftHSM) -> None:
    """However the token lists its objects, versions come sorted by kid."""
    for number in range(1, 6):
        hsm.generate(f"macp@{MADE}", f"0{number}")

    async def scenario() -> None:
        async with hsm.signer() as signer:
            kids = [version.kid for version in await signer.key_versions()]
            assert kids == sorted(kids)
            assert len(kids) == 5

    asyncio.run(scenario())


def test_other_keys_are_not_ours(hsm: SoftHSM) -> None:
    """Keys with another label, or that may not sign, are passed over."""
    hsm.generate("macp", "01")
    hsm.generate("macp2", "02")
    hsm.run(sys.executable, "-c", MAY_NOT_SIGN, hsm.module, hsm.pin)

    async def scenario() -> None:
        async with hsm.signer() as signer:
            assert len(await signer.key_versions()) == 1

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ([], "no private key labelled 'macp' .*KEY_LABEL"),
        ([("macp", "EC:prime256v1"), ("macp", "EC:prime256v1")], "several private keys .* without a time"),
        ([("macp@tomorrow", "EC:prime256v1")], "'macp@tomorrow': after the @ must be its creation time"),
        ([("macp", "EC:secp384r1")], "'macp' .* not P-256"),
        ([("macp", "EC:edwards25519")], "'macp' is neither RSA nor EC"),
    ],
    ids=["none", "two-without-time", "no-time", "other-curve", "other-type"],
)
def test_keys_that_can_not_work_are_named(hsm: SoftHSM, keys: list[tuple[str, str]], message: str) -> None:
    """What an operator got wrong is said with the label that shows it."""
    for number, (label, key_type) in enumerate(keys, 1):
        hsm.generate(label, f"0{number}", key_type)

    async def scenario() -> None:
        async with hsm.signer() as signer:
            with pytest.raises(SignerMisconfigured, match=message):
                await signer.key_versions()

    asyncio.run(scenario())


@pytest.mark.parametrize("label", ["macp", "macp@tomorrow"])
def test_bad_new_key_leaves_the_good_ones_signing(hsm: SoftHSM, label: str) -> None:
    """A listing that fails for new keys' sake takes no key away, however the token orders them."""
    hsm.generate("macp", "01")

    async def scenario() -> None:
        async with hsm.signer() as signer:
            (version,) = await signer.key_versions()
            for number in range(2, 5):
                hsm.generate(label, f"0{number}")
            with pytest.raises(SignerMisconfigured):
                await signer.key_versions()
            assert_verifies(await mint(signer, version, {}), version, {})

    asyncio.run(scenario())


def test_planted_public_key_is_not_published(hsm: SoftHSM) -> None:
    """A public key that someone without the PIN wrote under the key's CKA_ID is not believed."""
    hsm.generate("macp", "01")
    planted = ec.generate_private_key(ec.SECP256R1()).public_key()
    der = planted.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    async def scenario() -> None:
        async with hsm.signer() as signer:
            before = await signer.key_versions()
            for _ in range(3):
                hsm.write("pubkey", der, "01", pin=None)
            assert await signer.key_versions() == before
            hsm.delete("01", *["pubkey"] * 4)
            hsm.write("pubkey", der, "01", pin=None)
            with pytest.raises(SignerMisconfigured, match="no public key and no certificate that belongs"):
                await signer.key_versions()

    asyncio.run(scenario())


def test_public_half_from_a_certificate(hsm: SoftHSM) -> None:
    """Where the token has no public key object, a certificate with the same CKA_ID serves."""
    hsm.generate("macp", "01")

    async def scenario() -> None:
        async with hsm.signer() as signer:
            (before,) = await signer.key_versions()
            hsm.delete("01", "pubkey")
            with pytest.raises(SignerMisconfigured, match="no public key and no certificate"):
                await signer.key_versions()
            hsm.write("cert", certificate(before), "01")
            assert await signer.key_versions() == [before]

    asyncio.run(scenario())


def certificate(version: KeyVersion) -> bytes:
    """A certificate for the version's public key."""
    return certify(jwt.PyJWK({**msgspec.to_builtins(version.public_jwk), "alg": "ES256"}).key)


def certify(public: Any) -> bytes:
    """A certificate by an issuer of its own."""
    name, now = x509.Name([]), datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, public, 1, now, now + timedelta(days=1))
    return builder.sign(ec.generate_private_key(ec.SECP256R1()), SHA256()).public_bytes(Encoding.DER)


def test_certificate_of_another_curve(hsm: SoftHSM) -> None:
    """A key on another curve of 256 bits is not published as P-256, though its certificate is its own."""
    hsm.generate("macp", "01", "EC:secp256k1")

    def public(device: Any) -> Any:
        (found,) = device._session.get_objects({pkcs11.Attribute.CLASS: pkcs11.ObjectClass.PUBLIC_KEY})
        return ec.EllipticCurvePublicKey.from_encoded_point(
            ec.SECP256K1(), found[pkcs11.Attribute.EC_POINT][-65:]
        )

    async def scenario() -> None:
        async with hsm.signer() as signer:
            with pytest.raises(SignerMisconfigured, match="not P-256"):
                await signer.key_versions()
            hsm.write("cert", certify(public(signer._device)), "01")
            hsm.delete("01", "pubkey")
            with pytest.raises(SignerMisconfigured, match="not P-256"):
                await signer.key_versions()

    asyncio.run(scenario())


def test_rsa_needs_no_public_object(hsm: SoftHSM) -> None:
    """An RSA private key carries its own modulus and exponent."""
    hsm.generate("macp", "01", "rsa:2048")

    async def scenario() -> None:
        async with hsm.signer() as signer:
            before = await signer.key_versions()
            hsm.delete("01", "pubkey")
            assert await signer.key_versions() == before

    asyncio.run(scenario())


def test_lost_session_is_opened_again(hsm: SoftHSM) -> None:
    """A session that the library no longer knows costs no caller an error."""
    hsm.generate("macp", "01")

    async def scenario() -> None:
        async with hsm.signer() as signer:
            (version,) = await signer.key_versions()
            device: Any = signer._device
            for _ in range(2):
                device._session.close()
                assert_verifies(await mint(signer, version, {}), version, {})
            device._library.finalize()
            assert await signer.key_versions() == [version]

    asyncio.run(scenario())


def test_one_new_session_a_request_and_no_storm(hsm: SoftHSM, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token that fails in a new session too is left alone for a while."""
    hsm.generate("macp", "01")
    openings = []

    class Failing:
        def close(self) -> None:
            raise AssertionError("the library forgets sessions by itself")

        def get_objects(self, _template: object) -> None:
            raise pkcs11.exceptions.DeviceRemoved

    def log_in(*_: object) -> Failing:
        openings.append(1)
        return Failing()

    async def scenario() -> None:
        async with hsm.signer() as signer:
            (version,) = await signer.key_versions()
            device: Any = signer._device
            monkeypatch.setattr("macp_auth_pkcs11.device.OPENING_INTERVAL", 60)
            monkeypatch.setattr(device, "_opened_at", -60)
            monkeypatch.setattr(device, "_log_in", log_in)
            device._session.close()
            with pytest.raises(SignerUnavailable, match="failed: DeviceRemoved"):
                await signer.sign(version.kid, b"x")
            with pytest.raises(SignerUnavailable, match="has just failed"):
                await signer.sign(version.kid, b"x")
            assert openings == [1]

    asyncio.run(scenario())


def test_token_that_comes_later(empty_hsm: SoftHSM) -> None:
    """A missing token may return: the library's list of slots is read again."""

    async def scenario() -> None:
        async with empty_hsm.signer() as signer:
            for _ in range(2):
                with pytest.raises(SignerUnavailable, match="no slot has a token labelled 'macp'") as caught:
                    await signer.key_versions()
                assert caught.value.reason == "no-token"
            empty_hsm.make_token()
            empty_hsm.generate("macp", "01")
            assert len(await signer.key_versions()) == 1

    asyncio.run(scenario())


def test_two_tokens_of_one_label(hsm: SoftHSM) -> None:
    """Which token is meant must be said, by its serial number."""
    hsm.generate("macp", "01")
    serial = next(
        line.split()[-1]
        for line in hsm.run(hsm.tool, "--module", hsm.module, "--list-token-slots").splitlines()
        if "serial num" in line
    )
    hsm.make_token()

    async def scenario() -> None:
        async with hsm.signer() as signer:
            with pytest.raises(SignerMisconfigured, match="2 tokens are labelled 'macp'; set .*TOKEN_SERIAL"):
                await signer.key_versions()
        async with hsm.signer(token_serial=serial) as signer:
            assert len(await signer.key_versions()) == 1

    asyncio.run(scenario())


def test_wrong_pin_is_tried_once(hsm: SoftHSM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused PIN never reaches the token again; another one in the file does, without a restart."""
    calls = tmp_path / "calls"
    monkeypatch.setenv("PKCS11SPY", hsm.module)
    monkeypatch.setenv("PKCS11SPY_OUTPUT", str(calls))
    hsm.generate("macp", "01")
    hsm.write_pin("wrong-pin-0000")

    def logins() -> int:
        return calls.read_text().count(": C_Login\n")

    async def scenario() -> None:
        async with hsm.signer(module=hsm.spy) as signer:
            for attempt in range(3):
                with pytest.raises(SignerRefused, match="not .*PIN_FILE") as caught:
                    await (signer.sign("kid", b"x") if attempt else signer.key_versions())
                assert caught.value.reason == "pin-refused"
                assert "wrong-pin" not in f"{caught.value!r} {caught.value.__cause__!r} {vars(signer)!r}"
            assert logins() == 1
            hsm.write_pin(hsm.pin)
            assert len(await signer.key_versions()) == 1
            assert logins() == 2

    asyncio.run(scenario())


@pytest.mark.parametrize("flag", [pkcs11.TokenFlag.USER_PIN_FINAL_TRY, pkcs11.TokenFlag.USER_PIN_LOCKED])
def test_last_try_is_the_operators(
    hsm: SoftHSM, monkeypatch: pytest.MonkeyPatch, flag: pkcs11.TokenFlag
) -> None:
    """Where one more wrong PIN would lock the token, none is shown to it."""

    class Token:
        flags = flag

        def open(self, **_: object) -> None:
            pytest.fail("the PIN was tried")

    async def scenario() -> None:
        async with hsm.signer() as signer:
            monkeypatch.setattr(signer._device, "_token", Token)
            with pytest.raises(SignerRefused, match="so it is not tried") as caught:
                await signer.key_versions()
            assert caught.value.reason == "pin-locked"

    asyncio.run(scenario())


def test_module_that_is_no_library(hsm: SoftHSM, tmp_path: Path) -> None:
    """A file that can't be loaded is the operator's mistake, and its variable is named."""
    module = tmp_path / "no-library.so"
    module.write_text("text")

    async def scenario() -> None:
        async with hsm.signer(module=str(module)) as signer:
            with pytest.raises(SignerMisconfigured, match="MACP_AUTH_PKCS11_MODULE can't be loaded"):
                await signer.key_versions()

    asyncio.run(scenario())


def test_library_is_loaded_by_the_first_call(hsm: SoftHSM, tmp_path: Path) -> None:
    """Neither prepare nor the signer's making loads the library: either may come before a fork."""
    hsm.generate("macp", "01")
    module = tmp_path / "alias.so"
    module.symlink_to(hsm.module)

    async def scenario() -> None:
        async with hsm.signer(module=str(module)) as signer:
            assert str(module) not in pkcs11._loaded
            await signer.key_versions()
            assert str(module) in pkcs11._loaded

    asyncio.run(scenario())


def test_close_ends_the_session(hsm: SoftHSM) -> None:
    """After the end the library is free, and calls are refused; again is harmless."""
    hsm.generate("macp", "01")

    async def scenario() -> None:
        async with hsm.signer() as signer:
            (version,) = await signer.key_versions()
            await signer.aclose()
            await signer.aclose()
            assert not pkcs11._loaded[hsm.module].initialized
            for call in (signer.key_versions(), signer.sign(version.kid, b"x")):
                with pytest.raises(SignerUnavailable, match="closed"):
                    await call

    asyncio.run(scenario())


def test_nothing_shows_the_pin(hsm: SoftHSM) -> None:
    """No repr of the signer or what it is made of has the PIN, before the login or after."""
    hsm.generate("macp", "01")

    async def scenario() -> None:
        async with hsm.signer() as signer:
            for _ in range(2):
                shown = [
                    repr(signer),
                    repr(vars(signer)),
                    repr(vars(signer._device)),
                    repr(hsm.settings()),
                ]
                assert hsm.pin not in " ".join(shown)
                await signer.key_versions()

    asyncio.run(scenario())
