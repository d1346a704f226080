"""The callers file: what it may say, and what is said of each mistake in it."""

from __future__ import annotations

import hashlib
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from macp_auth.adapters.callers.file import Callers, parse_callers, read_callers
from macp_auth.domain.callers import Caller, Method
from macp_auth.domain.errors import ConfigurationError, NoGrant
from macp_auth.domain.grants import Ceiling, Grant
from macp_auth.domain.keys import Algorithm
from macp_auth.domain.scopes import KNOWN_SCOPES

DIGEST = hashlib.sha256(b"s3cr3t").hexdigest()
EXAMPLE = f"""
[[issuer]]
name = "cluster"
issuer = "https://kubernetes.default.svc.cluster.local"
audience = "macp-auth"
jwks_url = "https://kubernetes.default.svc/openid/v1/jwks"
ca_file = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"
bearer_token_file = "/var/run/secrets/kubernetes.io/serviceaccount/token"

[[issuer]]
name = "ci"
issuer = "https://ci.example.org"
audience = "macp-auth"
jwks_file = "/etc/macp-auth/ci.json"
algorithms = ["RS256"]

[proxy]
client_certificate_header = "x-forwarded-client-cert"

[[caller]]
name = "playground"
spiffe_id = "spiffe://example.org/ns/macp/sa/playground"

  [[caller.grant]]
  senders = ["risk-agent", "fraud-*"]
  audiences = ["macp-runtime", "other-runtime"]
  max_ttl_seconds = 900
  per_minute = 600
  scopes = {{ allowed_modes = ["macp.mode.decision.v1", ""], can_start_sessions = true, max_open_sessions = 4,
             is_observer = false, can_manage_mode_registry = false }}

  [[caller.grant]]
  name = "rest"
  senders = ["*"]
  scopes.allowed_modes = ["*"]

[[caller]]
name = "web"
dns_name = "playground.macp.svc"

[[caller]]
name = "control-plane"
jwt = {{ issuer = "cluster", subject = "system:serviceaccount:macp:control-plane" }}

  [[caller.grant]]
  senders = ["macp-control-plane"]

[[caller]]
name = "cron"
secret_sha256 = "{DIGEST}"
""".replace("\n             is_observer", " is_observer")  # an inline table has one line
SECRET = f'secret_sha256 = "{DIGEST}"'
CALLER = f'[[caller]]\nname = "cron"\n{SECRET}\n'
GRANT = f'{CALLER}[[caller.grant]]\nsenders = ["a"]\n'
ISSUER = '[[issuer]]\nname = "i"\nissuer = "https://i"\naudience = "a"\n'
FROM_FILE = f'{ISSUER}jwks_file = "/keys.json"\n'
A_JWT = f'{FROM_FILE}[[caller]]\nname = "a"\n'
A = 'senders = ["a"]\n'


def parse(text: str) -> Callers:
    return parse_callers(text.encode(), "F", audience="macp-runtime", max_ttl_seconds=3600)


def error_of(text: str) -> str:
    """The message; empty if there is none. Any other error fails the test."""
    try:
        parse(text)
    except ConfigurationError as error:
        return str(error)
    return ""


def grant_of(callers: Callers, name: str, sender: str) -> Grant:
    return callers.grants.decide(Caller(name, Method.JWT, "x"), sender)


def test_an_example_of_everything() -> None:
    """Each identity leads to its caller; what a grant leaves out is the service's, or nothing."""
    callers = parse(EXAMPLE)
    cluster, ci = callers.issuers
    assert (cluster.name, cluster.audience, cluster.algorithms) == ("cluster", "macp-auth", tuple(Algorithm))
    assert (ci.jwks_file, ci.algorithms) == ("/etc/macp-auth/ci.json", (Algorithm.RS256,))
    assert callers.client_certificate_header == "x-forwarded-client-cert"
    assert callers.spiffe_ids == {"spiffe://example.org/ns/macp/sa/playground": "playground"}
    assert callers.dns_names == {"playground.macp.svc": "web"}
    subject = "system:serviceaccount:macp:control-plane"
    assert callers.jwt_subjects == {("cluster", subject): "control-plane"}
    assert callers.secrets == {hashlib.sha256(b"s3cr3t").digest(): "cron"}
    assert grant_of(callers, "playground", "fraud-1") == Grant(
        name="playground/1",
        senders=("risk-agent", "fraud-*"),
        audiences=("macp-runtime", "other-runtime"),
        max_ttl_seconds=900,
        scopes=Ceiling(
            can_start_sessions=True, allowed_modes=("macp.mode.decision.v1", ""), max_open_sessions=4
        ),
        per_minute=600,
    )
    assert grant_of(callers, "playground", "x") == Grant(
        name="playground/rest",
        senders=("*",),
        audiences=("macp-runtime",),
        max_ttl_seconds=3600,
        scopes=Ceiling(allowed_modes=("*",)),
    )
    assert grant_of(callers, "control-plane", "macp-control-plane").scopes == Ceiling()
    with pytest.raises(NoGrant):
        grant_of(callers, "web", "risk-agent")


def test_it_reaches_a_worker_and_shows_no_digest() -> None:
    """It can be pickled."""
    callers = pickle.loads(pickle.dumps(parse(EXAMPLE)))  # noqa: S301
    assert callers.secrets
    assert grant_of(callers, "playground", "x").name == "playground/rest"
    assert repr(callers) == "Callers(...)"


SPIFFE = (
    "caller[0].spiffe_id (caller a): not the SPIFFE ID of a workload; write spiffe://TRUST-DOMAIN/PATH, with "
    "a trust domain in lower case, and without port, query, percent-encoding, empty segments, . and .."
)
DNS = (
    "caller[0].dns_name (caller a): not a DNS name in lower case without wildcard; "
    "write it like a.example.org"
)
URL = (
    "issuer[0].jwks_url: not an https URL, or an http URL of a loopback address, without user, password and "
    "fragment; over plain http, anyone on the way could replace the keys"
)
NAME = "not a name of 1 to 64 letters, digits, dots, hyphens and underscores, a letter first; choose another"
TEXT = "not 1 to 1024 visible characters without white space at the ends; correct it"
IDENTITIES = "needs exactly one identity; write one of spiffe_id, dns_name, jwt and secret_sha256"
HEADER = 'not a header name in lower case; Envoy\'s is "x-forwarded-client-cert"'
SOURCES = "needs exactly one source of keys; write jwks_url or jwks_file"
ABSOLUTE = "not an absolute path; write one that begins with /"
UNUSED = "has no use without jwks_url; remove it"
ALGORITHM = "not an algorithm; write one of RS256, ES256"
NO_ISSUER = "no [[issuer]] has this name; add one, or write the name of one"
DIGITS = "not 64 hexadecimal digits in lower case; write the digest"
STAR = '* is not allowed in the name of a mode; write the modes, or ["*"] for all'
ISSUER_KEYS = (
    "the keys are name, issuer, audience, jwks_url, jwks_file, ca_file, bearer_token_file, algorithms"
)
CALLER_KEYS = "the keys are name, spiffe_id, dns_name, jwt, secret_sha256, grant"
GRANT_KEYS = "the keys are name, senders, audiences, max_ttl_seconds, scopes, per_minute"
SCOPE_KEYS = (
    "the keys are can_start_sessions, can_manage_mode_registry, is_observer, allowed_modes, max_open_sessions"
)
NESTED = "arrays nested hundreds deep, or an integer of thousands of digits; remove it"
FILE_MISTAKES = [
    ("", "caller: no caller, so no token could be minted; add a [[caller]]"),
    ("\ud800", "not UTF-8; save it as UTF-8 text"),
    ("a = ", "not valid TOML: Invalid value (at end of document); correct the syntax there"),
    (
        "[a]\n[a]",
        "not valid TOML: Cannot declare ('a',) twice (at line 2, column 3); correct the syntax there",
    ),
    ("a = " + "[" * 5000, NESTED),
    ("a = " + "1" * 5000, NESTED),
    ("issuers = []", "the file: unknown key issuers; the keys are issuer, proxy, caller"),
    ("[caller]", "caller: expected an array, found a table; write [[caller]]"),
    ("[issuer]", "issuer: expected an array, found a table; write [[issuer]]"),
    ("[[proxy]]", "proxy: expected a table, found an array; correct it"),
    ("[proxy]", "proxy: the key client_certificate_header is missing; add it"),
    (
        '[proxy]\nclient_certificate_header = "x"\ntrusted = true',
        "proxy: unknown key trusted; the keys are client_certificate_header",
    ),
    *(
        (f'[proxy]\nclient_certificate_header = "{header}"', f"proxy.client_certificate_header: {HEADER}")
        for header in ("", "X-Forwarded-Client-Cert", "x_f", "x:", "x\\r\\ny", "-x", "x" * 65)
    ),
]
ISSUER_MISTAKES = [
    (f'{FROM_FILE}jwks = "x"', f"issuer[0]: unknown key jwks; {ISSUER_KEYS}"),
    (FROM_FILE.replace('"i"', '"a b"'), f"issuer[0].name: {NAME}"),
    (FROM_FILE.replace("https://i", ""), f"issuer[0].issuer: {TEXT}"),
    (FROM_FILE.replace("https://i", "https://i "), f"issuer[0].issuer: {TEXT}"),
    (FROM_FILE.replace("https://i", "i" * 1025), f"issuer[0].issuer: {TEXT}"),
    (FROM_FILE.replace('"a"', '"a\\u200b"'), f"issuer[0].audience: {TEXT}"),
    (FROM_FILE * 2, "issuer[1].name: an earlier issuer has the same name; remove one of the two"),
    (
        FROM_FILE + FROM_FILE.replace('"i"', '"j"'),
        "issuer[1].issuer: an earlier issuer has the same issuer; remove one of the two",
    ),
    (
        f"{FROM_FILE}algorithms = []",
        'issuer[0].algorithms: empty; write "RS256", "ES256" or both, or leave the key out',
    ),
    (f'{FROM_FILE}algorithms = ["ES256", "none"]', f"issuer[0].algorithms[1]: {ALGORITHM}"),
    (f'{FROM_FILE}algorithms = ["HS256"]', f"issuer[0].algorithms[0]: {ALGORITHM}"),
    (ISSUER, f"issuer[0]: {SOURCES}"),
    (f'{FROM_FILE}jwks_url = "https://i"', f"issuer[0]: {SOURCES}"),
    (f'{FROM_FILE}ca_file = "/a"', f"issuer[0].ca_file: {UNUSED}"),
    (f'{FROM_FILE}bearer_token_file = "/a"', f"issuer[0].bearer_token_file: {UNUSED}"),
    *(
        (f'{ISSUER}jwks_file = "{path}"', f"issuer[0].jwks_file: {ABSOLUTE}")
        for path in ("keys.json", "", "/a\\u0000")
    ),
    *(
        (f'{ISSUER}jwks_url = "https://i"\n{key} = "a"', f"issuer[0].{key}: {ABSOLUTE}")
        for key in ("ca_file", "bearer_token_file")
    ),
]
CALLER_MISTAKES = [
    ("[[caller]]", "caller[0]: the key name is missing; add it"),
    ("[[caller]]\nname = 1", "caller[0].name: expected a string, found an integer; correct it"),
    ("[[caller]]\nname = 2026-01-01", "caller[0].name: expected a string, found a date or time; correct it"),
    *(
        (f'[[caller]]\nname = "{name}"\n{SECRET}', f"caller[0].name: {NAME}")
        for name in ("", "a b", "a/1", "é", "-a", "1a", "a" * 65, "a\\n")
    ),
    (CALLER * 2, "caller[1].name (caller cron): an earlier caller has the same name; choose another"),
    (
        f'[[caller]]\nname = "cron"\nsecret_sha265 = "{DIGEST}"',
        f"caller[0] (caller cron): unknown key secret_sha265; {CALLER_KEYS}",
    ),
    ('[[caller]]\nname = "a"', f"caller[0] (caller a): {IDENTITIES}"),
    (f'{CALLER}dns_name = "a"', f"caller[0] (caller cron): {IDENTITIES}"),
    (f'{CALLER}spiffe_id = "spiffe://a/b"', f"caller[0] (caller cron): {IDENTITIES}"),
    (f'{CALLER}jwt = {{ issuer = "i", subject = "a" }}', f"caller[0] (caller cron): {IDENTITIES}"),
    *(
        (
            f'{FROM_FILE}[[caller]]\nname = "a"\n{key} = {value}\n[[caller]]\nname = "b"\n{key} = {value}',
            f"caller[1].{key} (caller b): caller a has the same identity; remove one of the two",
        )
        for key, value in (
            ("spiffe_id", '"spiffe://a/b"'),
            ("dns_name", '"a"'),
            ("jwt", '{ issuer = "i", subject = "s" }'),
            ("secret_sha256", f'"{DIGEST}"'),
        )
    ),
    (f'{CALLER}jwt = "x"', "caller[0].jwt (caller cron): expected a table, found a string; correct it"),
    (
        f'{A_JWT}jwt = {{ issuer = "i", sub = "x" }}',
        "caller[0].jwt (caller a): unknown key sub; the keys are issuer, subject",
    ),
    (
        f'{A_JWT}jwt = {{ issuer = "https://i", subject = "s" }}',
        f"caller[0].jwt.issuer (caller a): {NO_ISSUER}",
    ),
    (f'{A_JWT}jwt = {{ issuer = "i", subject = "" }}', f"caller[0].jwt.subject (caller a): {TEXT}"),
    *(
        (
            f'[[caller]]\nname = "a"\nsecret_sha256 = "{digest}"',
            f"caller[0].secret_sha256 (caller a): {DIGITS}",
        )
        for digest in ("", "s3cr3t", DIGEST.upper(), DIGEST[:-1], DIGEST + "0", f"{DIGEST}\\n")
    ),
    (
        f"{CALLER}[caller.grant]",
        "caller[0].grant (caller cron): expected an array, found a table; write [[caller.grant]]",
    ),
]
GRANT_MISTAKES = [
    ("name = 1", ".name", "expected a string, found an integer; correct it"),
    ("", "", "the key senders is missing; add it"),
    ('senders = "a"', ".senders", "expected an array, found a string; correct it"),
    ('senders = ["a", 1]', ".senders[1]", "expected a string, found an integer; correct it"),
    ("senders = []", ".senders", 'empty; write the senders, or "*" for all'),
    ('senders = ["a", ""]', ".senders[1]", "matches no sender: sender is required; correct it"),
    (
        'senders = [" a"]',
        ".senders[0]",
        "matches no sender: sender must not begin or end with white space; correct it",
    ),
    (
        'senders = ["*", "a\\u200b*"]',
        ".senders[1]",
        (
            "matches no sender: sender must not contain control, formatting or other invisible characters; "
            "correct it"
        ),
    ),
    (f"{A}ttl = 1", "", f"unknown key ttl; {GRANT_KEYS}"),
    (f'{A}name = "1"', ".name", NAME),
    (
        f"{A}audiences = []",
        ".audiences",
        "empty; write the audiences, or leave the key out for the service's own",
    ),
    (f'{A}audiences = ["a", ""]', ".audiences[1]", TEXT),
    *(
        (f"{A}{key} = {value}", f".{key}", f"the integer must be {limit}; correct it")
        for key, value, limit in (
            ("max_ttl_seconds", 0, ">= 1"),
            ("max_ttl_seconds", -5, ">= 1"),
            ("max_ttl_seconds", 10**9, "<= 31536000"),
            ("per_minute", 0, ">= 1"),
            ("per_minute", 10**30, "<= 1000000"),
            ("scopes.max_open_sessions", -1, ">= 0"),
            ("scopes.max_open_sessions", 2**63, f"<= {2**63 - 1}"),
        )
    ),
    *(
        (f"{A}{key} = {value}", f".{key}", f"expected an integer, found {found}; correct it")
        for key in ("max_ttl_seconds", "per_minute", "scopes.max_open_sessions")
        for value, found in (
            ("900.0", "a float"),
            ("inf", "a float"),
            ("true", "a boolean"),
            ('"9"', "a string"),
        )
    ),
    (f"{A}scopes.can_start_session = true", ".scopes", f"unknown key can_start_session; {SCOPE_KEYS}"),
    *(
        (f"{A}scopes.{name} = 1", f".scopes.{name}", "expected a boolean, found an integer; correct it")
        for name in ("can_start_sessions", "can_manage_mode_registry", "is_observer")
    ),
    (
        f'{A}scopes.allowed_modes = "*"',
        ".scopes.allowed_modes",
        "expected an array, found a string; correct it",
    ),
    (
        f"{A}scopes.allowed_modes = [1]",
        ".scopes.allowed_modes[0]",
        "expected a string, found an integer; correct it",
    ),
    *(
        (f"{A}scopes.allowed_modes = {modes}", f".scopes.allowed_modes[{index}]", STAR)
        for modes, index in (('["a", "*"]', 1), ('["macp.mode.*"]', 0), ('["*", "*"]', 0))
    ),
]
MISTAKES = [
    *FILE_MISTAKES,
    *ISSUER_MISTAKES,
    *CALLER_MISTAKES,
    *(
        (f"{CALLER}[[caller.grant]]\n{text}", f"caller[0].grant[0]{path} (caller cron): {message}")
        for text, path, message in GRANT_MISTAKES
    ),
    (
        f'{GRANT}name = "a"\n[[caller.grant]]\n{A}name = "a"',
        (
            "caller[0].grant[1].name (caller cron): an earlier grant of the caller has the same name; "
            "choose another"
        ),
    ),
]


@pytest.mark.parametrize(("text", "message"), MISTAKES, ids=range(len(MISTAKES)))
def test_mistakes(text: str, message: str) -> None:
    """Each is named by its place, with the cause and the remedy, and without what may be a secret."""
    with pytest.raises(ConfigurationError) as raised:
        parse_callers(text.encode(errors="surrogatepass"), "F", audience="a", max_ttl_seconds=1)
    assert str(raised.value) == f"F: {message}"


def test_a_digest_without_quotes_is_not_shown() -> None:
    """The parser of TOML says where it failed, not what is there."""
    assert DIGEST[:8] not in error_of(f'[[caller]]\nname = "a"\nsecret_sha256 = {DIGEST}')


@pytest.mark.parametrize(
    "value",
    [
        "",
        "spiffe:",
        "spiffe://",
        "spiffe:///a",
        "spiffe://example.org",
        "spiffe://example.org/",
        "spiffe://example.org/a/",
        "spiffe://example.org//a",
        "spiffe://example.org/a//b",
        "spiffe://example.org/.",
        "spiffe://example.org/..",
        "spiffe://example.org/a/../b",
        "spiffe://example.org/./a",
        "spiffe://example.org/a/..",
        "spiffe://Example.org/a",
        "SPIFFE://example.org/a",
        "https://example.org/a",
        "spiffe://example.org:443/a",
        "spiffe://user@example.org/a",
        "spiffe://example.org/a%2fb",
        "spiffe://ex%61mple.org/a",
        "spiffe://example.org/a?b",
        "spiffe://example.org/a#b",
        "spiffe://example.org/é",
        "spiffe://example.org/a b",
        "spiffe://example.org/*",
        " spiffe://example.org/a",
        "spiffe://example.org/a\\n",
        "spiffe://example.org/a\\u0000",
        f"spiffe://{'a' * 256}/b",
        f"spiffe://a/{'b' * 2038}",
    ],
)
def test_what_is_no_spiffe_id(value: str) -> None:
    """No certificate may have such an ID."""
    assert error_of(f'[[caller]]\nname = "a"\nspiffe_id = "{value}"') == f"F: {SPIFFE}"


@pytest.mark.parametrize(
    "value",
    [
        "spiffe://example.org/a",
        "spiffe://a/b",
        "spiffe://a_b-c.1/A_b-c.1/d",
        "spiffe://a/...",
        "spiffe://a/.b/..c/d.",
        f"spiffe://{'a' * 255}/b",
        f"spiffe://a/{'b' * 2037}",
    ],
)
def test_spiffe_ids(value: str) -> None:
    """Up to the limits of the standard."""
    assert parse(f'[[caller]]\nname = "a"\nspiffe_id = "{value}"').spiffe_ids == {value: "a"}


@pytest.mark.parametrize(
    "value",
    [
        "",
        "*.example.org",
        "*",
        "A.example.org",
        "a.example.org.",
        ".a",
        "a..b",
        "-a",
        "a-",
        "a_b",
        "é",
        "a b",
        "a\\n",
        "a" * 64,
        ".".join(["a" * 63] * 4),
    ],
)
def test_what_is_no_dns_name(value: str) -> None:
    """With a wildcard, the certificate for one name would be valid for another."""
    assert error_of(f'[[caller]]\nname = "a"\ndns_name = "{value}"') == f"F: {DNS}"


@pytest.mark.parametrize("value", ["a", "playground.macp.svc", "1-a.b2", "a" * 63, "xn--e1afmkfd.example"])
def test_dns_names(value: str) -> None:
    """An internationalised name is written as the certificate has it."""
    assert parse(f'[[caller]]\nname = "a"\ndns_name = "{value}"').dns_names == {value: "a"}


@pytest.mark.parametrize(
    "url",
    [
        "",
        "i",
        "/keys",
        "http://i/keys",
        "http://kubernetes.default.svc/openid/v1/jwks",
        "http://127.0.0.1.example.org",
        "http://localhost.example.org",
        "http://10.0.0.1",
        "ftp://i",
        "file:///keys",
        "https://",
        "https:///keys",
        "https://s3cr3t@i/",
        "https://user:s3cr3t@i/",
        "https://i/#a",
        "https://i:x/",
        "https://i:99999/",
        "https://[::1",
        "https://i/a b",
        "https://i/\\t",
        " https://i",
        "https://i\\n",
        "https://é",
        "https://i/" + "a" * 1024,
    ],
)
def test_urls_that_are_not_safe(url: str) -> None:
    """Who can answer for the issuer can be any of its callers. The URL may contain a password."""
    assert error_of(f'{ISSUER}jwks_url = "{url}"\n{CALLER}') == f"F: {URL}"


@pytest.mark.parametrize(
    "url",
    [
        "https://i",
        "https://kubernetes.default.svc/openid/v1/jwks",
        "https://i:8443/a?b=c",
        "HTTPS://I/",
        "https://[2001:db8::1]/",
        "http://localhost:8080/keys",
        "http://127.0.0.1/keys",
        "http://127.1.2.3/",
        "http://[::1]:80/keys",
    ],
)
def test_urls(url: str) -> None:
    """Plain http stays on this host."""
    assert parse(f'{ISSUER}jwks_url = "{url}"\n{CALLER}').issuers[0].jwks_url == url


@pytest.mark.parametrize(
    "key", ["x` - at `$.foo", "x` - at `$.caller[9]", "x - at `$.caller[9]", "a\\u001b[2J\\n"]
)
def test_strange_keys(key: str) -> None:
    """They look like a part of msgspec's report, or of the terminal."""
    for text in (f'"{key}" = 1', f'"{key}" = 1\n{CALLER}', f'{CALLER}"{key}" = 1'):
        assert "unknown key" in error_of(text)
        assert error_of(text).isprintable()


VALUES: st.SearchStrategy[Any] = st.sampled_from(
    ["1", "-1", "1.5", "true", '""', '"a"', '"*"', "[]", '["a"]', "{}", "2026-01-01", "[[]]", f'"{DIGEST}"']
)
LINES = st.one_of(
    st.sampled_from(
        [
            "[[caller]]",
            "[caller]",
            "[[caller.grant]]",
            "[[issuer]]",
            "[proxy]",
            'name = "a"',
            SECRET,
            "[[caller.jwt]]",
        ]
    ),
    st.builds(
        "{} = {}".format,
        st.sampled_from(
            [
                "name",
                "senders",
                "scopes",
                "jwt",
                "jwt.issuer",
                "scopes.allowed_modes",
                "algorithms",
                "grant",
                "x",
            ]
        ),
        VALUES,
    ),
)


@given(st.lists(LINES, max_size=10).map("\n".join))
def test_any_mistake_is_a_configuration_error(text: str) -> None:
    """Nothing else leaves, and nothing secret is shown."""
    message = error_of(text)
    assert message == "" or message.startswith("F: ")
    assert DIGEST not in message


def test_the_scopes_of_the_file_are_those_of_the_runtime() -> None:
    """All of them can be granted."""
    granted = {"allowed_modes": '["a"]', "max_open_sessions": "7"}
    lines = "".join(f"scopes.{name} = {granted.get(name, 'true')}\n" for name in KNOWN_SCOPES)
    ceiling = grant_of(parse(GRANT + lines), "cron", "a").scopes
    assert ceiling == Ceiling(
        can_start_sessions=True,
        can_manage_mode_registry=True,
        is_observer=True,
        allowed_modes=("a",),
        max_open_sessions=7,
    )


def read(path: Path) -> Callers:
    return read_callers(path, "F", audience="macp-runtime", max_ttl_seconds=3600)


def write(path: Path, text: str, mode: int) -> Path:
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


PUBLIC = '[[caller]]\nname = "a"\ndns_name = "a"\n'


@pytest.mark.parametrize(
    ("text", "mode"), [(PUBLIC, 0o644), (PUBLIC, 0o444), (CALLER, 0o640), (CALLER, 0o600)]
)
def test_a_file_with_a_good_mode(tmp_path: Path, text: str, mode: int) -> None:
    """Only digests of secrets are to be kept from others."""
    assert isinstance(read(write(tmp_path / "callers.toml", text, mode)), Callers)


@pytest.mark.parametrize(
    ("text", "mode", "message"),
    [
        (CALLER, 0o644, "F holds digests of secrets, and it is accessible to group or others (mode 0644); "),
        (CALLER, 0o604, "F holds digests of secrets, and it is accessible to group or others (mode 0604); "),
        (CALLER, 0o660, "F holds grants, and it is writable by group or others (mode 0660); "),
        (PUBLIC, 0o664, "F holds grants, and it is writable by group or others (mode 0664); "),
        (PUBLIC, 0o646, "F holds grants, and it is writable by group or others (mode 0646); "),
    ],
)
def test_a_file_that_others_can_access(tmp_path: Path, text: str, mode: int, message: str) -> None:
    """Who can write it can mint any token."""
    with pytest.raises(ConfigurationError) as raised:
        read(write(tmp_path / "callers.toml", text, mode))
    assert str(raised.value) == f"{message}chmod 600 it (in a Kubernetes volume: defaultMode: 0440)"


def test_a_file_with_secrets_in_a_folder_of_others(tmp_path: Path) -> None:
    """They could replace it. A ConfigMap's folder is like that, so without secrets it is no error."""
    folder = tmp_path / "folder"
    folder.mkdir()
    folder.chmod(0o777)  # not the umask's
    assert read(write(folder / "callers.toml", PUBLIC, 0o644)).dns_names == {"a": "a"}
    with pytest.raises(ConfigurationError, match=r"^F holds digests of secrets, and others can replace it"):
        read(write(folder / "callers.toml", CALLER, 0o600))


def test_a_file_that_can_t_be_read(tmp_path: Path) -> None:
    """The message does not show the path: the variable may hold something else by mistake."""
    with pytest.raises(ConfigurationError, match=r"^F can't be read: No such file or directory$"):
        read(tmp_path / "missing")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(
        ConfigurationError, match=r"^F can't be read: it is not a regular file but a named pipe$"
    ):
        read(tmp_path / "pipe")


@pytest.mark.process
def test_parsing_loads_no_cryptography() -> None:
    """A method that no caller uses is not imported."""
    code = "import macp_auth.adapters.callers.file, sys; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"cryptography", "hvac", "litestar"} & set(run.stdout.split())
