"""Programs in MACP_AUTH_SIGNER_COMMAND that can't be used: each is one clear error."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from macp_auth.domain.errors import ConfigurationError, SignerError
from macp_auth.entrypoints.environment import PREFIX, read_settings
from macp_auth.entrypoints.plan import plan_service
from macp_auth.entrypoints.settings import Settings
from macp_auth.entrypoints.signers.hosted import hosted_signer
from tests.support.programs import tiny

pytestmark = pytest.mark.process


def refusal(environ: dict[str, str]) -> str:
    """What the start says of this environment."""
    settings = read_settings(Settings, PREFIX, environ)
    with pytest.raises((SignerError, ConfigurationError)) as refused:
        hosted_signer("tiny", settings, environ)
    return str(refused.value)


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ("exits", "the process of the signer 'tiny' can't answer: it ended (exit status 3)"),
        ("prints-no-frames", "it broke the protocol: a frame of 1213486160 bytes; at most 8388608 are read"),
        ("no-json", "it broke the protocol: JSON is malformed"),
        ("frame-too-long", "it broke the protocol: a frame of 9437184 bytes; at most 8388608 are read"),
        (
            "no-description",
            "answers hello with an invalid result: Object missing required field",
        ),
        ("protocol", "speaks version 2 of the signer protocol, and this macp-auth speaks version 1"),
        ("name", "has another signer, 'other'; set MACP_AUTH_SIGNER to its name"),
        (
            "prefix",
            "its prefix is 'MACP_AUTH_': it must be MACP_AUTH_, the signer's name",
        ),
        ("prefix-of-the-service", "MACP_AUTH_VAULT_TOKEN is a variable of the service"),
        ("variable-of-the-service", "its variables include MACP_AUTH_VAULT_TOKEN, a variable of the service"),
        ("all-variables", "its variables include '*', which is not the name of one variable"),
        ("environment", "its environment includes MACP_AUTH_HOST, a variable of the service"),
        ("concurrent-signs", "its concurrent_signs must be from 1 to 128"),
        ("sign-seconds", "its sign_seconds must be more than 0, and at most 5"),
    ],
)
def test_a_program_that_answers_badly_is_refused(fault: str, text: str) -> None:
    """The start fails at once, and says what the program did."""
    said = refusal(tiny(fault))
    assert text in said
    assert "(exit status -9)" not in said


def test_a_program_that_can_not_be_started_is_named(tmp_path: Path) -> None:
    """With the reason of the operating system."""
    for path, mode, text in (
        ("missing", None, "No such file or directory"),
        ("no-program", 0o600, "Permission denied"),
        ("text", 0o700, "Exec format error"),
        (".", None, "Permission denied"),
    ):
        program = tmp_path / path
        if mode is not None:
            program.write_text("text\n")
            program.chmod(mode)
        said = refusal({**tiny("none"), "MACP_AUTH_SIGNER_COMMAND": shlex.quote(str(program))})
        assert said == f"cannot start {program}, the program of the signer 'tiny': {text}"


def test_a_command_with_an_open_quotation_is_refused() -> None:
    """The message names the variable."""
    said = refusal({**tiny("none"), "MACP_AUTH_SIGNER_COMMAND": "'/opt/tiny"})
    assert said == "MACP_AUTH_SIGNER_COMMAND has no closing quotation"


@pytest.mark.parametrize("name", ["example", "ephemeral"])
def test_a_program_can_not_have_the_name_of_another_signer(name: str) -> None:
    """Otherwise it would be unclear which of them signs."""
    with pytest.raises(ConfigurationError, match=f"'{name}' is another signer; unset one of the two"):
        plan_service({**tiny("none"), "MACP_AUTH_SIGNER": name})


def test_a_program_without_a_name_is_refused() -> None:
    """The default signer would sign in its place, with a key of its own."""
    environ = {name: value for name, value in tiny("none").items() if name != "MACP_AUTH_SIGNER"}
    with pytest.raises(ConfigurationError, match="must be the name of the program in .*, but it is not set"):
        plan_service(environ)


def test_a_variable_that_is_not_utf8_is_named() -> None:
    """JSON can't have it."""
    said = refusal({**tiny("none"), "MACP_AUTH_TINY_ZONE": "\udcff"})  # as Python decodes the byte FF
    assert said == "MACP_AUTH_TINY_ZONE is not UTF-8, so no signer can get it; correct or unset it"


def test_a_secret_is_only_for_prepare() -> None:
    """The service removes it from its environment; the kit and the doctor show a signer that forgot that."""
    environ = {**tiny("none"), "MACP_AUTH_TINY_ZONE": "a"}
    prepared = plan_service(environ).hosted
    assert prepared is not None
    assert prepared.opening(environ).environment == {"MACP_AUTH_TINY_ZONE": "a"}
