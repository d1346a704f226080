"""What may be set for ``vault-transit``, and the combinations of it that can work."""

from __future__ import annotations

import ssl
from enum import StrEnum
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from msgspec import Meta, Struct

from macp_auth.adapters.input_file import Custody, FileUnusable, input_file
from macp_auth.domain.errors import SignerMisconfigured
from macp_auth.domain.secret import Secret

PREFIX = "MACP_AUTH_VAULT_"
KUBERNETES_TOKEN_FILE = "/var/run/secrets/kubernetes.io/serviceaccount/token"  # noqa: S105 - a path
"""Where Kubernetes mounts a pod's service account token."""

_MAX_AUTHORITIES_BYTES = 4 * 2**20  # all the public ones are 0.2 MiB
_ADDRESS = "an address such as https://vault.example:8200, with a port from 1 to 65535"
_FROM_VAULT = {"addr", "namespace", "cacert", "token"}  # of which Vault's own variables are read, too
_Text = Annotated[str, Meta(min_length=1)]
_MountPath = Annotated[str, Meta(pattern=r"\A[\w.-]+(/[\w.-]+)*\Z")]
_Milliseconds = Annotated[int, Meta(ge=50, le=2000)]  # a mint has 2 s, whatever happens


class AuthMethod(StrEnum):
    """How the service proves to Vault who it is."""

    TOKEN = "token"  # noqa: S105 - a method's name
    APPROLE = "approle"
    KUBERNETES = "kubernetes"
    JWT = "jwt"


_PRESENTED = {
    AuthMethod.TOKEN: ["token"],
    AuthMethod.APPROLE: ["role_id", "secret_id"],
    AuthMethod.KUBERNETES: ["role"],
    AuthMethod.JWT: ["role"],
}
"""What each method sends to Vault as it was set."""


class VaultSettings(Struct, frozen=True, kw_only=True):
    """What may be set. Names that Vault's own command line reads are honoured."""

    key: Annotated[
        str,
        Meta(
            pattern=r"\A\w[\w.-]*\Z",
            description="The transit key that signs, by name.",
            extra={"expects": "the name of a transit key"},
        ),
    ]
    addr: Annotated[
        str,
        Meta(
            pattern=r"\Ahttps?://[^\s/@?#]+/?\Z",
            description="Vault's address.",
            extra={"expects": _ADDRESS, "fallback": "VAULT_ADDR"},
        ),
    ]
    mount: Annotated[
        _MountPath,
        Meta(description="Where the transit engine is mounted.", extra={"expects": "a path such as transit"}),
    ] = "transit"
    namespace: Annotated[
        str | None,
        Meta(
            description="The namespace. Unset: the root namespace.",
            extra={"expects": "a namespace such as team-a", "fallback": "VAULT_NAMESPACE"},
        ),
    ] = None
    cacert: Annotated[
        _Text | None,
        Meta(
            description="A PEM file of the authorities that may vouch for Vault. Unset: the public ones.",
            extra={"expects": "the path of a PEM file of certificates", "fallback": "VAULT_CACERT"},
        ),
    ] = None
    auth: Annotated[
        AuthMethod,
        Meta(
            description="How the service logs in: `token`, `approle`, `kubernetes` or `jwt`.",
            extra={"expects": "token, approle, kubernetes or jwt"},
        ),
    ] = AuthMethod.TOKEN
    auth_mount: Annotated[
        _MountPath | None,
        Meta(
            description="Where the auth method is mounted. Unset: its own name.",
            extra={"expects": "a path such as kubernetes"},
        ),
    ] = None
    token: Annotated[
        Secret[str] | None,
        Meta(
            description="For `token`: the token.",
            extra={"expects": "a Vault token", "fallback": "VAULT_TOKEN"},
        ),
    ] = None
    token_file: Annotated[
        _Text | None,
        Meta(
            description="For `token`: a file with the token, as Vault Agent writes one; read at each login.",
            extra={"expects": "a path; the file with a Vault token may come later"},
        ),
    ] = None
    role: Annotated[
        _Text | None,
        Meta(
            description="For `kubernetes` and `jwt`: the role to log in to.",
            extra={"expects": "the name of a role"},
        ),
    ] = None
    role_id: Annotated[
        _Text | None,
        Meta(description="For `approle`: the role's id.", extra={"expects": "a role id"}),
    ] = None
    secret_id: Annotated[
        Secret[str] | None,
        Meta(description="For `approle`: the secret id.", extra={"expects": "a secret id"}),
    ] = None
    secret_id_file: Annotated[
        _Text | None,
        Meta(
            description="For `approle`: a file with the secret id, read at each login.",
            extra={"expects": "a path; the file with a secret id may come later"},
        ),
    ] = None
    jwt_file: Annotated[
        _Text | None,
        Meta(
            description="For `jwt`, and for `kubernetes`, where it has a default: a file with the JWT, "
            "read at each login.",
            extra={"expects": "a path; the file with a JWT may come later"},
        ),
    ] = None
    timeout_ms: Annotated[
        _Milliseconds,
        Meta(
            description="The longest that a signature may take, all retries included, in milliseconds.",
            extra={"expects": "a whole number of milliseconds from 50 to 2000"},
        ),
    ] = 2000
    connect_timeout_ms: Annotated[
        _Milliseconds,
        Meta(
            description="The longest that a connection to Vault may take, in milliseconds.",
            extra={"expects": "a whole number of milliseconds from 50 to 2000"},
        ),
    ] = 500

    @property
    def login_mount(self) -> str:
        """Where the auth method is mounted."""
        return self.auth_mount or self.auth.value

    def authorities(self) -> ssl.SSLContext:
        """Return what decides which certificate of Vault's is accepted. Blocks, while a file is read.

        Raises:
            SignerMisconfigured: the file of the authorities can't be used.
        """
        # Not create_default_context(): that one writes TLS's secrets where SSLKEYLOGFILE says.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            if self.cacert is None:
                context.load_default_certs()
            else:
                content = input_file(Path(self.cacert), Custody.PUBLIC, _MAX_AUTHORITIES_BYTES).read()
                context.load_verify_locations(cadata=content.data.decode("ascii", "replace"))
        except (ssl.SSLError, ValueError):
            text = f"{names('cacert')} must be the path of a PEM file of certificates"
        except FileUnusable as error:
            text = f"{names('cacert')} {error}"
        else:
            return context
        raise SignerMisconfigured(text, reason="tls")

    def check(self) -> None:
        """Check what no single setting can tell, and what no pattern can.

        Raises:
            SignerMisconfigured: what the auth method needs is not set, or set twice; the address is none;
                a text can't be sent; or the file of the authorities can't be used. The text names the
                variable.
        """
        match self.auth:
            case AuthMethod.TOKEN:
                self._needs_one_of("token", "token_file")
            case AuthMethod.APPROLE:
                self._needs("role_id")
                self._needs_one_of("secret_id", "secret_id_file")
            case AuthMethod.KUBERNETES:
                self._needs("role")
            case AuthMethod.JWT:
                self._needs("role")
                self._needs("jwt_file")
        if not _is_address(self.addr):
            raise SignerMisconfigured(f"{names('addr')} must be {_ADDRESS}")
        for field in ("namespace", *_PRESENTED[self.auth]):
            self._must_be_sendable(field)
        if self.cacert is not None:
            self.authorities()

    def _needs(self, field: str) -> None:
        if getattr(self, field) is None:
            raise SignerMisconfigured(f"{variable(field)} must be set: {variable('auth')} is {self.auth}")

    def _needs_one_of(self, field: str, file: str) -> None:
        given = [name for name in (field, file) if getattr(self, name) is not None]
        if not given:
            raise SignerMisconfigured(
                f"{variable(field)} or {variable(file)} must be set: {variable('auth')} is {self.auth}"
            )
        if len(given) > 1:
            raise SignerMisconfigured(f"{names(field)} and {names(file)} are both set; unset one of them")

    def _must_be_sendable(self, field: str) -> None:
        value = getattr(self, field)
        text = value.reveal() if isinstance(value, Secret) else value or ""
        if not is_sendable(text):
            raise SignerMisconfigured(
                f"{names(field)} must have no white space around it, and no control character in it"
            )


def variable(field: str) -> str:
    """Return the variable that gives ``field``."""
    return PREFIX + field.upper()


def names(field: str) -> str:
    """Return each variable that may have given ``field``, for a message."""
    own = variable(field)
    return f"{own} (or VAULT_{field.upper()})" if field in _FROM_VAULT else own


def is_sendable(text: str) -> bool:
    """Whether ``text`` may stand in an HTTP header, and nothing of it is there by mistake."""
    return text.isprintable() and text == text.strip()


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        host = (parts.hostname or "").encode("idna")
        return bool(host) and parts.port != 0 and text.isprintable()
    except ValueError:  # of the port, of the brackets, and of a name that no resolver would be asked for
        return False
