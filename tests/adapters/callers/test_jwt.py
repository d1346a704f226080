"""Callers by JWT: what is accepted, what is remembered, and how tokens are forged."""

from __future__ import annotations

import asyncio
import base64
import gc
import hashlib
import hmac
import itertools
import json
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jwt as pyjwt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwk
from joserfc import jwt as joserfc_jwt

from macp_auth.adapters import jose
from macp_auth.adapters.callers import jwt as method_module
from macp_auth.adapters.callers.issuer_keys import IssuerKeys
from macp_auth.adapters.callers.jwt import LEEWAY_SECONDS, MAX_CHARS, JWTMethod
from macp_auth.domain.callers import Caller, Credentials, Method
from macp_auth.domain.encoding import base64url
from macp_auth.domain.errors import BadCredential, CredentialFault
from macp_auth.domain.keys import Algorithm
from tests.adapters.callers.issuing import (
    AUDIENCE,
    ISSUER,
    NAME,
    SUBJECT,
    claims,
    document,
    issuer_of_file,
    keys_of,
    pem,
    private,
    token,
)
from tests.support import jwks
from tests.support.fake_server import FakeServer, Reply

EC, RSA = private("ec-1"), private("rsa-1", "RS256")
SUBJECTS = {(NAME, SUBJECT): "playground", ("other", SUBJECT): "other-playground"}
PLAYGROUND = Caller("playground", Method.JWT, SUBJECT)


class Clock:
    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keys(tmp_path: Path) -> IssuerKeys:
    return keys_of(tmp_path / "jwks.json", EC, RSA)


@pytest.fixture
def method(keys: IssuerKeys, clock: Clock) -> JWTMethod:
    return JWTMethod(SUBJECTS, [keys], clock)


@pytest.fixture
def verifications(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """The results of all signature verifications."""
    results: list[bool] = []

    def verifies(*arguments: Any) -> bool:
        results.append(jose.verifies(*arguments))
        return results[-1]

    monkeypatch.setattr(method_module, "jose", SimpleNamespace(verifies=verifies))
    return results


def caller_of(method: JWTMethod, bearer: str) -> Caller | None:
    return method.authenticate(Credentials(bearer=bearer))


def fault_of(method: JWTMethod, bearer: str) -> CredentialFault:
    with pytest.raises(BadCredential) as raised:
        caller_of(method, bearer)
    return raised.value.fault


def with_pyjwt(key: dict[str, Any], payload: dict[str, Any]) -> str:
    return pyjwt.encode(payload, pyjwt.PyJWK(key).key, key["alg"], {"kid": key["kid"]})


def with_joserfc(key: dict[str, Any], payload: dict[str, Any]) -> str:
    return joserfc_jwt.encode({"alg": key["alg"], "kid": key["kid"]}, payload, jwk.import_key(key))


# --- accepted -----------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [EC, RSA], ids=["ES256", "RS256"])
@pytest.mark.parametrize("make", [with_pyjwt, with_joserfc, token])
def test_libraries(method: JWTMethod, make: Callable[..., str], key: dict[str, Any]) -> None:
    """What other implementations sign is accepted."""
    assert caller_of(method, make(key, body=claims()) if make is token else make(key, claims())) == PLAYGROUND


@pytest.mark.parametrize(
    "changed",
    [
        {"aud": AUDIENCE},
        {"aud": ["other", AUDIENCE]},
        {"nbf": ..., "iat": ..., "jti": ...},
        {"exp": time.time() + 600.5},
        {"exp": 2**53},
        {"groups": ["\0", "\ud800", {"a": [None]}]},  # nothing reads them
        {"iat": 0, "nbf": 0.5},
    ],
)
def test_claims(method: JWTMethod, changed: dict[str, Any]) -> None:
    """Forms that the standard allows."""
    assert caller_of(method, token(EC, body=claims(**changed))) == PLAYGROUND


def test_jwt_svid(tmp_path: Path, clock: Clock) -> None:
    """A JWT-SVID names its workload by SPIFFE ID."""
    spiffe_id = "spiffe://example.org/playground"
    keys = keys_of(tmp_path / "jwks.json", EC, name="spire", issuer="https://spire.example.org")
    method = JWTMethod({("spire", spiffe_id): "playground"}, [keys], clock)
    body = {"aud": [AUDIENCE], "exp": clock.now + 300, "iss": "https://spire.example.org", "sub": spiffe_id}
    assert caller_of(method, token(EC, {"alg": "ES256", "kid": "ec-1", "typ": "JWT"}, body)) == Caller(
        "playground", Method.JWT, spiffe_id
    )


def test_no_key_id(tmp_path: Path, clock: Clock, verifications: list[bool]) -> None:
    """Without a key ID, the only key of the algorithm is tried, and none if there are several."""
    keys = keys_of(tmp_path / "jwks.json", EC, RSA, private("rsa-2", "RS256", 1))
    method = JWTMethod(SUBJECTS, [keys], clock)
    assert caller_of(method, token(EC, {"alg": "ES256"})) == PLAYGROUND
    assert fault_of(method, token(private(None, copy=1), {"alg": "ES256"})) is CredentialFault.BAD_SIGNATURE
    assert fault_of(method, token(RSA, {"alg": "RS256"})) is CredentialFault.UNKNOWN_KEY
    assert verifications == [True, False]
    nameless = JWTMethod(SUBJECTS, [keys_of(tmp_path / "other.json", private(None), RSA)], clock)
    assert caller_of(nameless, token(EC, {"alg": "ES256"})) == PLAYGROUND
    assert fault_of(nameless, token(EC)) is CredentialFault.UNKNOWN_KEY


# --- not for this method ------------------------------------------------------------------------


@pytest.mark.parametrize("bearer", [None, "", "x", "a.b", "a.b.c.d", "a.b.c.d.e", "macp_x"])
def test_other_credentials(method: JWTMethod, bearer: str | None) -> None:
    """A token has two dots."""
    assert method.authenticate(Credentials(bearer=bearer, forwarded="a.b.c", peer_is_loopback=True)) is None


# --- forged -------------------------------------------------------------------------------------


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "nOnE", "", None, ["none"], {"a": 1}, 0, ...])
def test_no_algorithm(method: JWTMethod, alg: Any, verifications: list[bool]) -> None:
    """Unsigned tokens, with and without a signature."""
    header = {"kid": "ec-1"} if alg is ... else {"alg": alg, "kid": "ec-1"}
    signed = token(EC, header)
    unsigned = signed[: signed.rindex(".") + 1]
    assert fault_of(method, signed) is CredentialFault.WRONG_ALGORITHM
    assert fault_of(method, unsigned) is CredentialFault.WRONG_ALGORITHM
    assert not verifications


@pytest.mark.parametrize(
    "alg", ["HS256", "HS512", "RS512", "PS256", "ES384", "ES256K", "EdDSA", "es256", "RS256 "]
)
def test_other_algorithms(method: JWTMethod, alg: str, verifications: list[bool]) -> None:
    """Also with a public key of the issuer as the shared secret."""
    for secret in (pem(RSA), pem(RSA).strip(), json.dumps(jwks.public(RSA)).encode(), b""):
        signing_input = token(RSA, {"alg": alg, "kid": "rsa-1"}).rpartition(".")[0]
        signature = base64url(hmac.digest(secret, signing_input.encode(), hashlib.sha256))
        assert fault_of(method, f"{signing_input}.{signature}") is CredentialFault.WRONG_ALGORITHM
    assert not verifications


def test_algorithm_of_the_issuer(tmp_path: Path, clock: Clock) -> None:
    """The callers file may allow fewer."""
    keys = keys_of(tmp_path / "jwks.json", EC, RSA, algorithms=(Algorithm.ES256,))
    method = JWTMethod(SUBJECTS, [keys], clock)
    assert caller_of(method, token(EC)) == PLAYGROUND
    assert fault_of(method, token(RSA)) is CredentialFault.WRONG_ALGORITHM


def test_algorithm_of_the_key(method: JWTMethod) -> None:
    """A key is used with its own algorithm only."""
    assert fault_of(method, token(RSA, {"alg": "RS256", "kid": "ec-1"})) is CredentialFault.UNKNOWN_KEY
    assert fault_of(method, token(EC, {"alg": "ES256", "kid": "rsa-1"})) is CredentialFault.UNKNOWN_KEY
    assert fault_of(method, token(RSA, {"alg": "ES256", "kid": "ec-1"})) is CredentialFault.BAD_SIGNATURE
    assert fault_of(method, token(EC, {"alg": "RS256", "kid": "rsa-1"})) is CredentialFault.BAD_SIGNATURE


@pytest.mark.parametrize(
    "kid",
    [
        "../../../../dev/null",
        "/dev/null",
        "/proc/sys/kernel/randomize_va_space",
        "file:///etc/passwd",
        "https://attacker.example/jwks.json",
        "x' UNION SELECT 'key';--",
        "ec-1; rm -rf /",
        "EC-1",
        "ec-1 ",
        "ec-2",
        "*",
        "a" * 5000,
    ],
)
def test_unknown_key_ids(method: JWTMethod, kid: str, verifications: list[bool]) -> None:
    """A key ID is only ever compared."""
    assert fault_of(method, token(EC, {"alg": "ES256", "kid": kid})) is CredentialFault.UNKNOWN_KEY
    assert not verifications


@pytest.mark.parametrize(
    "kid", ["", "ec-1\0", "\0", "ec\n1", "\ud800", "\u202eec-1", None, 1, ["ec-1"], {"a": 1}, True]
)
def test_malformed_key_ids(method: JWTMethod, kid: Any, verifications: list[bool]) -> None:
    """Also null: it is not taken for an absent one."""
    assert fault_of(method, token(EC, {"alg": "ES256", "kid": kid})) is CredentialFault.MALFORMED
    assert not verifications


def test_keys_in_the_header(method: JWTMethod) -> None:
    """They are not used, and nothing is fetched. A good token may have them."""
    attacker = private("ec-1", copy=7)
    with FakeServer(lambda _: Reply(200, json.loads(document(attacker)))) as server:
        url = f"{server.url}/jwks.json"
        certificate = base64.b64encode(b"certificate").decode()
        for extra in ({"jku": url}, {"x5u": url}, {"jwk": jwks.public(attacker)}, {"x5c": [certificate]}):
            header = {"alg": "ES256", "kid": "ec-1", **extra}
            assert fault_of(method, token(attacker, header)) is CredentialFault.BAD_SIGNATURE
            header["kid"] = "attacker"
            assert fault_of(method, token(attacker, header)) is CredentialFault.UNKNOWN_KEY
            assert caller_of(method, token(EC, {"alg": "ES256", "kid": "ec-1", **extra})) == PLAYGROUND
        assert not server.requests


@pytest.mark.parametrize("crit", [["exp"], ["b64"], [], None, "b64", ["x", "y"]])
def test_critical_extensions(method: JWTMethod, crit: Any) -> None:
    """None is understood."""
    header = {"alg": "ES256", "kid": "ec-1", "crit": crit, "b64": False}
    assert fault_of(method, token(EC, header)) is CredentialFault.MALFORMED


@pytest.mark.parametrize(
    "issuer",
    [
        f"{ISSUER}/",
        f"{ISSUER}.attacker.example",
        ISSUER[:-1],
        ISSUER.upper(),
        f" {ISSUER}",
        "https://other.example",
        "cluster",
        f"{ISSUER}%2F",
    ],
)
def test_unknown_issuers(method: JWTMethod, issuer: str, verifications: list[bool]) -> None:
    """It is compared exactly, before any key is used."""
    assert fault_of(method, token(EC, body=claims(iss=issuer))) is CredentialFault.UNKNOWN_ISSUER
    assert not verifications


def test_other_issuer(tmp_path: Path, clock: Clock) -> None:
    """The keys of one issuer are worth nothing for another, whose subjects are other callers."""
    other_key = private("ec-1", copy=1)
    other = keys_of(tmp_path / "other.json", other_key, private("ec-9"), name="other", issuer="https://o")
    method = JWTMethod(SUBJECTS, [keys_of(tmp_path / "jwks.json", EC), other], clock)
    assert caller_of(method, token(EC)) == PLAYGROUND
    assert caller_of(method, token(other_key, body=claims(iss="https://o"))) == Caller(
        "other-playground", Method.JWT, SUBJECT
    )
    assert fault_of(method, token(other_key)) is CredentialFault.BAD_SIGNATURE
    assert fault_of(method, token(EC, body=claims(iss="https://o"))) is CredentialFault.BAD_SIGNATURE
    assert fault_of(method, token(private("ec-9"))) is CredentialFault.UNKNOWN_KEY


@pytest.mark.parametrize(
    "audience",
    [..., [], "", "macp", "macp-auth2", "MACP-AUTH", [f" {AUDIENCE}"], ["a", "b"], "macp-auth macp-runtime"],
)
def test_other_audiences(method: JWTMethod, audience: Any) -> None:
    """A token for another service is none for this one."""
    assert fault_of(method, token(EC, body=claims(aud=audience))) is CredentialFault.WRONG_AUDIENCE


@pytest.mark.parametrize("audience", [None, 1, {AUDIENCE: 1}, [AUDIENCE, 1], [[AUDIENCE]], [None]])
def test_malformed_audiences(method: JWTMethod, audience: Any) -> None:
    assert fault_of(method, token(EC, body=claims(aud=audience))) is CredentialFault.MALFORMED


def test_times(method: JWTMethod, clock: Clock) -> None:
    """Of each, 30 s are allowed for the clock of the issuer."""
    assert LEEWAY_SECONDS == 30
    now = clock.now = float(int(clock.now))
    assert caller_of(method, token(EC, body=claims(exp=now - 29.5))) == PLAYGROUND
    assert fault_of(method, token(EC, body=claims(exp=now - 30))) is CredentialFault.EXPIRED
    assert fault_of(method, token(EC, body=claims(exp=0))) is CredentialFault.EXPIRED
    for name in ("nbf", "iat"):
        assert caller_of(method, token(EC, body=claims(**{name: now + 30}))) == PLAYGROUND
        assert fault_of(method, token(EC, body=claims(**{name: now + 31}))) is CredentialFault.NOT_YET_VALID


@pytest.mark.parametrize("name", ["exp", "nbf", "iat"])
@pytest.mark.parametrize(
    "value", [None, "2000000000", True, -1, [], {}, 2**53 + 2, 10**400, 1e400, float("nan")]
)
def test_malformed_times(method: JWTMethod, name: str, value: Any) -> None:
    assert fault_of(method, token(EC, body=claims(**{name: value}))) is CredentialFault.MALFORMED
    text = json.dumps(claims(**{name: 0})).replace(f'"{name}": 0', f'"{name}": {"9" * 5000}')
    assert fault_of(method, token(EC, body=text)) is CredentialFault.MALFORMED


def test_no_expiry(method: JWTMethod) -> None:
    """A token for ever is none."""
    assert fault_of(method, token(EC, body=claims(exp=...))) is CredentialFault.MALFORMED


@pytest.mark.parametrize("subject", ["system:serviceaccount:macp:other", SUBJECT.upper(), f"{SUBJECT} ", "*"])
def test_unknown_subjects(method: JWTMethod, subject: str) -> None:
    assert fault_of(method, token(EC, body=claims(sub=subject))) is CredentialFault.UNKNOWN_CALLER


@pytest.mark.parametrize("name", ["iss", "sub"])
@pytest.mark.parametrize(
    "value", [..., None, "", 1, [SUBJECT], {}, "\0", f"{SUBJECT}\0", "a\ud800", "a\u200b", "a\n"]
)
def test_malformed_names(method: JWTMethod, name: str, value: Any) -> None:
    """NUL, lone surrogates and what nobody can see are in no name."""
    assert fault_of(method, token(EC, body=claims(**{name: value}))) is CredentialFault.MALFORMED


GOOD = json.dumps(claims(exp=2**40))
HEADER = '{"alg":"ES256","kid":"ec-1"}'


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        '"a"',
        "1",
        "{",
        "{}{}",
        "\ufeff{}",
        "{'alg':'ES256'}",
        "\udcff",
        b"\xff",
        b'{"a":"\xed\xa0\x80"}',
        '{"a":NaN}',
        '{"a":-Infinity}',
        '{"a":"\0"}',
        "[" * 9000,
        '{"a":' * 2000 + "1" + "}" * 2000,
    ],
    ids=repr,
)
def test_malformed_json(method: JWTMethod, text: Any) -> None:
    """In the header and in the claims."""
    assert fault_of(method, token(EC, text)) is CredentialFault.MALFORMED
    assert fault_of(method, token(EC, body=text)) is CredentialFault.MALFORMED


def test_repeated_members(method: JWTMethod) -> None:
    """Other readers may use the other one."""
    body, header = GOOD[:-1], HEADER[:-1]
    assert caller_of(method, token(EC, HEADER, GOOD)) == PLAYGROUND
    for name, value in (
        ("sub", SUBJECT),
        ("iss", ISSUER),
        ("aud", AUDIENCE),
        ("exp", 1),
        ("jti", "c8b2d1c4"),
    ):
        assert (
            fault_of(method, token(EC, body=f'{body},"{name}":{json.dumps(value)}}}'))
            is CredentialFault.MALFORMED
        )
    assert fault_of(method, token(EC, body=body + ',"x":{"a":1,"a":1}}')) is CredentialFault.MALFORMED
    assert fault_of(method, token(EC, body=body + r',"\u0073ub":"x"}')) is CredentialFault.MALFORMED
    for member in ('"alg":"none"', '"alg":"ES256"', '"kid":"ec-1"', '"x":1,"x":1'):
        assert fault_of(method, token(EC, f"{header},{member}}}")) is CredentialFault.MALFORMED


@pytest.mark.parametrize("at", range(3))
@pytest.mark.parametrize(
    "extra", ["=", "==", "A", "+", "/", " ", "\n", "\0", "%", "\N{POUND SIGN}", "\ud800"]
)
def test_malformed_base64url(method: JWTMethod, at: int, extra: str) -> None:
    """Readers of base64 differ in what they skip."""
    segments = token(EC).split(".")
    for changed in (segments[at] + extra, extra + segments[at]):
        bearer = ".".join([*segments[:at], changed, *segments[at + 1 :]])
        assert fault_of(method, bearer) in {CredentialFault.MALFORMED, CredentialFault.BAD_SIGNATURE}


def test_unused_bits(method: JWTMethod) -> None:
    """A signature has one spelling."""
    good = token(EC)
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".index(good[-1])
    assert last % 16 == 0
    for bits in range(1, 16):
        changed = good[:-1] + "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"[last + bits]
        assert fault_of(method, changed) is CredentialFault.MALFORMED


@pytest.mark.parametrize("bearer", ["..", "a..", ".a.", "..a", "a.b.c", "e30.e30.", "e30..e30"])
def test_empty_parts(method: JWTMethod, bearer: str) -> None:
    assert fault_of(method, bearer) is CredentialFault.MALFORMED


@pytest.mark.parametrize(
    "signature", [b"", b"\0" * 64, b"\0" * 63, b"\0" * 65, b"\xff" * 64, b"\0" * 256, b"0\6\2\1\1\2\1\1"]
)
def test_malformed_signatures(method: JWTMethod, signature: bytes) -> None:
    """Zero values (CVE-2022-21449), DER, other lengths."""
    for key in (EC, RSA):
        signing_input = token(key).rpartition(".")[0]
        assert fault_of(method, f"{signing_input}.{base64url(signature)}") is CredentialFault.BAD_SIGNATURE


def test_long_tokens(method: JWTMethod, verifications: list[bool]) -> None:
    """They are refused by their length, before anything is decoded."""
    padding = MAX_CHARS - len(token(EC, body=claims(x="")))
    longest = token(EC, body=claims(x="a" * (padding * 3 // 4)))
    assert MAX_CHARS - 4 < len(longest) <= MAX_CHARS
    assert caller_of(method, longest) == PLAYGROUND
    verifications.clear()
    assert (
        fault_of(method, token(EC, body=claims(x="a" * (padding * 3 // 4 + 4)))) is CredentialFault.MALFORMED
    )
    began = time.process_time()
    assert fault_of(method, f"{'a' * 2**20}.{'b' * 2**20}.c") is CredentialFault.MALFORMED
    assert method.authenticate(Credentials(bearer="." * 2**20)) is None
    assert time.process_time() - began < 0.1
    assert not verifications


@given(st.data())
def test_changed_tokens(data: st.DataObject) -> None:
    """Whatever is changed, it is refused, and nothing but BadCredential is raised."""
    method = _shared_method()
    at = data.draw(st.integers(0, len(SHARED) - 1))
    character = data.draw(st.characters(max_codepoint=0xD800))
    changed = SHARED[:at] + character + SHARED[at + data.draw(st.integers(0, 2)) :]
    if changed == SHARED or changed.count(".") != 2:
        return
    fault_of(method, changed)


SHARED = token(EC, HEADER, GOOD)
_ISSUER = issuer_of_file(Path("/nowhere"))
_methods: list[JWTMethod] = []


def _shared_method() -> JWTMethod:
    """A method whose keys need no file."""
    if not _methods:
        keys = IssuerKeys(_ISSUER)
        keys._keys = {("ec-1", Algorithm.ES256): jose.load(jwks.public(EC))}  # type: ignore[dict-item]
        keys._read_at = time.monotonic()
        _methods.append(JWTMethod(SUBJECTS, [keys], time.time))
        assert caller_of(_methods[0], SHARED) == PLAYGROUND
    return _methods[0]


# --- remembered ---------------------------------------------------------------------------------


def test_remembered(method: JWTMethod, clock: Clock, verifications: list[bool]) -> None:
    """A token is verified once, and refused at the same time as another that expires with it."""
    began = clock.now
    bearer = token(EC, body=claims(exp=began + 10))
    for seconds in (0, 1, 39.9):
        clock.now = began + seconds
        assert caller_of(method, bearer) == PLAYGROUND
    assert verifications == [True]
    clock.now = began + 40
    assert fault_of(method, bearer) is CredentialFault.EXPIRED


def test_changed_signature_of_a_remembered_token(method: JWTMethod) -> None:
    bearer = token(EC)
    assert caller_of(method, bearer) == PLAYGROUND
    signing_input = bearer.rpartition(".")[0]
    assert fault_of(method, f"{signing_input}.{base64url(b'a' * 64)}") is CredentialFault.BAD_SIGNATURE
    assert caller_of(method, bearer) == PLAYGROUND


def test_rotation(keys: IssuerKeys, method: JWTMethod, tmp_path: Path, verifications: list[bool]) -> None:
    """Other keys may come and go. A token is refused at the first use after its key has gone."""
    bearer = token(EC)
    assert caller_of(method, bearer) == PLAYGROUND

    def publish(*published: dict[str, Any]) -> None:
        (tmp_path / "jwks.json").write_bytes(document(*published))
        asyncio.run(keys.refresh())

    publish(EC, private("ec-2", copy=2))
    assert caller_of(method, bearer) == PLAYGROUND
    assert verifications == [True]
    publish(private("ec-1", copy=3))  # the same ID, another key
    assert fault_of(method, bearer) is CredentialFault.BAD_SIGNATURE
    publish(EC)
    assert caller_of(method, bearer) == PLAYGROUND
    publish(private("ec-2", copy=2))
    assert fault_of(method, bearer) is CredentialFault.UNKNOWN_KEY


def test_limit(method: JWTMethod, monkeypatch: pytest.MonkeyPatch, verifications: list[bool]) -> None:
    """The token that was not used for longest is forgotten."""
    monkeypatch.setattr(method_module, "REMEMBERED", 3)
    bearers = [token(EC, body=claims(jti=f"{n}")) for n in range(4)]
    for n in (0, 1, 2, 0, 3):
        assert caller_of(method, bearers[n]) == PLAYGROUND
    assert len(verifications) == 4
    for n in (0, 2, 3):
        assert caller_of(method, bearers[n]) == PLAYGROUND
    assert len(verifications) == 4
    assert caller_of(method, bearers[1]) == PLAYGROUND
    assert len(verifications) == 5
    assert len(method._remembered) == 3


def test_garbage(method: JWTMethod, verifications: list[bool]) -> None:
    """10,000 distinct bad tokens leave nothing behind, and most cost no verification."""
    good = token(EC)
    assert caller_of(method, good) == PLAYGROUND
    verifications.clear()
    signature = base64url(b"s" * 64)
    kinds = itertools.cycle(
        [
            ({"alg": "ES256", "kid": "unknown-{n}"}, {}),
            ({"alg": "ES256", "kid": "ec-1"}, {"iss": "https://issuer-{n}.example"}),
            ({"alg": "none"}, {}),
            ({"alg": "ES256", "kid": "ec-1", "n": "{n}"}, {}),
        ]
    )

    def garbage(n: int) -> str:
        header, changed = (json.dumps(each).replace("{n}", f"{n}") for each in next(kinds))
        body = json.dumps({**claims(jti=f"{n}"), **json.loads(changed)})
        return f"{base64url(header.encode())}.{base64url(body.encode())}.{signature}"

    tokens = [garbage(n) for n in range(10_000)]
    for each in tokens[:100]:
        fault_of(method, each)
    verifications.clear()
    gc.collect()
    tracemalloc.start()
    try:
        for each in tokens:
            fault_of(method, each)
        gc.collect()
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert grown < 300_000  # 60,000 alone, more beside other tests; one digest kept of each is 700,000
    assert len(method._remembered) == 1
    assert verifications == [False] * 2_500
    began = time.process_time()
    for each in tokens[:2_000]:
        fault_of(method, each)
    assert (time.process_time() - began) / 2_000 < 0.001
