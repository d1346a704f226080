"""What others say is shown in one line, bounded, and without a credential of this process."""

from __future__ import annotations

import base64
import pickle
import secrets
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from macp_auth.domain.diagnosis import failure
from macp_auth.domain.errors import SignerUnavailable
from macp_auth.domain.redaction import LONGEST, REDACTED, conceal, shown
from macp_auth.domain.secret import Secret

TOKEN = f"hvs.{secrets.token_urlsafe(60)}"


@pytest.fixture(autouse=True)
def _in_use() -> None:
    conceal(TOKEN)


def test_a_word_that_repeats_a_credential_goes_and_the_others_stay() -> None:
    """With what is glued to it."""
    assert shown(f"no header (X-Vault-Token: {TOKEN}) here") == f"no header (X-Vault-Token: {REDACTED}) here"
    assert shown(f"token={TOKEN}, ttl=3") == f"{REDACTED}, ttl=3"


@pytest.mark.parametrize("length", [16, 17, 40])
@pytest.mark.parametrize("start", [0, 1, 7])
def test_a_piece_is_enough(start: int, length: int) -> None:
    """A proxy may cut it off anywhere."""
    assert shown(f"denied:~{TOKEN[start : start + length]}") == REDACTED


@pytest.mark.parametrize("length", [16, 1200, 4095, 4096, 8191, 8192, 12_288, 16_383, 65_536])
def test_a_credential_of_any_length_is_known_at_any_place(length: int) -> None:
    """Of a long one, only every so many pieces are kept."""
    text = secrets.token_hex(length // 2 + 1)[:length]
    conceal(f"{text}abcdefg")
    for prefix, offset in product(["", "~", "~~", "token="], [0, 1, 2, 7]):
        assert shown(f"denied: {prefix}{text[offset : offset + 40]}abcdefg"[:100]) == f"denied: {REDACTED}"


@pytest.mark.parametrize("length", [9, 10, 15])
def test_a_short_credential_is_known_as_a_whole(length: int) -> None:
    """And glued to other words."""
    text = secrets.token_hex(8)[:length]
    conceal(text)
    assert shown(f"PIN={text.upper()}; wrong") == f"{REDACTED} wrong"
    assert shown(f"PIN={text[1:]} wrong") == f"PIN={text[1:]} wrong"


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("correct,horse,battery,staple-9f8e", "staple-9f8e"),
        ("pass(word)1234567890abcdef", "1234567890abcdef"),
        ("four words, and-a-long-one", "and-a-long-one"),
        ("{no: document-1234}", "document-1234"),
    ],
)
def test_a_credential_of_several_words(text: str, word: str) -> None:
    """It goes as a whole, in other spellings, and by each of its words that is long enough."""
    conceal(text)
    assert shown(f"denied: x{text.upper()} here") == f"denied: x{REDACTED} here"
    for spelled in (quote(text, safe=""), base64.b64encode(text.encode()).decode(), word):
        assert shown(f"denied: {spelled} here") == f"denied: {REDACTED} here"


def test_a_name_that_a_credential_holds_is_shown() -> None:
    """A remedy names paths and commands."""
    conceal("macp-auth-prod-secret-5b1f")
    remedy = "run `vault policy read macp-auth-prod` and see auth/macp-auth/role"
    assert shown(remedy) == remedy


def test_a_credential_in_use_is_kept() -> None:
    """Others that come after it do not drive it out."""
    live = secrets.token_hex(12)
    for _ in range(2):
        conceal(live)
        for _ in range(20):
            conceal(secrets.token_hex(12))
    assert shown(live) == REDACTED


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
    """From any class."""
    text = f"\x1b[2J\u202e{TOKEN}{'x' * 10_000_000}"
    for fit in (str(SignerUnavailable(text)), failure("check", text, "run this").text):
        assert len(fit) <= LONGEST
        assert fit.isprintable()
        assert TOKEN not in fit
    assert failure("check", "text", "one\ntwo").remedy == "one\ntwo"


def test_many_credentials_from_many_threads() -> None:
    """The newest are known, also during concurrent calls."""
    texts = [secrets.token_hex(12) for _ in range(200)]
    with ThreadPoolExecutor(8) as pool:
        for text in texts:
            pool.submit(conceal, text)
            pool.submit(shown, f"is {text}")
    assert {shown(text) for text in texts[-8:]} == {REDACTED}
