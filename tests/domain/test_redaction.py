"""What others say is shown in one line, bounded, and without a credential of this process."""

from __future__ import annotations

import base64
import pickle
import secrets
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from macp_auth.domain.diagnosis import failure
from macp_auth.domain.errors import SignerUnavailable
from macp_auth.domain.redaction import LONGEST, REDACTED, conceal, shown
from macp_auth.domain.secret import Secret

TOKEN = f"hvs.{secrets.token_urlsafe(60)}"
conceal(TOKEN)


def test_a_word_that_repeats_a_credential_goes_and_the_others_stay() -> None:
    """With what is glued to it."""
    assert shown(f"no header (X-Vault-Token: {TOKEN}) here") == f"no header (X-Vault-Token: {REDACTED}) here"
    assert shown(f"token={TOKEN}, ttl=3") == f"{REDACTED}, ttl=3"


@pytest.mark.parametrize("length", [9, 10, 40])
@pytest.mark.parametrize("start", [0, 1, 7])
def test_a_piece_is_enough(start: int, length: int) -> None:
    """A proxy may cut it off anywhere."""
    assert shown(f"denied:~{TOKEN[start : start + length]}") == REDACTED


@given(before=st.binary(max_size=5), after=st.binary(max_size=5))
def test_base64_of_more_than_the_credential(before: bytes, after: bytes) -> None:
    """As in an Authorization header."""
    encoded = base64.b64encode(before + TOKEN.encode() + after).decode()
    assert shown(f"Basic {encoded} refused") == f"Basic {REDACTED} refused"


@pytest.mark.parametrize("text", ["root", "", "8 chars!", '{"kty": "EC", "kid": "a-kid-that-is-long"}'])
def test_what_is_no_credential(text: str) -> None:
    """A word that is guessed at once, and a document, of which parts are public."""
    conceal(text)
    assert shown("root 8 chars! a-kid-that-is-long") == "root 8 chars! a-kid-that-is-long"


def test_a_secret_that_was_revealed_is_concealed() -> None:
    """Also in a process that it was handed to."""
    text = secrets.token_hex(10)
    secret = pickle.loads(pickle.dumps(Secret(text)))  # noqa: S301 - our own
    secret.reveal()
    assert str(SignerUnavailable(f"the PIN {text} is wrong")) == f"the PIN {REDACTED} is wrong"


@given(st.text(max_size=2000))
def test_it_is_one_printable_bounded_line(text: str) -> None:
    """And it stays as it is when it is made fit again."""
    once = shown(text)
    assert len(once) <= LONGEST
    assert once.isprintable()
    assert shown(once) == once


def test_errors_and_findings_are_fit_by_themselves() -> None:
    """Whoever makes them."""
    text = f"\x1b[2J\u202e{TOKEN}{'x' * 10_000_000}"
    for fit in (str(SignerUnavailable(text)), failure("check", text, "run this").text):
        assert len(fit) <= LONGEST
        assert fit.isprintable()
        assert TOKEN not in fit
    assert failure("check", "text", "one\ntwo").mend == "one\ntwo"


def test_many_credentials_from_many_threads() -> None:
    """The newest are known, whoever asks meanwhile."""
    texts = [secrets.token_hex(12) for _ in range(200)]
    with ThreadPoolExecutor(8) as pool:
        for text in texts:
            pool.submit(conceal, text)
            pool.submit(shown, f"is {text}")
    assert {shown(text) for text in texts[-8:]} == {REDACTED}
    conceal(TOKEN)
