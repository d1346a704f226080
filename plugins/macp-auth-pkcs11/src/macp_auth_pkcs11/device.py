"""The token: the session, its keys, and signatures.

Translates the library's exceptions. No text contains a secret: the library's only name a return code.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

import pkcs11
from pkcs11 import Attribute, KeyType, ObjectClass, PKCS11Error, TokenFlag
from pkcs11 import exceptions as errors
from pkcs11.types import Session, SignMixin, Token

from macp_auth import (
    Algorithm,
    KeyVersion,
    Secret,
    SignerError,
    SignerMisconfigured,
    SignerRefused,
    SignerUnavailable,
    UnknownKid,
    thumbprint,
)
from macp_auth_pkcs11.labels import NoTime, is_version, made_at
from macp_auth_pkcs11.public_keys import sign_digest, verified_jwk
from macp_auth_pkcs11.settings import PKCS11Settings, read_pin

if TYPE_CHECKING:  # the compiled module must be loaded late
    from pkcs11._pkcs11 import lib

T = TypeVar("T")

OPENING_INTERVAL = 1.0
"""Minimum seconds between openings of the token, so that an outage does not cause a storm of logins."""

_ALGORITHMS = {KeyType.RSA: Algorithm.RS256, KeyType.EC: Algorithm.ES256}
_PIN_LOCKS = TokenFlag.USER_PIN_FINAL_TRY | TokenFlag.USER_PIN_LOCKED
_PIN_ERRORS = (
    errors.PinIncorrect,
    errors.PinInvalid,
    errors.PinLenRange,
    errors.PinExpired,
    errors.UserPinNotInitialized,
)
_REFUSALS = (
    errors.FunctionNotSupported,
    errors.FunctionRejected,
    errors.KeySizeRange,
    errors.KeyTypeInconsistent,
    errors.MechanismInvalid,
    errors.UserNotLoggedIn,  # after a login: the key requires the PIN for each signature
)


class Device:
    """One token. The first call loads the library, never before a fork."""

    def __init__(self, settings: PKCS11Settings) -> None:
        self._settings = settings
        self._library: lib | None = None
        self._session: Session | None = None
        self._keys: dict[str, SignMixin] = {}
        self._refused_pin: Secret[str] | None = None
        self._opened_at = -math.inf

    def key_versions(self) -> list[KeyVersion]:
        """Return the key's versions on the token; removed ones can't sign any more.

        Opens the token again first, at most once a second: some libraries, such as tpm2-pkcs11, see what
        other programs create and delete only when they are initialized.

        Raises:
            SignerUnavailable: the token can't be reached.
            SignerRefused: it refuses the PIN, or a key does not sign.
            SignerMisconfigured: there is no key, or one without a valid time or public key.
        """
        if self._settings.reopen == "on" and not self._opened_just_now():
            self.close()
        return self._in_session(self._read_keys)

    def sign(self, kid: str, digest: bytes) -> bytes:
        """Return the raw JWS signature over a SHA-256 ``digest``.

        Raises:
            UnknownKid: the token has no such key.
            SignerError: as for :meth:`key_versions`.
        """

        def sign_in(session: Session) -> bytes:
            if not self._keys:
                with suppress(SignerMisconfigured):  # of another key, or the kid is unknown
                    self._read_keys(session)
            key = self._keys.get(kid)
            if key is None:
                raise UnknownKid(kid)
            return sign_digest(key, digest)

        return self._in_session(sign_in)

    def close(self) -> None:
        """End the session, and release the library. Idempotent."""
        # This also drops the library's list of slots, which may be outdated.
        self._session, self._keys = None, {}
        library, self._library = self._library, None
        if library is not None:
            with suppress(PKCS11Error):
                library.finalize()

    def _in_session(self, use: Callable[[Session], T]) -> T:
        """Run ``use``; if it fails in an existing session, run it again in a new one."""
        if self._session is not None:
            try:
                return use(self._session)
            except PKCS11Error:
                # A lost session, a reset device and a removed key have the same errors.
                self.close()
        try:
            return use(self._open())
        except PKCS11Error as error:
            self.close()
            raise _translated(error) from None

    def _opened_just_now(self) -> bool:
        return time.monotonic() < self._opened_at + OPENING_INTERVAL

    def _open(self) -> Session:
        pin = read_pin(self._settings.pin_file)
        if self._refused_pin is not None and self._refused_pin.reveal() == pin.reveal():
            raise _pin_refused("not tried again")
        if self._opened_just_now():
            raise SignerUnavailable("opening the token has just failed; it is tried again soon")
        self._opened_at = time.monotonic()
        try:
            self._session = self._log_in(pin)
        except SignerError:
            self.close()
            raise
        return self._session

    def _log_in(self, pin: Secret[str]) -> Session:
        token = self._token()
        if token.flags & _PIN_LOCKS:
            raise _pin_locked("is locked, or one wrong attempt would lock it, so it is not tried")
        try:
            return token.open(user_pin=pin.reveal())
        except errors.UserAlreadyLoggedIn:  # another signer of this process: PKCS#11 has one login for both
            return token.open()
        except errors.PinLocked:  # not counted as an attempt; a TPM unlocks itself after some time
            raise _pin_locked("is locked") from None
        except _PIN_ERRORS as error:
            self._refused_pin = pin
            raise _pin_refused(type(error).__name__) from None

    def _token(self) -> Token:
        label, serial = self._settings.token_label, self._settings.token_serial
        try:
            self._library = pkcs11.lib(self._settings.module)
        except PKCS11Error as error:
            if type(error) is not PKCS11Error:  # a return code of C_Initialize
                raise
            raise SignerMisconfigured(f"MACP_AUTH_PKCS11_MODULE can't be loaded: {error}") from None
        found = [
            token
            for token in self._library.get_tokens(token_label=label)
            if serial is None or token.serial.decode(errors="replace").strip() == serial
        ]
        if not found:
            raise SignerUnavailable(
                f"no slot has a token labelled {label!r} (MACP_AUTH_PKCS11_TOKEN_LABEL)", reason="no-token"
            )
        if len(found) > 1:
            raise SignerMisconfigured(
                f"{len(found)} tokens are labelled {label!r}; set MACP_AUTH_PKCS11_TOKEN_SERIAL"
            )
        return found[0]

    def _read_keys(self, session: Session) -> list[KeyVersion]:
        # Read an attribute first: in a lost session, a search prints a traceback (python-pkcs11 0.10).
        _ = [key[Attribute.CLASS] for key in self._keys.values()]
        versions, self._keys = list[KeyVersion](), {}
        mistakes = list[SignerMisconfigured]()
        for label, key in self._private_keys(session):
            try:
                version = self._read_key(session, label, key)
            except SignerMisconfigured as mistake:
                mistakes.append(mistake)  # a bad new key must not stop the others
            else:
                versions.append(version)
                self._keys[version.kid] = key
        if mistakes:
            raise mistakes[0]
        if sum(version.created_at is None for version in versions) > 1:
            raise SignerMisconfigured(
                f"several private keys are labelled {self._settings.key_label!r} "
                "(MACP_AUTH_PKCS11_KEY_LABEL) without a time; only the first may have none"
            )
        if not versions:
            raise SignerMisconfigured(
                f"the token has no private key labelled {self._settings.key_label!r} that may sign "
                "(MACP_AUTH_PKCS11_KEY_LABEL)"
            )
        # Tokens list objects in any order; every replica must have the same.
        return sorted(versions, key=lambda version: version.kid)

    def _private_keys(self, session: Session) -> Iterator[tuple[str, SignMixin]]:
        # PKCS#11 can't search by a prefix.
        for key in list(session.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY})):
            with suppress(UnicodeDecodeError):  # another software's label
                label = key[Attribute.LABEL]
                # SignMixin means that CKA_SIGN is true.
                if isinstance(key, SignMixin) and is_version(label, self._settings.key_label):
                    yield label, key

    def _read_key(self, session: Session, label: str, key: SignMixin) -> KeyVersion:
        try:
            algorithm = _ALGORITHMS[key.key_type]
            created_at = made_at(label, self._settings.key_label)
        except NoTime as error:
            raise SignerMisconfigured(str(error)) from None
        except (KeyError, ValueError):
            raise SignerMisconfigured(f"the private key labelled {label!r} is neither RSA nor EC") from None
        jwk = verified_jwk(session, key)
        if jwk is None:
            raise SignerMisconfigured(
                f"the token has no public key and no certificate that belongs to the private key {label!r} "
                "and has its CKA_ID, or the key's curve is not P-256"
            )
        return KeyVersion(
            kid=thumbprint(jwk), algorithm=algorithm, public_jwk=jwk, can_sign=True, created_at=created_at
        )


def _translated(error: PKCS11Error) -> SignerError:
    name = type(error).__name__
    if isinstance(error, _REFUSALS):
        return SignerRefused(f"the token refused: {name}")
    return SignerUnavailable(f"the token or its library failed: {name}")


def _pin_locked(state: str) -> SignerRefused:
    return SignerRefused(
        f"the token's user PIN {state}; log in by hand with the correct PIN, or unlock it as the security "
        "officer",
        reason="pin-locked",
    )


def _pin_refused(detail: str) -> SignerRefused:
    return SignerRefused(
        f"the token refuses the PIN ({detail}); it is not tried again, because tokens lock; put the "
        "correct one in MACP_AUTH_PKCS11_PIN_FILE",
        reason="pin-refused",
    )
