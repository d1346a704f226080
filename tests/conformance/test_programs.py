"""The kit on signers that are programs: it passes good ones, and names a fault as it does for plugins."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from macp_auth.testing import CHECKS, Outcome, ProgramSubject, run_check
from macp_auth.testing.program import NOT_OF_PROGRAMS
from macp_auth.testing.suite import SignerConformance
from tests.support import go_signer
from tests.support.programs import tiny


class GoExample(ProgramSubject):
    """The example in Go, with a new key."""

    def __init__(self, program: Path, key: Path) -> None:
        private = ec.generate_private_key(ec.SECP256R1())
        self._pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        self._number = private.private_numbers().private_value.to_bytes(32)
        key.touch(0o600)
        key.write_bytes(self._pem)
        super().__init__(
            {
                "MACP_AUTH_SIGNER": "go-example",
                "MACP_AUTH_SIGNER_COMMAND": str(program),
                "MACP_AUTH_GO_EXAMPLE_KEY_FILE": str(key),
            }
        )

    def secrets(self) -> list[str | bytes]:
        return [self._pem, *self._pem.decode().splitlines()[1:-1], self._number]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return go_signer.build(tmp_path_factory.mktemp("go"))


class TestGoExample(SignerConformance):
    """All but what needs another backend than a file."""

    @pytest.fixture
    def subject(self, program: Path, tmp_path: Path) -> ProgramSubject:
        return GoExample(program, tmp_path / "key.pem")


@pytest.mark.parametrize("check", ["quiet-refusal", "quiet-logs", "quiet-errors"])
def test_a_good_program_with_a_secret_setting_passes(check: str) -> None:
    """The kit knows the secrets by what the program declares."""
    assert run_check(CHECKS[check], ProgramSubject(tiny("none"))).outcome is Outcome.PASSED


@pytest.mark.parametrize(
    ("fault", "check", "text"),
    [
        ("kid-number", "offers-a-key", "Expected `str`, got `int`"),
        ("der", "raw-form", "it is DER"),
        ("unknown-kid", "unknown-kid", "raised PluginFault"),
        ("hangs", "raw-form", "sign() hangs"),
        ("key-in-open", "kids-survive-a-worker", "there is a new kid"),
        ("prints-secret", "quiet-logs", "shows a secret"),
        ("secret-in-error", "quiet-errors", "shows a secret"),
    ],
)
def test_a_fault_of_a_program_is_named(fault: str, check: str, text: str) -> None:
    """By the check that is for it."""
    result = run_check(CHECKS[check], ProgramSubject(tiny(fault)))
    assert result.outcome is Outcome.FAILED
    assert text in result.text


def test_each_check_that_is_left_out_exists() -> None:
    """None has another name now."""
    assert NOT_OF_PROGRAMS.keys() <= CHECKS.keys()
