"""Every variable, every kind of bad value, and no content in any message."""

from __future__ import annotations

import json
import pickle
import re
from typing import Any

import pytest
from msgspec import Struct

from macp_auth.adapters.plugins import BUILT_IN, load_signer_plugin
from macp_auth.adapters.signers.env_jwk import KEY_JSON
from macp_auth.domain.errors import ConfigurationError
from macp_auth.entrypoints.environment import (
    ECOSYSTEM,
    PREFIX,
    Variable,
    read_settings,
    unread_variables,
    variables,
)
from macp_auth.entrypoints.plan import plan_service
from macp_auth.entrypoints.settings import Settings
from tests.support import jwks


def read(**environ: str) -> Settings:
    return read_settings(Settings, PREFIX, environ)


def test_defaults_are_the_references() -> None:
    """Nothing set: what the reference service does."""
    settings = read()
    assert (settings.port, settings.host) == (3200, "127.0.0.1")
    assert (settings.issuer, settings.audience) == ("macp-auth-service", "macp-runtime")
    assert (settings.ttl.default, settings.ttl.maximum) == (300, 3600)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(
            ("PORT", value)
            for value in (
                "abc",
                "-1",
                "0",
                "65536",
                "3200.5",
                "0x50",
                " ",
                "3200 ",
                "٣",
                "1e3",
                "3200.0",
                "null",
            )
        ),
        *(("MACP_AUTH_WORKERS", value) for value in ("0", "-1", "two", "257", "1.5")),
        *(("MACP_AUTH_ISSUER", value) for value in (" ", "\t", "x" * 1025, "a\udcffb")),
        *(("MACP_AUTH_AUDIENCE", value) for value in (" ", "x" * 1025)),
        *(
            ("MACP_AUTH_MAX_TTL_SECONDS", value)
            for value in ("0", "-5", "1.5", "inf", "nan", "1e21", "abc", "9" * 5000)
        ),
        *(
            ("MACP_AUTH_DEFAULT_TTL_SECONDS", value)
            for value in ("0", "-1", "3601", "99999", "nan", "x", "null", "1e2")
        ),
        *(
            ("MACP_AUTH_SENDER_PATTERN", value)
            for value in ("(", "[a", "*", "a{1001}", "(?=agent)a.*", r"(agent)\1", "(ab?){300}")
        ),
        *(("MACP_AUTH_JWKS_MAX_AGE_SECONDS", value) for value in ("-1", "86401", "soon")),
        *(
            (f"MACP_AUTH_KEY_{name}_SECONDS", value)
            for name in ("PUBLISH_LEAD", "RETIRE_LAG")
            for value in ("-1", "94608001", "9" * 17)
        ),
        *(("MACP_AUTH_SIGNING_ALG", value) for value in ("HS256", "rs256", "none", "RS256,ES256")),
        *(("MACP_AUTH_SIGNER", value) for value in ("vaultt", "Ephemeral", " ")),
        ("MACP_AUTH_SIGNING_KEY_JSON", "not-a-key-but-a-pass-phrase"),
    ],
)
def test_bad_values(name: str, value: str) -> None:
    """The message names the variable, and shows nothing of what was in it."""
    with pytest.raises(ConfigurationError) as refused:
        plan_service({name: value})
    assert name in str(refused.value)
    if len(value) > 4:
        assert value not in str(refused.value)
        assert value not in repr(refused.value)


@pytest.mark.parametrize("variable", variables(Settings, PREFIX), ids=lambda variable: variable.name)
def test_empty_values(variable: Any) -> None:
    """Set but empty is a slip of a template, never a wish."""
    with pytest.raises(ConfigurationError, match=f"{variable.name} is set but empty"):
        plan_service({variable.name: ""})


BOUNDED = [
    (variable, int(bounds[1]), int(bounds[2]))
    for variable in variables(Settings, PREFIX)
    if (bounds := re.search(r"from (\d+) to (\d+)", variable.expects))
    and "characters" not in variable.expects
]


@pytest.mark.parametrize(("variable", "minimum", "maximum"), BOUNDED, ids=[each[0].name for each in BOUNDED])
def test_the_bounds_of_the_message_are_those_that_are_checked(
    variable: Variable, minimum: int, maximum: int
) -> None:
    """Both bounds are accepted, and one less or more is refused with them in the message."""
    for number in (minimum, maximum):
        assert getattr(read(**{variable.name: str(number)}), variable.field) == number
    for number in (minimum - 1, maximum + 1):
        with pytest.raises(ConfigurationError) as refused:
            read(**{variable.name: str(number)})
        assert str(refused.value) == f"{variable.name} must be {variable.expects}"


@pytest.mark.parametrize(
    ("called_for", "name"),
    [
        ("MACP_AUTH_MAX_TTL_SECONDS", "MACP_AUTH_KEY_RETIRE_LAG_SECONDS"),
        ("MACP_AUTH_VERIFIER_CACHE_TTL_SECONDS", "MACP_AUTH_KEY_PUBLISH_LEAD_SECONDS"),
    ],
)
def test_what_the_longest_other_times_call_for_can_be_set(called_for: str, name: str) -> None:
    """The maximum of the lead and the lag is more than a year."""
    assert read(**{called_for: "31536000", name: "94608000"}).rotation.contradictions() == []


def test_default_ttl_follows_a_smaller_maximum() -> None:
    """Lowering only the maximum works; setting a default above it does not."""
    assert read(MACP_AUTH_MAX_TTL_SECONDS="60").ttl.default == 60
    with pytest.raises(ConfigurationError, match="MACP_AUTH_DEFAULT_TTL_SECONDS"):
        _ = read(MACP_AUTH_MAX_TTL_SECONDS="60", MACP_AUTH_DEFAULT_TTL_SECONDS="61").ttl


@pytest.mark.parametrize(
    ("environ", "signer"),
    [
        ({}, "ephemeral"),
        ({"MACP_AUTH_SIGNER": "ephemeral"}, "ephemeral"),
        ({"MACP_AUTH_SIGNER": "ephemeral", "MACP_AUTH_SIGNING_KEY_JSON": "unread"}, "ephemeral"),
    ],
)
def test_signer_selection(environ: dict[str, str], signer: str) -> None:
    assert plan_service(environ).signer == signer


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"MACP_AUTH_SIGNING_KEY_JSON": ""}, "MACP_AUTH_SIGNING_KEY_JSON is set but empty"),
        ({"MACP_AUTH_SIGNER": "env-jwk"}, "MACP_AUTH_SIGNING_KEY_JSON must be set"),
        ({"MACP_AUTH_SIGNER": "env-jwk", "MACP_AUTH_SIGNING_KEY_JSON": ""}, "set but empty"),
    ],
)
def test_env_jwk_needs_its_key(environ: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        plan_service(environ)


def test_plan_reaches_a_worker_whole() -> None:
    """The plan is pickled for a worker, the key and a compiled pattern in it, and is quiet about the key."""
    plan = plan_service({"MACP_AUTH_SIGNING_ALG": "ES256", "MACP_AUTH_SENDER_PATTERN": "a+"})
    handed_over = pickle.loads(pickle.dumps(plan))  # noqa: S301 - our own bytes
    assert handed_over.settings == plan.settings
    assert handed_over.signer_state[0].private_der.reveal() == plan.signer_state[0].private_der.reveal()
    assert "Secret(...)" in repr(handed_over)


def _unread(environ: dict[str, str]) -> dict[str, str]:
    return {unread.name: unread.remedy for unread in plan_service(environ).unread_variables}


SERVICE_LINKS = {  # as kubelet writes them for the chart's Services, macp-auth and macp-auth-jwks
    "MACP_AUTH_SERVICE_HOST": "10.0.0.1",
    "MACP_AUTH_SERVICE_PORT": "3200",
    "MACP_AUTH_SERVICE_PORT_HTTP": "3200",
    "MACP_AUTH_PORT": "tcp://10.0.0.1:3200",
    "MACP_AUTH_PORT_3200_TCP": "tcp://10.0.0.1:3200",
    "MACP_AUTH_PORT_3200_TCP_PROTO": "tcp",
    "MACP_AUTH_PORT_3200_TCP_PORT": "3200",
    "MACP_AUTH_PORT_3200_TCP_ADDR": "10.0.0.1",
    "MACP_AUTH_JWKS_PORT": "tcp://10.0.0.2:3200",
    "MACP_AUTH_JWKS_PORT_3200_TCP": "tcp://10.0.0.2:3200",
    "MACP_AUTH_JWKS_SERVICE_HOST": "10.0.0.2",
}


def test_misspelt_variables_are_noticed() -> None:
    """Names of our prefix that nothing reads, less those that Kubernetes makes for a Service."""
    environ = {"MACP_AUTH_ISUER": "x", "MACP_AUTH_ISSUER": "x", "PATH": "/bin", **SERVICE_LINKS}
    assert list(_unread(environ)) == ["MACP_AUTH_ISUER"]
    of_another_signer = {"MACP_AUTH_SIGNER": "ephemeral", "MACP_AUTH_SIGNING_KEY_JSON": "x"}
    assert list(_unread(of_another_signer)) == ["MACP_AUTH_SIGNING_KEY_JSON"]
    assert unread_variables(environ, ["MACP_AUTH_ISSUER", "MACP_AUTH_ISUER"]) == []


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("MACP_AUTH_PORT", "the variable is PORT"),
        ("MACP_AUTH_METRIC_PORT", "did you mean MACP_AUTH_METRICS_PORT?"),
        ("MACP_AUTH_SERVICE_PORT", "unset MACP_AUTH_SERVICE_PORT"),
        ("MACP_AUTH_SERVICE_HOST", "unset MACP_AUTH_SERVICE_HOST"),
    ],
)
def test_a_name_as_of_a_service_link_with_another_value(name: str, remedy: str) -> None:
    """Only a ``tcp://`` value makes it one: what looks like a port setting was meant to be one."""
    assert remedy in _unread({name: "8080"})[name]


def test_variables_of_other_macp_software_are_known() -> None:
    """One environment file may serve the runtime, its minters and this service."""
    plan = plan_service(dict.fromkeys(ECOSYSTEM - {"MACP_AUTH_ISSUER", "MACP_AUTH_AUDIENCE"}, "x"))
    assert plan.unread_variables == []


@pytest.mark.parametrize("variable", [each for each in variables(Settings, PREFIX) if "port" in each.field])
def test_a_service_link_in_a_port_of_ours(variable: Variable) -> None:
    """Kubernetes sets it for a Service whose name makes our variable's: nobody asked for that port."""
    link = {variable.name: "tcp://10.0.0.1:9090"}
    if variable.name == "PORT":  # no Service has this name
        with pytest.raises(ConfigurationError, match="^PORT must be a port"):
            read(**link)
    else:
        assert read(**link) == read()


@pytest.mark.parametrize(
    ("name", "value", "needed"),
    [
        ("MACP_AUTH_JWKS_HOST", "127.0.0.1", "MACP_AUTH_JWKS_PORT"),
        ("MACP_AUTH_JWKS_TLS", "off", "MACP_AUTH_JWKS_PORT"),
        ("MACP_AUTH_METRICS_HOST", "127.0.0.1", "MACP_AUTH_METRICS_PORT"),
    ],
)
def test_a_setting_of_a_listener_that_is_off(name: str, value: str, needed: str) -> None:
    """It is named with the one that turns the listener on; a service link does not."""
    for environ in ({}, {needed: "tcp://10.0.0.1:9090"}):
        assert _unread({name: value, **environ}) == {name: f"set {needed}, or unset {name}"}
    assert _unread({name: value, needed: "3201"}) == {}


_SIGNERS = [load_signer_plugin(name) for name in BUILT_IN]
_SETTINGS_TYPES: list[tuple[type[Struct], str]] = [
    (Settings, PREFIX),
    *((signer.settings, signer.settings_prefix) for signer in _SIGNERS),
]
TEXT_VARIABLES = [
    (variable.name, prefix, struct)
    for struct, prefix in _SETTINGS_TYPES
    for variable in variables(struct, prefix)
    if not variable.multiline
]


@pytest.mark.parametrize(("name", "prefix", "struct"), TEXT_VARIABLES)
def test_stray_characters_are_refused_and_named(name: str, prefix: str, struct: type[Struct]) -> None:
    """In every variable, ours and the signers': what a Secret, an env file or a copied page leaves."""
    for value, text in [
        ("a\n", "ends with U+000A (a line feed)"),
        ("a\r", "ends with U+000D (a carriage return)"),
        (" a", "begins with U+0020 (a space)"),
        ("a\u00a0", "ends with U+00A0 (no-break space)"),
        ("\ufeffa", "begins with U+FEFF (zero width no-break space)"),
        ('"a"', 'is in quotes (")'),
        ("'a'", "is in quotes (')"),
        ("a\nb", "contains U+000A (a line feed)"),
        ("a\x1bb", "contains U+001B (a control character)"),
        ("a\u200bb", "contains U+200B (zero width space)"),
    ]:
        others = {"MACP_AUTH_VAULT_ADDR": "https://vault.example", "MACP_AUTH_VAULT_KEY": "k", KEY_JSON: "{}"}
        with pytest.raises(ConfigurationError) as refused:
            read_settings(struct, prefix, {**others, name: value})
        assert str(refused.value).startswith(f"{name} {text}"), value


def test_white_space_around_json_means_nothing() -> None:
    """A Secret made from a file ends with a line feed, and JSON allows it."""
    plan = plan_service({"MACP_AUTH_SIGNING_KEY_JSON": f"\n {json.dumps(jwks.ec())}\n"})
    assert plan.signer == "env-jwk"
