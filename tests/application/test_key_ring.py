"""Which key signs, what is published, and what a token is made of."""

from __future__ import annotations

import asyncio
import bisect
import json
from base64 import urlsafe_b64decode
from collections.abc import Callable, Sequence

import pytest

from macp_auth.application.key_ring import KeyRing
from macp_auth.domain.claims import Claims, probe_claims
from macp_auth.domain.errors import (
    InvalidScopes,
    SignerMisconfigured,
    SignerUnavailable,
    TokenTooLarge,
    UnknownKid,
)
from macp_auth.domain.key_set import MAX_TOKEN_BYTES, KeySet
from macp_auth.domain.keys import Algorithm, ECPublicJWK, KeyVersion, RSAPublicJWK, thumbprint
from macp_auth.domain.rotation import Timing, schedule
from macp_auth.domain.scopes import KNOWN_SCOPES
from macp_auth.domain.signer import Signer

EC = ECPublicJWK(crv="P-256", x="x" * 43, y="y" * 43)
RSA = RSAPublicJWK(n="n" * 342, e="AQAB")

TIMING = Timing(publish_lead=100, retire_lag=50)
NOW = 1_800_000_000.0


def key_set(*versions: KeyVersion) -> KeySet:
    return KeySet(schedule(versions, TIMING, NOW))


def version(kid: str, *, can_sign: bool = True) -> KeyVersion:
    return KeyVersion(kid=kid, algorithm=Algorithm.ES256, public_jwk=EC, can_sign=can_sign)


def claims(**scopes: object) -> Claims:
    return Claims(macp_scopes=scopes, sub="alice", iss="i", aud="a", iat=1, exp=2)


class Recorder(Signer):
    """Signs with nothing, and remembers what it was asked."""

    def __init__(self, *versions: KeyVersion) -> None:
        self.versions = versions
        self.asked: list[tuple[str, bytes]] = []

    async def key_versions(self) -> Sequence[KeyVersion]:
        return self.versions

    async def sign(self, kid: str, signing_input: bytes) -> bytes:
        self.asked.append((kid, signing_input))
        return b"s" * 64

    async def aclose(self) -> None:
        pass


def opened(signer: Signer) -> KeyRing:
    ring = KeyRing(signer, TIMING)
    asyncio.run(ring.refresh(NOW))
    return ring


def test_first_version_that_can_sign_signs() -> None:
    """All are published, in the signer's order; the first able one signs."""
    keys = key_set(version("old", can_sign=False), version("now"), version("next"))
    assert keys.signing.version.kid == "now"
    assert [key["kid"] for key in json.loads(keys.jwks)["keys"]] == ["old", "now", "next"]


def test_published_members() -> None:
    """A published key has its public members, kid, alg and use, and no other."""
    (key,) = json.loads(key_set(version("k")).jwks)["keys"]
    assert key == {
        "kty": "EC",
        "crv": "P-256",
        "x": EC.x,
        "y": EC.y,
        "kid": "k",
        "alg": "ES256",
        "use": "sig",
    }


def test_etag_follows_the_content() -> None:
    """Replicas with the same keys send the same tag, and a change shows."""
    assert key_set(version("a")).etag == key_set(version("a")).etag
    assert key_set(version("a")).etag != key_set(version("b")).etag


@pytest.mark.parametrize(
    ("versions", "message"),
    [
        ([], "can sign"),
        ([version("a", can_sign=False)], "can sign"),
        ([version("a"), version("a")], "same kid"),
    ],
)
def test_unusable_sets(versions: list[KeyVersion], message: str) -> None:
    with pytest.raises(SignerMisconfigured, match=message):
        key_set(*versions)


def test_no_keys_before_the_first_refresh() -> None:
    """Before the signer was asked there is nothing to sign with, and that is a matter of time."""
    ring = KeyRing(Recorder(version("a")), TIMING)
    with pytest.raises(SignerUnavailable):
        _ = ring.keys
    with pytest.raises(SignerUnavailable):
        asyncio.run(ring.sign(claims()))


def test_failed_refresh_keeps_the_keys() -> None:
    """What is in use stays in use when the signer's answer is unusable."""
    signer = Recorder(version("a"))
    ring = opened(signer)
    signer.versions = ()
    with pytest.raises(SignerMisconfigured):
        asyncio.run(ring.refresh(NOW))
    assert ring.keys.signing.version.kid == "a"


def test_token_is_what_was_signed() -> None:
    """Header and payload of the token are the very bytes that the signer got, under the kid in the header."""
    signer = Recorder(version("a"))
    token = asyncio.run(opened(signer).sign(claims(x=1))).token
    header, payload, signature = token.split(".")
    assert signer.asked == [("a", f"{header}.{payload}".encode())]
    assert json.loads(_octets(header)) == {"alg": "ES256", "kid": "a", "typ": "JWT"}
    assert json.loads(_octets(payload)) == {
        "macp_scopes": {"x": 1}, "sub": "alice", "iss": "i", "aud": "a", "iat": 1, "exp": 2
    }  # fmt: skip
    assert _octets(signature) == b"s" * 64
    assert "=" not in token


class Failing(Recorder):
    """Raises its failure, if it has one; ``meanwhile`` is what happens while it signs."""

    failure: Exception | None = None

    async def meanwhile(self) -> None:
        pass

    async def sign(self, kid: str, signing_input: bytes) -> bytes:
        await self.meanwhile()
        if self.failure is not None:
            raise self.failure
        return await super().sign(kid, signing_input)


def test_signed_tokens_are_counted() -> None:
    """Not what is refused unsigned, and not what the signer fails to sign."""
    signer = Failing(version("a"))
    ring = opened(signer)
    for count in (1, 2):
        asyncio.run(ring.sign(claims()))
        assert ring.signed == count
    with pytest.raises(TokenTooLarge):
        asyncio.run(ring.sign(claims(x="y" * MAX_TOKEN_BYTES)))
    signer.failure = SignerUnavailable("down")
    with pytest.raises(SignerUnavailable):
        asyncio.run(ring.sign(claims()))
    assert ring.signed == 2


def test_a_proof_is_a_token_of_typical_size_that_is_worth_nothing() -> None:
    """Each is another, was over years ago, allows nothing, and is not counted as a token."""
    signer = Failing(version("a"))
    ring = opened(signer)
    for now in (NOW, NOW + 0.5):
        asyncio.run(ring.self_test(probe_claims("an-issuer", "an-audience", now)))
    assert ring.signed == 0
    assert [kid for kid, _ in signer.asked] == ["a", "a"]
    assert len({proof for _, proof in signer.asked}) == 2
    for _, proof in signer.asked:
        assert 400 < len(proof) < 1000
        header, payload = proof.decode().split(".")
        assert json.loads(_octets(header)) == {"alg": "ES256", "kid": "a", "typ": "JWT"}
        signed = json.loads(_octets(payload))
        assert signed["iat"] < signed["exp"] < NOW - 9 * 365 * 86400
        assert (signed["iss"], signed["aud"]) == ("an-issuer", "an-audience")
        assert not any(signed["macp_scopes"][name] for name in KNOWN_SCOPES if name != "allowed_modes")


@pytest.mark.parametrize("kid", ["", " a", "a\n", "a\u202eb", "\ud800", "k" * 257])
def test_a_kid_that_can_not_be_seen_or_is_too_long(kid: str) -> None:
    """From any signer."""
    with pytest.raises(SignerMisconfigured, match="kid"):
        key_set(version(kid))


def test_a_version_that_is_gone_asks_for_a_refresh_while_it_is_active() -> None:
    """By a token and by a self-test; not by another failure, nor when it was replaced in the meantime."""
    signer = Failing(version("a"))
    ring = opened(signer)

    def fail() -> list[bool]:
        asked = []
        for attempt in (ring.sign(claims()), ring.self_test(claims())):
            ring.withdrawn.clear()
            with pytest.raises((UnknownKid, SignerUnavailable)):
                asyncio.run(attempt)
            asked.append(ring.withdrawn.is_set())
        return asked

    signer.failure = SignerUnavailable("down")
    assert fail() == [False, False]
    signer.failure = UnknownKid("a")
    assert fail() == [True, True]
    ring.withdrawn.clear()

    async def replace() -> None:
        signer.versions = (version("b"),)
        await ring.refresh(NOW)

    signer.meanwhile = replace  # type: ignore[method-assign]
    with pytest.raises(UnknownKid):
        asyncio.run(ring.sign(claims()))
    assert not ring.withdrawn.is_set()


@pytest.mark.parametrize("jwk", [EC, RSA], ids=["ES256", "RS256"])
def test_largest_token(jwk: ECPublicJWK | RSAPublicJWK) -> None:
    """The limit is on the whole token, exactly, and holds before anything is signed."""

    class RightLength(Recorder):
        async def sign(self, kid: str, signing_input: bytes) -> bytes:
            await super().sign(kid, signing_input)
            return b"s" * (64 if isinstance(jwk, ECPublicJWK) else 256)

    algorithm = Algorithm.ES256 if isinstance(jwk, ECPublicJWK) else Algorithm.RS256
    signer = RightLength(KeyVersion(kid="k", algorithm=algorithm, public_jwk=jwk, can_sign=True))
    ring = opened(signer)

    def length(size: int) -> int:
        return len(asyncio.run(ring.sign(claims(x="y" * size))).token)

    most = bisect.bisect_left(range(8192), x=True, key=lambda size: _refused(length, size)) - 1
    assert MAX_TOKEN_BYTES - 2 < length(most) <= MAX_TOKEN_BYTES
    signed = len(signer.asked)
    with pytest.raises(TokenTooLarge, match=f"limit is {MAX_TOKEN_BYTES}"):
        length(most + 1)
    assert len(signer.asked) == signed


def _refused(length: Callable[[int], int], size: int) -> bool:
    try:
        length(size)
    except TokenTooLarge:
        return True
    return False


def test_lone_surrogate_in_scopes() -> None:
    """Half a pair can't be written as UTF-8; the runtime's parser refuses it too."""
    for scopes in ({"x": "\ud800"}, {"\udfff": 1}):
        with pytest.raises(InvalidScopes, match="surrogate"):
            claims(**scopes).encode()


def test_thumbprint_of_rfc_7638() -> None:
    """The example of RFC 7638, section 3.1."""
    modulus = (
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3okn"
        "jhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvR"
        "L5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"
    )
    assert thumbprint(RSAPublicJWK(n=modulus, e="AQAB")) == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


def _octets(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))
