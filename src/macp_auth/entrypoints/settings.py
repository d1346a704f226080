"""The settings of the service: each is declared here, and only here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct

from macp_auth.adapters.linear_pattern import LinearPattern
from macp_auth.domain.claims import probe_claims
from macp_auth.domain.errors import ConfigurationError
from macp_auth.domain.key_set import MAX_TOKEN_BYTES, fits_any_key
from macp_auth.domain.policy import MACP_RUNTIME, RotationPolicy, Verifier
from macp_auth.domain.ttl import TTLPolicy
from macp_auth.entrypoints.environment import PREFIX

_YEAR = 365 * 24 * 3600
_MAX_KEPT = 3 * _YEAR  # seconds; all that the other settings can call for is less
_DEFAULT_TTL = 300
_MAX_PORT = 65535

Text = Annotated[str, Meta(min_length=1, max_length=1024, pattern=r"\S")]


class TLSFiles(Struct, frozen=True):
    """The PEM files with which the service speaks TLS."""

    certificate: Path
    """The server's certificate, and after it those that lead to its authority."""
    key: Path
    client_ca: Path | None
    """The authorities that may vouch for clients; None if clients need no certificate."""


class Settings(Struct, frozen=True, kw_only=True):
    """The settings of the service itself."""

    port: Annotated[
        int,
        Meta(
            ge=1,
            le=65535,
            description="Port to listen on.",
            extra={"expects": "a port from 1 to 65535", "variable": "PORT"},
        ),
    ] = 3200
    host: Annotated[
        Text, Meta(description="Address to listen on.", extra={"expects": "an IP address or a host name"})
    ] = "127.0.0.1"
    workers: Annotated[
        int,
        Meta(
            ge=1,
            le=256,
            description="Worker processes; all share one key.",
            extra={"expects": "a whole number from 1 to 256"},
        ),
    ] = 1
    metrics_port: Annotated[
        int | None,
        Meta(
            description="Port to serve /metrics on. Unset: no metrics.",
            extra={"expects": "a port from 1 to 65535"},
        ),
    ] = None
    metrics_host: Annotated[
        Text | None,
        Meta(
            description="Address to serve /metrics on. Unset: MACP_AUTH_HOST's.",
            extra={"expects": "an IP address or a host name"},
        ),
    ] = None
    tls_cert_file: Annotated[
        Text | None,
        Meta(
            description="The server's certificate chain. Unset: plain HTTP.",
            extra={"expects": "the path of a PEM file of certificates"},
        ),
    ] = None
    tls_key_file: Annotated[
        Text | None,
        Meta(
            description="The private key of that certificate.",
            extra={"expects": "the path of a PEM file of a private key"},
        ),
    ] = None
    tls_client_ca_file: Annotated[
        Text | None,
        Meta(
            description="Who vouches for the callers that may mint. Unset: callers need no certificate.",
            extra={"expects": "the path of a PEM file of certificates"},
        ),
    ] = None
    max_connections: Annotated[
        Annotated[int, Meta(ge=1, le=1_000_000)] | None,
        Meta(
            description="The most connections that a worker holds. Unset: 1000, or what descriptors allow.",
            extra={"expects": "a whole number from 1 to 1000000, and 96 less than the limit of open files"},
        ),
    ] = None
    connection_max_age_seconds: Annotated[
        int,
        Meta(
            ge=1,
            le=_YEAR,
            description="The greatest age of a connection.",
            extra={"expects": f"a whole number of seconds from 1 to {_YEAR}"},
        ),
    ] = 3600
    issuer: Annotated[
        Text, Meta(description="The `iss` claim.", extra={"expects": "a name of 1 to 1024 characters"})
    ] = "macp-auth-service"
    audience: Annotated[
        Text, Meta(description="The `aud` claim.", extra={"expects": "a name of 1 to 1024 characters"})
    ] = "macp-runtime"
    max_ttl_seconds: Annotated[
        int,
        Meta(
            ge=1,
            le=_YEAR,
            description="The longest lifetime; longer requests are cut to it.",
            extra={"expects": f"a whole number of seconds from 1 to {_YEAR}"},
        ),
    ] = 3600
    default_ttl_seconds: Annotated[
        int | None,
        Meta(
            description=f"The lifetime when a request names none. Unset: {_DEFAULT_TTL}, cut to the maximum.",
            extra={"expects": "a whole number of seconds from 1 to MACP_AUTH_MAX_TTL_SECONDS"},
        ),
    ] = None
    sender_pattern: Annotated[
        LinearPattern | None,
        Meta(
            description="A regular expression that the whole sender must match. Unset: any.",
            extra={
                "expects": "a regular expression in RE2's syntax: no look-around or backreference, "
                "and small counted repetitions"
            },
        ),
    ] = None
    audit_log: Annotated[
        str,
        Meta(
            pattern=r"\A(stdout|off|/.*[^/])\Z",
            description="Where a line goes for each token that is minted or refused.",
            extra={"expects": "stdout, off or the absolute path of a file"},
        ),
    ] = "stdout"
    traces: Annotated[
        Literal["off", "otlp"],
        Meta(
            description="Whether OpenTelemetry spans are sent; needs the extra `otel`.",
            extra={"expects": "off or otlp"},
        ),
    ] = "off"
    jwks_max_age_seconds: Annotated[
        int,
        Meta(
            ge=0,
            le=86400,
            description="The `max-age` of the JWKS: how long a verifier may use it unasked.",
            extra={"expects": "a whole number of seconds from 0 to 86400"},
        ),
    ] = 60
    key_refresh_seconds: Annotated[
        int,
        Meta(
            ge=1,
            le=3600,
            description="How often, at least, the keys are read from the signer.",
            extra={"expects": "a whole number of seconds from 1 to 3600"},
        ),
    ] = 30
    verifier_cache_ttl_seconds: Annotated[
        int,
        Meta(
            ge=0,
            le=_YEAR,
            description="How long verifiers use a fetched JWKS.",
            extra={"expects": f"a whole number of seconds from 0 to {_YEAR}"},
        ),
    ] = MACP_RUNTIME.cache_ttl or 0
    verifier_stale_grace_seconds: Annotated[
        int,
        Meta(
            ge=0,
            le=_YEAR,
            description="How much longer they use it while they can't fetch.",
            extra={"expects": f"a whole number of seconds from 0 to {_YEAR}"},
        ),
    ] = MACP_RUNTIME.stale_grace or 0
    verifier_leeway_seconds: Annotated[
        int,
        Meta(
            ge=0,
            le=3600,
            description="How long past `exp` they still accept a token.",
            extra={"expects": "a whole number of seconds from 0 to 3600"},
        ),
    ] = MACP_RUNTIME.leeway
    clock_skew_seconds: Annotated[
        int,
        Meta(
            ge=0,
            le=3600,
            description="How far two clocks may be apart.",
            extra={"expects": "a whole number of seconds from 0 to 3600"},
        ),
    ] = 30
    max_clock_step_seconds: Annotated[
        int,
        Meta(
            ge=1,
            le=3600,
            description="The largest step of the wall clock after which tokens are minted.",
            extra={"expects": "a whole number of seconds from 1 to 3600"},
        ),
    ] = 30
    clock_accept_after_seconds: Annotated[
        Annotated[int, Meta(ge=1, le=_YEAR)] | None,
        Meta(
            description="A larger step is believed after so long without another. Unset: never.",
            extra={"expects": f"a whole number of seconds from 1 to {_YEAR}"},
        ),
    ] = None
    key_publish_lead_seconds: Annotated[
        Annotated[int, Meta(ge=0, le=_MAX_KEPT)] | None,
        Meta(
            description="How long a key is published before it signs. Unset: as verifiers need, and more.",
            extra={
                "expects": f"a whole number of seconds, no less than the verifiers need, at most {_MAX_KEPT}"
            },
        ),
    ] = None
    key_retire_lag_seconds: Annotated[
        Annotated[int, Meta(ge=0, le=_MAX_KEPT)] | None,
        Meta(
            description="How long a key stays published after its last signature. Unset: what tokens need.",
            extra={"expects": f"a whole number of seconds, no less than tokens need, at most {_MAX_KEPT}"},
        ),
    ] = None
    signer: Annotated[
        Text | None,
        Meta(
            description="Unset: `env-jwk` if `MACP_AUTH_SIGNING_KEY_JSON` is set, else `ephemeral`.",
            extra={"expects": "the name of a signer"},
        ),
    ] = None

    @property
    def metrics_address(self) -> tuple[str, int] | None:
        """The host and the port to serve metrics on; None if they are off.

        Raises:
            ConfigurationError: it is no port, or the one for tokens.
        """
        if self.metrics_port is None:
            return None
        if not 1 <= self.metrics_port <= _MAX_PORT:
            raise ConfigurationError(f"MACP_AUTH_METRICS_PORT must be a port from 1 to {_MAX_PORT}")
        address = self.metrics_host or self.host, self.metrics_port
        if address == (self.host, self.port):
            raise ConfigurationError(
                "MACP_AUTH_METRICS_PORT must not be PORT, where tokens are minted: set another"
            )
        return address

    @property
    def ttl(self) -> TTLPolicy:
        """The lifetimes that may be minted.

        Raises:
            ConfigurationError: the default is no lifetime up to the maximum.
        """
        default = (
            min(_DEFAULT_TTL, self.max_ttl_seconds)
            if self.default_ttl_seconds is None
            else self.default_ttl_seconds
        )
        if not 1 <= default <= self.max_ttl_seconds:
            raise ConfigurationError(
                "MACP_AUTH_DEFAULT_TTL_SECONDS must be from 1 to MACP_AUTH_MAX_TTL_SECONDS; "
                "raise the maximum or lower the default"
            )
        return TTLPolicy(default=default, maximum=self.max_ttl_seconds)

    def check_names(self) -> None:
        """See that issuer and audience leave room for the rest of a token.

        Raises:
            ConfigurationError: they do not.
        """
        if not fits_any_key(probe_claims(self.issuer, self.audience, 0)):
            raise ConfigurationError(
                "MACP_AUTH_ISSUER and MACP_AUTH_AUDIENCE are too long: with a typical request and a key, "
                f"a token would be over {MAX_TOKEN_BYTES} bytes; shorten one of them"
            )

    @property
    def tls(self) -> TLSFiles | None:
        """The files with which to speak TLS; None for plain HTTP.

        Raises:
            ConfigurationError: only some of what TLS needs is set.
        """
        if self.tls_cert_file is not None and self.tls_key_file is not None:
            client_ca = None if self.tls_client_ca_file is None else Path(self.tls_client_ca_file)
            return TLSFiles(Path(self.tls_cert_file), Path(self.tls_key_file), client_ca)
        if (self.tls_cert_file, self.tls_key_file, self.tls_client_ca_file) != (None, None, None):
            raise ConfigurationError(
                "MACP_AUTH_TLS_CERT_FILE and MACP_AUTH_TLS_KEY_FILE must both be set for TLS, "
                "and for MACP_AUTH_TLS_CLIENT_CA_FILE"
            )
        return None

    @property
    def rotation(self) -> RotationPolicy:
        """How keys come and go.

        Raises:
            ConfigurationError: the lead or the lag is less than the other settings call for.
        """
        policy = RotationPolicy(
            max_ttl=self.max_ttl_seconds,
            refresh=self.key_refresh_seconds,
            max_age=self.jwks_max_age_seconds,
            clock_skew=self.clock_skew_seconds,
            verifier=Verifier(
                name="configured",
                cache_ttl=self.verifier_cache_ttl_seconds,
                stale_grace=self.verifier_stale_grace_seconds,
                leeway=self.verifier_leeway_seconds,
            ),
            publish_lead=self.key_publish_lead_seconds,
            retire_lag=self.key_retire_lag_seconds,
        )
        for name, needed in policy.contradictions():
            raise ConfigurationError(
                f"{PREFIX}KEY_{name.upper()}_SECONDS is less than the other settings call for: {needed}; "
                "raise it, or lower what it is made of"
            )
        return policy
