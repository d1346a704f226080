"""What may be set for ``vault-transit``, and the combinations of it that can work."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct

from macp_auth.domain.errors import SignerMisconfigured
from macp_auth.domain.secret import Secret

PREFIX = "MACP_AUTH_VAULT_"
KUBERNETES_TOKEN_FILE = "/var/run/secrets/kubernetes.io/serviceaccount/token"  # noqa: S105 - a path
"""Where Kubernetes mounts a pod's service account token."""

_Text = Annotated[str, Meta(min_length=1)]
_MountPath = Annotated[str, Meta(pattern=r"^[\w.-]+(/[\w.-]+)*$")]
_Milliseconds = Annotated[int, Meta(ge=50, le=2000)]  # a mint has 2 s, whatever happens


class AuthMethod(StrEnum):
    """How the service proves to Vault who it is."""

    TOKEN = "token"  # noqa: S105 - a method's name
    APPROLE = "approle"
    KUBERNETES = "kubernetes"
    JWT = "jwt"


class VaultSettings(Struct, frozen=True, kw_only=True):
    """What may be set. Names that Vault's own command line reads are honoured."""

    key: Annotated[
        str,
        Meta(
            pattern=r"^\w[\w.-]*$",
            description="The transit key that signs, by name.",
            extra={"expects": "the name of a transit key"},
        ),
    ]
    addr: Annotated[
        str,
        Meta(
            pattern=r"^https?://[^\s/@?#]+/?$",
            description="Vault's address.",
            extra={"expects": "an address such as https://vault.example:8200", "fallback": "VAULT_ADDR"},
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
            extra={"expects": "the path of a PEM file", "fallback": "VAULT_CACERT"},
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
            extra={"expects": "the path of a file with a Vault token"},
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
            extra={"expects": "the path of a file with a secret id"},
        ),
    ] = None
    jwt_file: Annotated[
        _Text | None,
        Meta(
            description="For `jwt`, and for `kubernetes`, where it has a default: a file with the JWT, "
            "read at each login.",
            extra={"expects": "the path of a file with a JWT"},
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

    @property
    def login_jwt_file(self) -> Path:
        """The file that ``kubernetes`` and ``jwt`` log in with."""
        return Path(self.jwt_file or KUBERNETES_TOKEN_FILE)

    def check(self) -> None:
        """Check what no single setting can tell.

        Raises:
            SignerMisconfigured: what the auth method needs is not set, or set twice.
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
        if self.cacert is not None and not Path(self.cacert).is_file():
            raise SignerMisconfigured(f"{PREFIX}CACERT (or VAULT_CACERT) names no file")

    def _needs(self, field: str) -> None:
        if getattr(self, field) is None:
            raise SignerMisconfigured(f"{_variable(field)} must be set: {_variable('auth')} is {self.auth}")

    def _needs_one_of(self, field: str, file: str) -> None:
        if getattr(self, field) is None and getattr(self, file) is None:
            raise SignerMisconfigured(
                f"{_variable(field)} or {_variable(file)} must be set: {_variable('auth')} is {self.auth}"
            )


def _variable(field: str) -> str:
    return PREFIX + field.upper()
