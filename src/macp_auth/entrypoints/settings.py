"""Declares the settings of the service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct

from macp_auth.adapters import setting
from macp_auth.adapters.linear_pattern import LinearPattern
from macp_auth.domain.claims import probe_claims
from macp_auth.domain.errors import ConfigurationError
from macp_auth.domain.key_set import MAX_TOKEN_BYTES, fits_any_key
from macp_auth.domain.policy import MACP_RUNTIME, RotationPolicy, Verifier
from macp_auth.domain.sender import SenderPolicy
from macp_auth.domain.ttl import TTLPolicy
from macp_auth.entrypoints.environment import PREFIX

_YEAR = 365 * 24 * 3600
_MAX_KEPT = 3 * _YEAR  # seconds; more than the other settings can require
_DEFAULT_TTL = 300
_HOST = "an IP address or a host name"
_CERTIFICATES = "the path of a PEM file of certificates"


class TLSFiles(Struct, frozen=True):
    """The PEM files for TLS."""

    certificate: Path
    """The server's certificate, followed by the chain to its authority."""
    key: Path
    client_ca: Path | None
    """The authorities of client certificates; None if clients need no certificate."""


class Settings(Struct, frozen=True, kw_only=True):
    """The settings of the service itself."""

    port: Annotated[int, setting.port("Port to listen on.", variable="PORT")] = 3200
    host: Annotated[
        str,
        setting.text(
            "Address to listen on. `0.0.0.0` or `::` is all: read [SECURITY.md](../SECURITY.md) first.",
            _HOST,
        ),
    ] = "127.0.0.1"
    workers: Annotated[int, setting.whole(1, 256, "Worker processes. They share the port and the key.")] = 1
    metrics_port: (
        Annotated[int, setting.port("Port to serve [metrics](metrics.md) on. Unset: no metrics.")] | None
    ) = None
    metrics_host: (
        Annotated[str, setting.text("Address to serve metrics on. Unset: that of `MACP_AUTH_HOST`.", _HOST)]
        | None
    ) = None
    jwks_port: (
        Annotated[
            int,
            setting.port(
                "Port of a [second listener](deployment.md#a-listener-for-the-keys), for the keys, discovery "
                "and the probes only. Unset: none."
            ),
        ]
        | None
    ) = None
    jwks_host: (
        Annotated[str, setting.text("Address of that listener. Unset: that of `MACP_AUTH_HOST`.", _HOST)]
        | None
    ) = None
    jwks_tls: Annotated[
        Literal["auto", "off"],
        setting.value(
            "TLS of that listener: `auto` is TLS where the service has it, without client certificates; "
            "`off` is [plain HTTP](tls.md#the-keys-without-tls).",
            "auto or off",
        ),
    ] = "auto"
    tls_cert_file: (
        Annotated[
            str,
            setting.text(
                "The server's certificate chain for [TLS](tls.md), read again when it changes. "
                "Unset: plain HTTP.",
                _CERTIFICATES,
            ),
        ]
        | None
    ) = None
    tls_key_file: (
        Annotated[
            str,
            setting.text(
                "The private key of that certificate. Only the owner may write the file, and only the owner "
                "and the group may read it.",
                "the path of a PEM file of a private key",
            ),
        ]
        | None
    ) = None
    tls_client_ca_file: (
        Annotated[
            str,
            setting.text(
                "The authorities of client certificates. Set without a callers file: a token needs a client "
                "certificate. Unset: clients are asked for none.",
                _CERTIFICATES,
            ),
        ]
        | None
    ) = None
    callers_file: (
        Annotated[
            str,
            setting.text(
                "The [callers file](callers.md): who may mint what, read again when it changes. "
                "Unset: anyone who reaches the service may mint anything.",
                "the path of a TOML file",
            ),
        ]
        | None
    ) = None
    callers_mode: Annotated[
        Literal["enforce", "report"],
        setting.value(
            "Whether the callers file decides, or its refusals are [only logged](callers.md#report-mode).",
            "enforce or report",
        ),
    ] = "enforce"
    max_connections: (
        Annotated[
            int,
            setting.whole(
                1,
                1_000_000,
                "The most [connections](deployment.md#connections) that each worker holds, on each listener. "
                "Unset: 1000, or what the limit of open files allows.",
                besides=", and 96 less than the limit of open files",
            ),
        ]
        | None
    ) = None
    connection_max_age_seconds: Annotated[
        int,
        setting.seconds(
            1,
            _YEAR,
            "The greatest age of a connection. It is closed after the answer that says so, or when idle.",
        ),
    ] = 3600
    issuer: Annotated[str, setting.name("The `iss` claim. Verifiers compare it exactly.")] = (
        "macp-auth-service"
    )
    audience: Annotated[str, setting.name("The `aud` claim. Verifiers compare it exactly.")] = "macp-runtime"
    max_ttl_seconds: Annotated[
        int,
        setting.seconds(1, _YEAR, "The longest lifetime of a token. Longer requests are cut to it."),
    ] = 3600
    default_ttl_seconds: Annotated[
        int | None,
        Meta(
            description="The lifetime when a request names none. "
            f"Unset: {_DEFAULT_TTL}, or the maximum if that is less.",
            extra={"expects": "a whole number of seconds from 1 to MACP_AUTH_MAX_TTL_SECONDS"},
            # For the chart, which does not compare two values; :attr:`ttl` does.
            extra_json_schema={"minimum": 1, "maximum": _YEAR},
        ),
    ] = None
    sender_pattern: (
        Annotated[
            LinearPattern,
            setting.value(
                "A [regular expression](#the-sender-pattern) that the whole sender must match, for example "
                "`(agent://)?[a-z0-9-]{1,64}`. Unset: any sender.",
                "a regular expression in RE2's syntax: no look-around or backreference, "
                "and small counted repetitions",
            ),
        ]
        | None
    ) = None
    audit_log: Annotated[
        str,
        Meta(
            pattern=r"\A(stdout|off|/.*[^/])\Z",
            description="Where the [audit log](audit.md) goes: "
            "a line for each token that is minted or refused.",
            extra={"expects": "stdout, off or the absolute path of a file"},
        ),
    ] = "stdout"
    audit_required: Annotated[
        Literal["off", "on"],
        setting.value(
            "Whether a token leaves only when [its audit line is written](audit.md#no-token-without-a-line).",
            "off or on",
        ),
    ] = "off"
    traces: Annotated[
        Literal["off", "otlp"],
        setting.value(
            "Whether [OpenTelemetry spans](api.md#request-ids-and-traces) are sent. Needs the extra `otel`.",
            "off or otlp",
        ),
    ] = "off"
    openapi: Annotated[
        Literal["off", "on"],
        setting.value(
            "Whether `/openapi.json` answers with the [OpenAPI document](api.md#openapi).", "off or on"
        ),
    ] = "off"
    jwks_max_age_seconds: Annotated[
        int,
        setting.seconds(
            0, 86400, "The `max-age` of the JWKS: how long a cache may use it without asking again."
        ),
    ] = 60
    key_refresh_seconds: Annotated[
        int, setting.seconds(1, 3600, "How often, at least, the keys are read from the signer.")
    ] = 30
    verifier_cache_ttl_seconds: Annotated[
        int, setting.seconds(0, _YEAR, "How long verifiers use a fetched JWKS.")
    ] = MACP_RUNTIME.cache_ttl or 0
    verifier_stale_grace_seconds: Annotated[
        int, setting.seconds(0, _YEAR, "How much longer verifiers use it while they can't fetch.")
    ] = MACP_RUNTIME.stale_grace or 0
    verifier_leeway_seconds: Annotated[
        int, setting.seconds(0, 3600, "How long past `exp` verifiers still accept a token.")
    ] = MACP_RUNTIME.leeway
    clock_skew_seconds: Annotated[int, setting.seconds(0, 3600, "How far two clocks may be apart.")] = 30
    max_clock_step_seconds: Annotated[
        int,
        setting.seconds(
            1,
            3600,
            "The largest [step of the wall clock](troubleshooting.md#the-clock-was-stepped) "
            "after which tokens are minted.",
        ),
    ] = 30
    clock_accept_after_seconds: (
        Annotated[
            int,
            setting.seconds(
                1,
                _YEAR,
                "A larger step is accepted after so long without another one. "
                "Unset: only a restart accepts it.",
            ),
        ]
        | None
    ) = None
    key_publish_lead_seconds: (
        Annotated[
            int,
            setting.seconds_needed(
                "the verifiers need",
                _MAX_KEPT,
                "How long a key is published before it signs. Unset: what the verifiers need, rounded up to "
                "a quarter of an hour (4500 with the defaults).",
            ),
        ]
        | None
    ) = None
    key_retire_lag_seconds: (
        Annotated[
            int,
            setting.seconds_needed(
                "tokens need",
                _MAX_KEPT,
                "How long a key stays published after its last signature. Unset: what tokens need "
                "(3720 with the defaults).",
            ),
        ]
        | None
    ) = None
    signer: (
        Annotated[
            str,
            setting.text(
                "The [signer](#which-signer): `ephemeral`, `env-jwk`, `jwk-file`, `vault-transit`, or an "
                "installed plugin. "
                "Unset: `env-jwk` if `MACP_AUTH_SIGNING_KEY_JSON` is set, else `ephemeral`.",
                "the name of a signer",
            ),
        ]
        | None
    ) = None
    signer_command: (
        Annotated[
            str,
            setting.text(
                "The program of a signer that is no Python plugin, with its arguments, as in a shell "
                "([protocol](signer-protocol.md)). `MACP_AUTH_SIGNER` is then the name that it has.",
                "the path of a program, with its arguments",
            ),
        ]
        | None
    ) = None
    signer_environment: (
        Annotated[
            str,
            setting.text(
                "More variables for the process of a plugin, separated by commas; `NAME_*` means all that "
                "begin with `NAME_`. It gets those of its own settings, and what every program needs.",
                "names of variables, separated by commas",
            ),
        ]
        | None
    ) = None
    signer_memory_mib: Annotated[
        int,
        setting.whole(
            64,
            1024 * 1024,
            "How much memory, in MiB, the process of a plugin may have in each worker, on Linux: its data "
            "and the stacks of its threads (`RLIMIT_DATA`).",
        ),
    ] = 512

    @property
    def jwks_address(self) -> tuple[str, int] | None:
        """The host and the port of the listener for the keys; None if there is none."""
        return None if self.jwks_port is None else (self.jwks_host or self.host, self.jwks_port)

    @property
    def metrics_address(self) -> tuple[str, int] | None:
        """The host and the port of the metrics; None if they are off."""
        return None if self.metrics_port is None else (self.metrics_host or self.host, self.metrics_port)

    def check_addresses(self) -> None:
        """Check that each listener has an address of its own.

        Raises:
            ConfigurationError: two have the same.
        """
        used = {(self.host, self.port): "PORT, where tokens are minted"}
        for variable, address in (
            ("MACP_AUTH_JWKS_PORT", self.jwks_address),
            ("MACP_AUTH_METRICS_PORT", self.metrics_address),
        ):
            if address in used:
                raise ConfigurationError(f"{variable} must not be {used[address]}: set another")
            if address is not None:
                used[address] = variable

    @property
    def ttl(self) -> TTLPolicy:
        """The lifetimes that may be minted.

        Raises:
            ConfigurationError: the default is above the maximum.
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

    @property
    def senders(self) -> SenderPolicy:
        """Which senders may be minted."""
        return SenderPolicy(None if self.sender_pattern is None else self.sender_pattern.matches)

    @property
    def callers_enforced(self) -> bool:
        """Whether a token needs a grant of the callers file."""
        return self.callers_file is not None and self.callers_mode == "enforce"

    def check_callers(self) -> None:
        """Check that the mode has a callers file.

        Raises:
            ConfigurationError: it has none.
        """
        if self.callers_mode == "report" and self.callers_file is None:
            raise ConfigurationError(
                "MACP_AUTH_CALLERS_MODE=report needs MACP_AUTH_CALLERS_FILE: set it to the path of the "
                "callers file to try, or unset the mode"
            )

    def check_names(self) -> None:
        """Check that issuer and audience leave room for the rest of a token.

        Raises:
            ConfigurationError: they are too long.
        """
        if not fits_any_key(probe_claims(self.issuer, self.audience, 0)):
            raise ConfigurationError(
                "MACP_AUTH_ISSUER and MACP_AUTH_AUDIENCE are too long: with a typical request and a key, "
                f"a token would be over {MAX_TOKEN_BYTES} bytes; shorten one of them"
            )

    def check_audit(self) -> None:
        """Check that a required audit log is not off.

        Raises:
            ConfigurationError: it is.
        """
        if self.audit_required == "on" and self.audit_log == "off":
            raise ConfigurationError(
                "MACP_AUTH_AUDIT_REQUIRED is on, but MACP_AUTH_AUDIT_LOG is off: set it to stdout or a path, "
                "or do not require it"
            )

    @property
    def tls(self) -> TLSFiles | None:
        """The files for TLS; None for plain HTTP.

        Raises:
            ConfigurationError: only some of the required settings for TLS are set.
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
        """The rotation policy.

        Raises:
            ConfigurationError: the lead or the lag is less than the other settings require.
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
