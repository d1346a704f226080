"""The settings of ``vault-transit``, and their valid combinations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Annotated
from urllib.parse import urlsplit

from msgspec import Meta, Struct

from macp_auth.adapters import setting
from macp_auth.domain.errors import SignerMisconfigured
from macp_auth.domain.secret import Secret

PREFIX = "MACP_AUTH_VAULT_"
KUBERNETES_TOKEN_FILE = "/var/run/secrets/kubernetes.io/serviceaccount/token"  # noqa: S105 - a path
"""Where Kubernetes mounts a pod's service account token."""

_ADDRESS = "an address such as https://vault.example:8200, with a port from 1 to 65535"
TRUSTED = ("cacert", "cacert_bytes", "capath")
"""Sources of trusted CA certificates. The first that is set is used, as by Vault's own commands."""
_TLS = (*TRUSTED, "client_cert", "client_key", "tls_server_name")
_FROM_VAULT = {"addr", "namespace", "token", *_TLS}  # also read from Vault's own variables
_UNSUPPORTED = {
    **dict.fromkeys(
        ("AGENT_ADDR", "PROXY_ADDR", "HTTP_PROXY", "SRV_LOOKUP"),
        "the service connects to MACP_AUTH_VAULT_ADDR (or VAULT_ADDR): set that, and unset this",
    ),
    **dict.fromkeys(
        ("CLIENT_CERT_BYTES", "CLIENT_KEY_BYTES"),
        "put it into a file, set MACP_AUTH_VAULT_CLIENT_CERT or MACP_AUTH_VAULT_CLIENT_KEY, and unset this",
    ),
}
"""Variables that the commands of Vault and OpenBao read and the service does not, with the remedy."""
_TRUE = {"1", "t", "T", "TRUE", "true", "True"}  # Go's strconv.ParseBool
_Text = Annotated[str, Meta(min_length=1)]
_MountPath = Annotated[str, Meta(pattern=r"\A[\w.-]+(/[\w.-]+)*\Z")]
_WITHIN_A_MINT = (50, 2000)  # milliseconds; a mint takes at most 2 s


class AuthMethod(StrEnum):
    """How the service authenticates to Vault."""

    TOKEN = "token"  # noqa: S105 - a method's name
    APPROLE = "approle"
    KUBERNETES = "kubernetes"
    JWT = "jwt"
    CERT = "cert"


_PRESENTED = {
    AuthMethod.TOKEN: ["token"],
    AuthMethod.APPROLE: ["role_id", "secret_id"],
    AuthMethod.KUBERNETES: ["role"],
    AuthMethod.JWT: ["role"],
    AuthMethod.CERT: ["role"],
}
"""The settings that each method sends to Vault unchanged."""


class VaultSettings(Struct, frozen=True, kw_only=True):
    """The settings; some can also be set by the variables of Vault's own command line."""

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
        setting.value("Where the transit engine is mounted.", "a path such as transit"),
    ] = "transit"
    namespace: Annotated[
        str | None,
        setting.value(
            "The namespace. Unset: the root namespace.",
            "a namespace such as team-a",
            fallback="VAULT_NAMESPACE",
        ),
    ] = None
    cacert: Annotated[
        _Text | None,
        setting.value(
            "A PEM file of trusted CA certificates for Vault. Unset: the public CAs.",
            "the path of a PEM file of certificates",
            fallback="VAULT_CACERT",
        ),
    ] = None
    cacert_bytes: Annotated[
        _Text | None,
        setting.value(
            "The CA certificates themselves; used if there is no file of them.",
            "certificates in PEM",
            fallback="VAULT_CACERT_BYTES",
            multiline=True,
        ),
    ] = None
    capath: Annotated[
        _Text | None,
        setting.value(
            "A folder with PEM files of CA certificates; used if neither of the two is set.",
            "the path of a folder with PEM files of certificates",
            fallback="VAULT_CAPATH",
        ),
    ] = None
    client_cert: Annotated[
        _Text | None,
        setting.value(
            "A PEM file of the certificate that the service presents to Vault, and its chain.",
            "the path of a PEM file of a certificate",
            fallback="VAULT_CLIENT_CERT",
        ),
    ] = None
    client_key: Annotated[
        _Text | None,
        setting.value(
            "A PEM file of the private key of that certificate.",
            "the path of a PEM file of a private key",
            fallback="VAULT_CLIENT_KEY",
        ),
    ] = None
    tls_server_name: Annotated[
        Annotated[str, Meta(pattern=r"\A[\w.:-]+\Z")] | None,
        setting.value(
            "The name that Vault's certificate must have. Unset: the host of the address.",
            "a host name or an IP address",
            fallback="VAULT_TLS_SERVER_NAME",
        ),
    ] = None
    auth: Annotated[
        AuthMethod,
        setting.value(
            "How the service logs in: `token`, `approle`, `kubernetes`, `jwt` or `cert`.",
            "token, approle, kubernetes, jwt or cert",
        ),
    ] = AuthMethod.TOKEN
    auth_mount: Annotated[
        _MountPath | None,
        setting.value("Where the auth method is mounted. Unset: its own name.", "a path such as kubernetes"),
    ] = None
    token: Annotated[
        Secret[str] | None,
        setting.value("For `token`: the token.", "a Vault token", fallback="VAULT_TOKEN"),
    ] = None
    token_file: Annotated[
        _Text | None,
        setting.value(
            "For `token`: a file with the token, such as Vault Agent's; read at each login.",
            "a path; the file with a Vault token may come later",
        ),
    ] = None
    role: Annotated[
        _Text | None,
        setting.value(
            "For `kubernetes` and `jwt`, and for `cert` if several match: the role to log in to.",
            "the name of a role",
        ),
    ] = None
    role_id: Annotated[
        _Text | None,
        setting.value("For `approle`: the role's id.", "a role id"),
    ] = None
    secret_id: Annotated[
        Secret[str] | None,
        setting.value("For `approle`: the secret id.", "a secret id"),
    ] = None
    secret_id_file: Annotated[
        _Text | None,
        setting.value(
            "For `approle`: a file with the secret id, read at each login.",
            "a path; the file with a secret id may come later",
        ),
    ] = None
    jwt_file: Annotated[
        _Text | None,
        setting.value(
            "For `jwt`, and for `kubernetes`, where it has a default: a file with the JWT, "
            "read at each login.",
            "a path; the file with a JWT may come later",
        ),
    ] = None
    timeout_ms: Annotated[
        int,
        setting.milliseconds(
            *_WITHIN_A_MINT, "Time limit of a signature in milliseconds, including retries."
        ),
    ] = 2000
    connect_timeout_ms: Annotated[
        int,
        setting.milliseconds(*_WITHIN_A_MINT, "Time limit of a new connection to Vault in milliseconds."),
    ] = 500

    @property
    def login_mount(self) -> str:
        """Where the auth method is mounted."""
        return self.auth_mount or self.auth.value

    def check(self) -> None:
        """Check combinations of settings, and what a pattern cannot check.

        Raises:
            SignerMisconfigured: a setting that the auth method needs is missing, or set twice; the address
                is invalid; only half of a client certificate is set; or a text can't be sent. The text
                names the variable.
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
            case AuthMethod.CERT:
                self._needs("client_cert")
        if (self.client_cert is None) != (self.client_key is None):
            raise SignerMisconfigured(
                f"{names('client_cert')} and {names('client_key')} must both be set, or neither"
            )
        if not _is_address(self.addr):
            raise SignerMisconfigured(f"{names('addr')} must be {_ADDRESS}")
        if self.auth is AuthMethod.CERT and not self.addr.startswith("https://"):
            raise SignerMisconfigured(f"{names('addr')} must begin with https://: {variable('auth')} is cert")
        for field in ("namespace", *_PRESENTED[self.auth]):
            self._must_be_sendable(field)

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
                f"{names(field)} must not begin or end with white space, or contain control characters"
            )


def variable(field: str) -> str:
    """Return the variable of ``field``."""
    return PREFIX + field.upper()


def names(field: str) -> str:
    """Return every variable of ``field``, for a message."""
    own = variable(field)
    return f"{own} (or VAULT_{field.upper()})" if field in _FROM_VAULT else own


def unused_variables(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield each set variable of Vault's or OpenBao's command that has no effect here, and the remedy."""
    yield from _unsupported(environ)
    given = {field: name for field in ("addr", "namespace", *_TLS) if (name := _given(field, environ))}
    for field in ("addr", "namespace", *_TLS):
        other = f"BAO_{field.upper()}"
        if environ.get(other) and environ[other] != environ.get(given.get(field, "")):
            yield other, f"variables with this prefix are not read: set VAULT_{field.upper()}, and unset this"
    first, *overruled = [field for field in TRUSTED if field in given] or [""]
    for field in overruled:
        yield given[field], f"{given[first]} has precedence: unset one of them"
    if environ.get(given.get("addr", ""), "").startswith("http://"):
        remedy = f"{given['addr']} begins with http://, without TLS: use https://, or unset this"
        yield from ((given[field], remedy) for field in _TLS if field in given and field not in overruled)


def _unsupported(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for product in ("VAULT_", "BAO_"):
        if environ.get(skip := f"{product}SKIP_VERIFY") in _TRUE:
            yield skip, "Vault's certificate is always verified: set VAULT_CACERT to its CA, and unset this"
        for suffix, remedy in _UNSUPPORTED.items():
            if product + suffix in environ:
                yield product + suffix, remedy


def _given(field: str, environ: Mapping[str, str]) -> str | None:
    """Return the set variable of ``field``, if there is one."""
    return next((name for name in (variable(field), f"VAULT_{field.upper()}") if name in environ), None)


def is_sendable(text: str) -> bool:
    """Whether ``text`` is valid in an HTTP header, without white space around it."""
    return text.isprintable() and text == text.strip()


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        host = (parts.hostname or "").encode("idna")
        return bool(host) and parts.port != 0 and text.isprintable()
    except ValueError:  # of the port, of the brackets, or of the name
        return False
