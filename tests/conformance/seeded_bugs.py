"""Signers that each have one fault, on a backend that is a folder; and one signer that has none.

A service finds them as plugins through entry points like ``tests.conformance.seeded_bugs:bug_der``.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import hashlib
import json
import logging
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature
from msgspec import Struct

from macp_auth import (
    Algorithm,
    ECPublicJWK,
    KeyVersion,
    PublicJWK,
    Secret,
    Signer,
    SignerMisconfigured,
    SignerPlugin,
    SignerRefused,
    SignerUnavailable,
    UnknownKid,
    hookimpl,
    thumbprint,
)
from macp_auth.adapters import jose

CREDENTIAL = "seeded-0123456789abcdef-end"
_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_SEEDED_AT_IMPORT = random.Random(7)  # noqa: S311 - the fault


# --- the backend: a folder ------------------------------------------------------------------------------


class Backend:
    """One JWK a version, in the order of their names; a file ``down``, ``hang``, ... is the state."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add_key(self, algorithm: Algorithm, age: float) -> None:
        """Add a version that was created ``age`` seconds ago."""
        key = jose.generate(algorithm)
        jwk = {**jose.private_jwk(key), "iat": int(time.time() - age)}
        number = len(self._files())
        (self.folder / f"{number:04}.json").write_text(json.dumps(jwk))

    def add_key_with_short_x(self) -> None:
        """Add one whose first coordinate begins with a zero byte: one key in 256 does."""
        while True:
            key = jose.generate(Algorithm.ES256)
            jwk = jose.private_jwk(key)
            if jwk["x"].startswith("AA"):  # 12 zero bits; more than needed
                break
        (self.folder / "0000.json").write_text(json.dumps({**jwk, "iat": int(time.time())}))

    def pairs(self) -> list[tuple[jose.PrivateKey, float]]:
        return _read_keys(self.folder, self.folder.stat().st_mtime_ns)

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("*.json"))


@functools.lru_cache(maxsize=8)  # the kit asks some thousand times
def _read_keys(folder: Path, changed: int) -> list[tuple[jose.PrivateKey, float]]:  # noqa: ARG001 - a part of the key
    return [_read_key(file.read_text()) for file in sorted(folder.glob("*.json"))]


@functools.cache  # an RSA key takes 50 ms to check
def _read_key(text: str) -> tuple[jose.PrivateKey, float]:
    jwk = json.loads(text)
    key = jose.load(jwk)
    assert isinstance(key, jose.PrivateKey)
    return key, float(jwk["iat"])


# --- the signer without a fault -------------------------------------------------------------------------


class SeededSettings(Struct, frozen=True):
    directory: str
    credential: Secret[str]


class UnusableSettings(SeededSettings, frozen=True):
    label: Annotated[str | None, msgspec.Meta(min_length=1)] = None


def prepare(settings: SeededSettings) -> Any:
    if not settings.credential.reveal().endswith("-end"):
        raise SignerMisconfigured("MACP_AUTH_SEEDED_CREDENTIAL must end in -end")
    return settings


@functools.cache
def kid_of(key: jose.PrivateKey) -> str:
    return "seeded-" + thumbprint(jose.public_jwk(key.public_key()))


class GoodSigner(Signer):
    """Does all that a signer must."""

    def __init__(self, settings: SeededSettings) -> None:
        self.backend = Backend(Path(settings.directory))
        self.settings = settings
        self.closed = False

    async def key_versions(self) -> Sequence[KeyVersion]:
        await self.ask()
        return [self.version(key, created_at) for key, created_at in self.backend.pairs()]

    async def sign(self, kid: str, signing_input: bytes) -> bytes:
        await self.ask()
        signature: bytes = self.signature(self.find(kid), signing_input)
        return signature

    async def aclose(self) -> None:
        self.closed = True

    # --- what the faulty ones change ---

    async def ask(self) -> None:
        """Take as long as a backend does, and fail like one."""
        if self.closed:
            raise SignerUnavailable("closed")
        await asyncio.sleep(0.002)
        if (self.backend.folder / "hang").exists():
            await asyncio.sleep(3600)
        if (self.backend.folder / "down").exists():
            raise SignerUnavailable("the folder is down")
        if (self.backend.folder / "refuse").exists():
            raise SignerRefused("the folder refuses")
        if (self.backend.folder / "garble").exists():
            raise SignerUnavailable("the folder has garbage")

    def version(self, key: jose.PrivateKey, created_at: float) -> KeyVersion:
        return KeyVersion(
            kid=kid_of(key),
            algorithm=jose.algorithm_of(key),
            public_jwk=self.jwk(key),
            can_sign=True,
            created_at=created_at,
        )

    def jwk(self, key: jose.PrivateKey) -> PublicJWK:
        return jose.public_jwk(key.public_key())

    def find(self, kid: str) -> jose.PrivateKey:
        for key, _ in self.backend.pairs():
            if kid_of(key) == kid:
                return key
        raise UnknownKid(kid)

    def signature(self, key: jose.PrivateKey, signing_input: bytes) -> Any:
        return jose.sign(key, signing_input)


# --- bad signatures -------------------------------------------------------------------------------------


def _ecdsa(
    key: jose.PrivateKey, digest: bytes, algorithm: ec.EllipticCurveSignatureAlgorithm
) -> tuple[int, int]:
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return decode_dss_signature(key.sign(digest, algorithm))


def _ecdsa_with_nonce(key: jose.PrivateKey, signing_input: bytes, nonce: int) -> bytes:
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    r = ec.derive_private_key(nonce, ec.SECP256R1()).public_key().public_numbers().x % _P256_ORDER
    z = int.from_bytes(hashlib.sha256(signing_input).digest())
    s = pow(nonce, -1, _P256_ORDER) * (z + r * key.private_numbers().private_value) % _P256_ORDER
    return r.to_bytes(32) + s.to_bytes(32)


class DER(GoodSigner):
    def signature(self, key: jose.PrivateKey, signing_input: bytes) -> Any:
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return key.sign(signing_input, ec.ECDSA(hashes.SHA256()))


class StripsZeros(GoodSigner):
    _signed = 0

    def signature(self, key: jose.PrivateKey, signing_input: bytes) -> Any:
        raw = jose.sign(key, signing_input)
        self._signed += 1
        if self._signed < 100:  # so that it is never found by chance, by a check that signs less
            return raw
        return raw[:32].lstrip(b"\0") + raw[32:].lstrip(b"\0")


class SwapsHalves(GoodSigner):
    def signature(self, key: jose.PrivateKey, signing_input: bytes) -> Any:
        raw = jose.sign(key, signing_input)
        return raw[32:] + raw[:32]


class LittleEndian(GoodSigner):
    def signature(self, key: jose.PrivateKey, signing_input: bytes) -> Any:
        raw = jose.sign(key, signing_input)
        return raw[:32][::-1] + raw[32:][::-1]


class PSS(GoodSigner):
    def signature(self, key: jose.PrivateKey, signing_input: bytes) -> Any:
        assert isinstance(key, rsa.RSAPrivateKey)
        pss = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)
        return key.sign(signing_input, pss, hashes.SHA256())


class HashesWithSHA512(GoodSigner):
    def signature(self, key: jose.PrivateKey, signing_input: bytes) -> Any:
        assert isinstance(key, rsa.RSAPrivateKey)
        return key.sign(signing_input, padding.PKCS1v15(), hashes.SHA512())


class HashesTwice(GoodSigner):
    def signature(self, key: jose.PrivateKey, signing_input: bytes) -> Any:
        digest = hashlib.sha256(hashlib.sha256(signing_input).digest()).digest()
        r, s = _ecdsa(key, digest, ec.ECDSA(Prehashed(hashes.SHA256())))
        return r.to_bytes(32) + s.to_bytes(32)


class Zeros(GoodSigner):
    def signature(self, key: jose.PrivateKey, signing_input: bytes) -> Any:
        return bytes(len(jose.sign(key, signing_input)))


class Empty(GoodSigner):
    def signature(self, key: jose.PrivateKey, signing_input: bytes) -> Any:  # noqa: ARG002
        return b""


class HexText(GoodSigner):
    def signature(self, key: jose.PrivateKey, signing_input: bytes) -> Any:
        return jose.sign(key, signing_input).hex()


class Base64Bytes(GoodSigner):
    def signature(self, key: jose.PrivateKey, signing_input: bytes) -> Any:
        return base64.b64encode(jose.sign(key, signing_input))


class MutableBytes(GoodSigner):
    def signature(self, key: jose.PrivateKey, signing_input: bytes) -> Any:
        return bytearray(jose.sign(key, signing_input))


class ReusesNonce(GoodSigner):
    def signature(self, key: jose.PrivateKey, signing_input: bytes) -> Any:
        return _ecdsa_with_nonce(key, signing_input, 1234567)


class SeedsAtImport(GoodSigner):
    def signature(self, key: jose.PrivateKey, signing_input: bytes) -> Any:
        return _ecdsa_with_nonce(key, signing_input, _SEEDED_AT_IMPORT.getrandbits(200))


class CutsInput(GoodSigner):
    def signature(self, key: jose.PrivateKey, signing_input: bytes) -> Any:
        return jose.sign(key, signing_input[:4096])


class ForeignKey(GoodSigner):
    def signature(self, key: jose.PrivateKey, signing_input: bytes) -> Any:
        return jose.sign(jose.generate(jose.algorithm_of(key)), signing_input)


# --- wrong keys and kids --------------------------------------------------------------------------------


class SignsWithLatest(GoodSigner):
    def find(self, kid: str) -> jose.PrivateKey:
        super().find(kid)
        return self.backend.pairs()[-1][0]


class SwapsKids(GoodSigner):
    def find(self, kid: str) -> jose.PrivateKey:
        keys = {kid_of(key): key for key, _ in self.backend.pairs()}
        return keys[list(keys)[list(keys).index(kid) - 1]] if kid in keys else super().find(kid)


class ReusesKid(GoodSigner):
    async def key_versions(self) -> Sequence[KeyVersion]:
        return [msgspec.structs.replace((await super().key_versions())[-1], kid="current")]

    def find(self, kid: str) -> jose.PrivateKey:
        if kid != "current":
            raise UnknownKid(kid)
        return self.backend.pairs()[-1][0]


class SameKidTwice(GoodSigner):
    async def key_versions(self) -> Sequence[KeyVersion]:
        versions = await super().key_versions()
        return [*versions, *versions]


class KeyOfEachWorker(GoodSigner):
    def __init__(self, settings: SeededSettings) -> None:
        super().__init__(settings)
        self._key = jose.generate(Algorithm.ES256)

    async def key_versions(self) -> Sequence[KeyVersion]:
        await self.ask()
        return [self.version(self._key, 0.0)]

    def find(self, kid: str) -> jose.PrivateKey:
        if kid != kid_of(self._key):
            raise UnknownKid(kid)
        return self._key


def prepare_new_key(settings: SeededSettings) -> Any:
    return settings, Secret(jose.to_der(jose.generate(Algorithm.ES256)))


class KeyOfEachStart(KeyOfEachWorker):
    def __init__(self, state: tuple[SeededSettings, Secret[bytes]]) -> None:
        super().__init__(state[0])
        self._key = jose.from_der(state[1].reveal())


class LeakyJWK(ECPublicJWK, frozen=True, tag_field="kty", tag="EC"):
    d: str = ""


class LeaksD(GoodSigner):
    def jwk(self, key: jose.PrivateKey) -> PublicJWK:
        private = jose.private_jwk(key)
        return LeakyJWK(crv="P-256", x=private["x"], y=private["y"], d=private["d"])


class ShortCoordinates(GoodSigner):
    def jwk(self, key: jose.PrivateKey) -> PublicJWK:
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        numbers = key.public_key().public_numbers()
        x, y = (
            base64.urlsafe_b64encode(n.to_bytes((n.bit_length() + 7) // 8)).decode().rstrip("=")
            for n in (numbers.x, numbers.y)
        )
        return ECPublicJWK(crv="P-256", x=x, y=y)


class OffersDicts(GoodSigner):
    async def key_versions(self) -> Sequence[KeyVersion]:
        return [msgspec.to_builtins(version) for version in await super().key_versions()]


class OnlyVerifies(GoodSigner):
    def version(self, key: jose.PrivateKey, created_at: float) -> KeyVersion:
        return msgspec.structs.replace(super().version(key, created_at), can_sign=False)


class Milliseconds(GoodSigner):
    def version(self, key: jose.PrivateKey, created_at: float) -> KeyVersion:
        return super().version(key, created_at * 1000)


class CreatedNow(GoodSigner):
    def version(self, key: jose.PrivateKey, created_at: float) -> KeyVersion:  # noqa: ARG002
        return super().version(key, time.time())


class ReadsKeysOnce(GoodSigner):
    _first: Sequence[KeyVersion] | None = None

    async def key_versions(self) -> Sequence[KeyVersion]:
        self._first = self._first or await super().key_versions()
        return self._first


class ForgetsOldKey(GoodSigner):
    async def key_versions(self) -> Sequence[KeyVersion]:
        return (await super().key_versions())[-2:]


class SignsForAnyKid(GoodSigner):
    def find(self, kid: str) -> jose.PrivateKey:
        try:
            return super().find(kid)
        except UnknownKid:
            return self.backend.pairs()[0][0]


class KeyErrorForKid(GoodSigner):
    def find(self, kid: str) -> jose.PrivateKey:
        return {kid_of(key): key for key, _ in self.backend.pairs()}[kid]


# --- bad company for other calls ------------------------------------------------------------------------


class SharedState(GoodSigner):
    _input = b""

    async def sign(self, kid: str, signing_input: bytes) -> bytes:
        self._input = signing_input
        await asyncio.sleep(0.05)
        return await super().sign(kid, self._input)


class SwallowsCancellation(GoodSigner):
    async def ask(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await super().ask()


class HangsOn(GoodSigner):
    async def ask(self) -> None:
        while (self.backend.folder / "hang").exists():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.1)
        await super().ask()


# --- bad errors -----------------------------------------------------------------------------------------


class Raises(GoodSigner):
    async def sign(self, kid: str, signing_input: bytes) -> bytes:
        raise ZeroDivisionError(f"{kid} {signing_input!r} {self.settings.credential.reveal()}")


class Exits(GoodSigner):
    async def sign(self, kid: str, signing_input: bytes) -> bytes:  # noqa: ARG002
        sys.exit("no")


class VendorError(GoodSigner):
    async def ask(self) -> None:
        if (self.backend.folder / "down").exists():
            raise ConnectionRefusedError(111, f"refused {self.settings.credential.reveal()}")
        await super().ask()


class PanicException(BaseException):
    """As ``pyo3_runtime.PanicException``, of a backend's client that is written in Rust."""


class Panics(GoodSigner):
    async def ask(self) -> None:
        if (self.backend.folder / "down").exists():
            raise PanicException(f"called `Result::unwrap()` on {self.settings.credential.reveal()}")
        await super().ask()


class ConnectsOnOpening(GoodSigner):
    def __init__(self, settings: SeededSettings) -> None:
        super().__init__(settings)
        if (self.backend.folder / "down").exists():
            raise ConnectionRefusedError(111, "refused")


class NeverReconnects(GoodSigner):
    _broken = False

    async def ask(self) -> None:
        self._broken = self._broken or (self.backend.folder / "down").exists()
        if self._broken:
            raise SignerUnavailable("not connected")
        await super().ask()


# --- talkers --------------------------------------------------------------------------------------------


class ShowsInRepr(GoodSigner):
    def __repr__(self) -> str:
        return f"ShowsInRepr({self.settings.credential.reveal()})"


class Logs(GoodSigner):
    async def ask(self) -> None:
        logging.getLogger("seeded").info("asking with %s", self.settings.credential.reveal())
        await super().ask()


class ShowsInErrors(GoodSigner):
    async def ask(self) -> None:
        if (self.backend.folder / "down").exists():
            raise SignerUnavailable(f"the backend refuses {self.settings.credential.reveal()}")
        await super().ask()


def prepare_talking(settings: SeededSettings) -> Any:
    if not settings.credential.reveal().endswith("-end"):
        raise SignerMisconfigured(f"{settings.credential.reveal()} does not end in -end")
    return settings


# --- bad endings ----------------------------------------------------------------------------------------


class ClosesOnce(GoodSigner):
    async def aclose(self) -> None:
        if self.closed:
            raise RuntimeError("closed already")
        self.closed = True


class SignsClosed(GoodSigner):
    async def aclose(self) -> None:
        pass


class ForgetsCallers(GoodSigner):
    async def ask(self) -> None:
        await super().ask()
        if self.closed:
            await asyncio.sleep(3600)


class LeavesTask(GoodSigner):
    _task: asyncio.Task[None] | None = None

    async def ask(self) -> None:
        self._task = self._task or asyncio.create_task(asyncio.sleep(3600), name="renewal")
        await super().ask()


def prepare_unpicklable(settings: SeededSettings) -> Any:
    return {"settings": settings, "connect": lambda: None}


# --- all of them ----------------------------------------------------------------------------------------


class Bug(Struct, frozen=True, kw_only=True):
    """A signer with one fault, which check of the kit names it and how, and what the host makes of it."""

    signer: type[GoodSigner]
    check: str
    says: str
    """A pattern of the check's text."""
    algorithm: Algorithm = Algorithm.ES256
    trouble: str | None = None
    """What must happen to the backend for the host to see it: rotate, down, hang."""
    host_logs: str | None = None
    """A pattern of the service's log line; None: the host can't see it, and tokens are good."""
    prepare: Any = prepare
    settings: type[Struct] = SeededSettings
    declares: dict[str, Any] = {}
    """Other fields of the plugin."""
    seconds: float = 60
    """The time limit of one check; short for a call whose own limit is long."""

    def plugin(self, name: str) -> SignerPlugin:
        good = SignerPlugin(
            name=name,
            api_version=1,
            settings=self.settings,
            settings_prefix="MACP_AUTH_SEEDED_",
            prepare=self.prepare,
            open=self.signer,
        )
        return msgspec.structs.replace(good, **self.declares)


RS256 = Algorithm.RS256
_BAD = "signer 'seeded-[a-z0-9-]+' does not verify with its published key"
_RAW = "raw-form"

BUGS: dict[str, Bug] = {
    "der": Bug(signer=DER, check=_RAW, says="it is DER", host_logs=_BAD),
    "strips-zeros": Bug(
        signer=StripsZeros, check="leading-zeros", says="it has 6[0-3] bytes; ES256 has 64", seconds=70
    ),
    "swaps-halves": Bug(signer=SwapsHalves, check=_RAW, says="S comes before R", host_logs=_BAD),
    "little-endian": Bug(signer=LittleEndian, check=_RAW, says="little-endian", host_logs=_BAD),
    "pss": Bug(signer=PSS, algorithm=RS256, check=_RAW, says="PSS padding", host_logs=_BAD),
    "sha512": Bug(
        signer=HashesWithSHA512, algorithm=RS256, check=_RAW, says="its hash is sha512", host_logs=_BAD
    ),
    "hashes-twice": Bug(signer=HashesTwice, check=_RAW, says="hashed again", host_logs=_BAD),
    "zeros": Bug(signer=Zeros, algorithm=RS256, check=_RAW, says="256 zero bytes", host_logs=_BAD),
    "empty": Bug(signer=Empty, check=_RAW, says="it is empty", host_logs=_BAD),
    "hex-text": Bug(signer=HexText, check=_RAW, says="returned a str", host_logs="returned a str from sign"),
    "base64": Bug(signer=Base64Bytes, check=_RAW, says="it is base64 text", host_logs=_BAD),
    "mutable-bytes": Bug(
        signer=MutableBytes,
        check=_RAW,
        says="returned a bytearray",
        host_logs="returned a bytearray from sign",
    ),
    "foreign-key": Bug(signer=ForeignKey, check=_RAW, says="no published key made it", host_logs=_BAD),
    "cuts-input": Bug(signer=CutsInput, check="any-length", says="an input of 4097 bytes"),
    "reuses-nonce": Bug(signer=ReusesNonce, check="fresh-nonces", says="have the same R"),
    "seeds-at-import": Bug(signer=SeedsAtImport, check="forked-workers", says="same ECDSA nonce"),
    "signs-with-latest": Bug(
        signer=SignsWithLatest, check="exact-version-signs", says="never the latest", host_logs=_BAD
    ),
    "swaps-kids": Bug(
        signer=SwapsKids, check="exact-version-signs", says="the version 'seeded-.*' made it", host_logs=_BAD
    ),
    "reuses-kid": Bug(
        signer=ReusesKid,
        check="rotation-is-seen",
        says="the kid 'current' names another key",
        trouble="rotate",
        host_logs="offers the kid 'current' for another key than before",
    ),
    "same-kid-twice": Bug(
        signer=SameKidTwice,
        check="kids-are-unique",
        says="two versions have the kid",
        host_logs="the same kid",
    ),
    "key-of-each-worker": Bug(
        signer=KeyOfEachWorker, check="kids-survive-a-worker", says="there is a new kid"
    ),
    "key-of-each-start": Bug(
        signer=KeyOfEachStart,
        prepare=prepare_new_key,
        check="kids-survive-a-restart",
        says="there is a new kid",
    ),
    "leaks-d": Bug(
        signer=LeaksD,
        check="public-members-only",
        says="would publish d",
        host_logs="a LeakyJWK for a public key",
    ),
    "short-coordinates": Bug(
        signer=ShortCoordinates,
        check="published-keys-are-good",
        says="P-256 has 32",
        host_logs="offers a bad key",
    ),
    "offers-dicts": Bug(
        signer=OffersDicts,
        check="offers-a-key",
        says="returned a dict in the list",
        host_logs="a dict for a key version",
    ),
    "only-verifies": Bug(
        signer=OnlyVerifies,
        check="offers-a-key",
        says="none with can_sign",
        host_logs="no key version that can sign",
    ),
    "milliseconds": Bug(
        signer=Milliseconds, check="times-are-seconds", says="return seconds since the epoch"
    ),
    "created-now": Bug(signer=CreatedNow, check="readings-agree", says="differ after two calls"),
    "reads-keys-once": Bug(signer=ReadsKeysOnce, check="rotation-is-seen", says="returns no new version"),
    "forgets-old-key": Bug(
        signer=ForgetsOldKey, check="rotation-is-seen", says="removed seeded-.*: keep", trouble="rotate"
    ),
    "signs-for-any-kid": Bug(
        signer=SignsForAnyKid, check="unknown-kid", says="signed, but there is no such version"
    ),
    "key-error": Bug(signer=KeyErrorForKid, check="unknown-kid", says="raised KeyError"),
    "shared-state": Bug(
        signer=SharedState, check="many-at-once", says="another call's input", host_logs=_BAD
    ),
    "swallows-cancellation": Bug(
        signer=SwallowsCancellation, check="cancellation", says="swallows CancelledError"
    ),
    "hangs-on": Bug(
        signer=HangsOn,
        check="hang-is-bounded",
        says="continues after its cancellation",
        trouble="hang",
        host_logs="'seeded-hangs-on' did not end sign within 2 s",
    ),
    "raises": Bug(
        signer=Raises,
        check=_RAW,
        says="raised ZeroDivisionError",
        host_logs="'seeded-raises' raised ZeroDivisionError in sign",
    ),
    "exits": Bug(
        signer=Exits,
        check=_RAW,
        says="raised SystemExit",
        host_logs="'seeded-exits' raised SystemExit in sign",
    ),
    "vendor-error": Bug(
        signer=VendorError,
        check="backend-down-and-back",
        says="raised ConnectionRefusedError",
        trouble="down",
        host_logs="'seeded-vendor-error' raised ConnectionRefusedError in sign",
    ),
    "panics": Bug(
        signer=Panics,
        check="backend-down-and-back",
        says="raised PanicException",
        trouble="down",
        host_logs="'seeded-panics' raised PanicException in key_versions",
    ),
    "connects-on-opening": Bug(
        signer=ConnectsOnOpening, check="backend-down-at-start", says="raised ConnectionRefusedError"
    ),
    "never-reconnects": Bug(
        signer=NeverReconnects,
        check="backend-down-and-back",
        says="still fails: connect again",
        trouble="down",
        host_logs="not connected",
    ),
    "shows-in-repr": Bug(
        signer=ShowsInRepr, check="quiet-repr", says="the repr of the signer shows a secret"
    ),
    "logs": Bug(signer=Logs, check="quiet-logs", says="what is logged or printed shows a secret"),
    "shows-in-errors": Bug(
        signer=ShowsInErrors, check="quiet-errors", says="a SignerUnavailable shows a secret"
    ),
    "talking-refusal": Bug(
        signer=GoodSigner,
        prepare=prepare_talking,
        check="quiet-refusal",
        says="error for invalid settings shows a secret",
    ),
    "closes-once": Bug(signer=ClosesOnce, check="close-is-idempotent", says="raised RuntimeError"),
    "signs-closed": Bug(signer=SignsClosed, check="closed-signer-refuses", says="works after aclose"),
    "forgets-callers": Bug(signer=ForgetsCallers, check="close-while-signing", says="has not ended"),
    "leaves-a-task": Bug(signer=LeavesTask, check="nothing-is-left", says="the task renewal"),
    "unusable-settings": Bug(
        signer=GoodSigner,
        settings=UnusableSettings,
        check="settings-are-usable",
        says="'label' of UnusableSettings can't be read from MACP_AUTH_SEEDED_LABEL: Can only",
        host_logs="'seeded-unusable-settings' can't be configured: the field 'label'",
    ),
    "unpicklable": Bug(
        signer=GoodSigner,
        prepare=prepare_unpicklable,
        check="state-travels",
        says="can't be pickled",
        host_logs="cannot pass the state of the signer plugin 'seeded-unpicklable' to a worker process",
    ),
}


class EntryPoint:
    """What an entry point of a seeded bug leads to: a plugin like any other."""

    def __init__(self, name: str, bug: Bug) -> None:
        self._name = name
        self._bug = bug

    @hookimpl
    def macp_auth_signer(self) -> SignerPlugin:
        return self._bug.plugin(f"seeded-{self._name}")


def __getattr__(name: str) -> EntryPoint:
    bug = name.removeprefix("bug_").replace("_", "-")
    if bug in BUGS:
        return EntryPoint(bug, BUGS[bug])
    raise AttributeError(name)
