"""The token as one thread uses it: a session, the keys that it shows, and signatures.

Here the library's exceptions become the host's. None carries anything secret: a PIN is in no message,
and the library's own say no more than the name of a return code.
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
from macp_auth_pkcs11.public_keys import proven_jwk, sign_digest
from macp_auth_pkcs11.settings import PKCS11Settings, read_pin

if TYPE_CHECKING:  # the package imports its compiled half late, and so do we
    from pkcs11._pkcs11 import lib

T = TypeVar("T")

OPENING_INTERVAL = 1.0
"""Seconds from one opening of the token to the next: an outage must not become a storm of logins."""

_ALGORITHMS = {KeyType.RSA: Algorithm.RS256, KeyType.EC: Algorithm.ES256}
_PIN_LOCKS = TokenFlag.USER_PIN_FINAL_TRY | TokenFlag.USER_PIN_LOCKED
_PIN_ERRORS = (
    errors.PinIncorrect,
    errors.PinInvalid,
    errors.PinLenRange,
    errors.PinLocked,
    errors.PinExpired,
    errors.UserPinNotInitialized,
)
_REFUSALS = (
    errors.FunctionNotSupported,
    errors.FunctionRejected,
    errors.KeySizeRange,
    errors.KeyTypeInconsistent,
    errors.MechanismInvalid,
    errors.UserNotLoggedIn,  # in a session that has just logged in: the key wants the PIN each time
)


class Device:
    """One token. All of it is called from one thread, on which the library is loaded as well."""

    def __init__(self, settings: PKCS11Settings) -> None:
        self._settings = settings
        self._library: lib | None = None
        self._session: Session | None = None
        self._keys: dict[str, SignMixin] = {}
        self._refused_pin: Secret[str] | None = None
        self._opened_at = -math.inf

    def key_versions(self) -> list[KeyVersion]:
        """Return the versions of the key that the token has now; what is no longer there can't sign.

        Raises:
            SignerUnavailable: the token can't be reached.
            SignerRefused: it does not take the PIN, or a key does not sign.
            SignerMisconfigured: there is no key, or one whose time or public half is not to be told.
        """
        return self._in_session(self._read_keys)

    def sign(self, kid: str, digest: bytes) -> bytes:
        """Return the raw JWS signature over a SHA-256 ``digest``.

        Raises:
            UnknownKid: the token has no such key.
            SignerError: as for :meth:`key_versions`.
        """

        def sign_in(session: Session) -> bytes:
            if not self._keys:
                self._read_keys(session)
            key = self._keys.get(kid)
            if key is None:
                raise UnknownKid(kid)
            return sign_digest(key, digest)

        return self._in_session(sign_in)

    def close(self) -> None:
        """End the session and let go of the library. May be called again."""
        # The library forgets all it holds: sessions, the login, and its list of slots, which may be old.
        self._session, self._keys = None, {}
        library, self._library = self._library, None
        if library is not None:
            with suppress(PKCS11Error):
                library.finalize()

    def _in_session(self, use: Callable[[Session], T]) -> T:
        """Run ``use``; if that fails in a session that was open before, once more in a new one."""
        if self._session is not None:
            try:
                return use(self._session)
            except PKCS11Error:
                # A lost session, a reset device and a key that is gone look alike; a new session tells.
                self.close()
        try:
            return use(self._open())
        except PKCS11Error as error:
            self.close()
            raise _translated(error) from None

    def _open(self) -> Session:
        pin = read_pin(self._settings.pin_file)
        if self._refused_pin is not None and self._refused_pin.reveal() == pin.reveal():
            raise _pin_refused("not tried again")
        if time.monotonic() < self._opened_at + OPENING_INTERVAL:
            raise SignerUnavailable("the token was opened a moment ago, and failed; it is tried again soon")
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
            raise SignerRefused(
                "the token's user PIN is locked, or one wrong try from it, so it is not tried; "
                "log in by hand with the right one, or unlock it as its security officer",
                reason="pin-locked",
            )
        try:
            return token.open(user_pin=pin.reveal())
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
        # Ask for anything first: in a lost session, a search puts a traceback on stderr (python-pkcs11 0.10).
        _ = [key[Attribute.CLASS] for key in self._keys.values()]
        found = [self._read_key(session, label, key) for label, key in self._private_keys(session)]
        if sum(version.created_at is None for version, _ in found) > 1:
            raise SignerMisconfigured(
                f"several private keys are labelled {self._settings.key_label!r} "
                "(MACP_AUTH_PKCS11_KEY_LABEL) without a time; only the first may go without"
            )
        if not found:
            raise SignerMisconfigured(
                f"the token shows no private key labelled {self._settings.key_label!r} that may sign "
                "(MACP_AUTH_PKCS11_KEY_LABEL)"
            )
        self._keys = {version.kid: key for version, key in found}
        # A token lists objects as it likes; every replica must see the same order.
        return sorted((version for version, _ in found), key=lambda version: version.kid)

    def _private_keys(self, session: Session) -> Iterator[tuple[str, SignMixin]]:
        # All are asked for their labels: a search knows no prefix.
        for key in list(session.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY})):
            with suppress(UnicodeDecodeError):  # then it is not ours
                label = key[Attribute.LABEL]
                # It is a SignMixin if its CKA_SIGN is true.
                if isinstance(key, SignMixin) and is_version(label, self._settings.key_label):
                    yield label, key

    def _read_key(self, session: Session, label: str, key: SignMixin) -> tuple[KeyVersion, SignMixin]:
        try:
            algorithm = _ALGORITHMS[key.key_type]
            created_at = made_at(label, self._settings.key_label)
        except NoTime as error:
            raise SignerMisconfigured(str(error)) from None
        except (KeyError, ValueError):
            raise SignerMisconfigured(f"the private key labelled {label!r} is neither RSA nor EC") from None
        jwk = proven_jwk(session, key)
        if jwk is None:
            raise SignerMisconfigured(
                f"the token has no public key and no certificate that belongs to the private key {label!r} "
                "and has its CKA_ID, or the key's curve is not P-256"
            )
        version = KeyVersion(
            kid=thumbprint(jwk), algorithm=algorithm, public_jwk=jwk, can_sign=True, created_at=created_at
        )
        return version, key


def _translated(error: PKCS11Error) -> SignerError:
    name = type(error).__name__
    if isinstance(error, _REFUSALS):
        return SignerRefused(f"the token refused: {name}")
    return SignerUnavailable(f"the token or its library failed: {name}")


def _pin_refused(detail: str) -> SignerRefused:
    return SignerRefused(
        f"the token does not take the PIN ({detail}); the same one is not tried again, because tokens lock; "
        "put the right one in MACP_AUTH_PKCS11_PIN_FILE",
        reason="pin-refused",
    )
