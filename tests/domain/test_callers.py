"""Who calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from macp_auth.domain.callers import (
    AuthenticatorChain,
    Caller,
    CallerAuthenticator,
    ClientCertificate,
    Credentials,
    Method,
)
from macp_auth.domain.errors import BadCredential, CredentialFault, NoCredential

ALICE = Caller("alice", Method.JWT, "system:serviceaccount:macp:alice")
BOB = Caller("bob", Method.SECRET, "bob")
CERTIFICATE = ClientCertificate(("spiffe://example.org/a",), (), 2e9)
BEARER = Credentials(bearer="s3cr3t-t0ken")


class Fixed(CallerAuthenticator):
    """Gives one answer and counts how often it is asked."""

    def __init__(self, answer: Caller | CredentialFault | None) -> None:
        self.answer = answer
        self.asked = 0

    def authenticate(self, credentials: Credentials) -> Caller | None:
        assert credentials is BEARER
        self.asked += 1
        if isinstance(self.answer, CredentialFault):
            raise BadCredential(self.answer)
        return self.answer


def chain(*answers: Caller | CredentialFault | None) -> tuple[Callable[[], Caller], Iterable[Fixed]]:
    methods = [Fixed(answer) for answer in answers]
    return lambda: AuthenticatorChain(methods).authenticate(BEARER), methods


def test_the_first_method_that_accepts_decides() -> None:
    """Those before it have no credential of theirs; those after it are not asked."""
    authenticate, methods = chain(None, ALICE, BOB)
    assert authenticate() == ALICE
    assert [method.asked for method in methods] == [1, 1, 0]


def test_a_bad_credential_ends_the_search() -> None:
    """Otherwise a thief could try a forged credential beside a good one of less worth."""
    authenticate, methods = chain(None, CredentialFault.EXPIRED, ALICE)
    with pytest.raises(BadCredential) as raised:
        authenticate()
    assert raised.value.fault is CredentialFault.EXPIRED
    assert [method.asked for method in methods] == [1, 1, 0]


@pytest.mark.parametrize("answers", [(), (None,), (None, None)])
def test_a_credential_that_no_method_knows_is_bad(answers: tuple[None, ...]) -> None:
    """The caller sent one, so it is not asked for one."""
    authenticate, _ = chain(*answers)
    with pytest.raises(BadCredential) as raised:
        authenticate()
    assert raised.value.fault is CredentialFault.UNKNOWN_CALLER


@pytest.mark.parametrize(
    ("credentials", "present"),
    [
        (Credentials(), False),
        (Credentials(peer_is_loopback=True), False),
        (Credentials(forwarded="URI=spiffe://example.org/a"), False),
        (Credentials(forwarded="URI=spiffe://example.org/a", peer_is_loopback=True), True),
        (Credentials(forwarded="", peer_is_loopback=True), True),
        (Credentials(bearer=""), True),
        (Credentials(certificate=CERTIFICATE), True),
    ],
    ids=["none", "loopback", "foreign-header", "header", "empty-header", "empty-bearer", "certificate"],
)
def test_what_is_a_credential(credentials: Credentials, present: bool) -> None:  # noqa: FBT001
    """Anyone can send the proxy's header; from elsewhere than loopback, it is none."""
    assert credentials.present is present
    with pytest.raises(BadCredential if present else NoCredential):
        AuthenticatorChain([]).authenticate(credentials)


def test_credentials_are_not_shown() -> None:
    """A traceback or a log may show them by accident."""
    assert "s3cr3t" not in repr(BEARER)


@pytest.mark.parametrize("fault", CredentialFault)
def test_all_faults_look_the_same_to_the_caller(fault: CredentialFault) -> None:
    """So it learns neither which callers exist nor what to change in a forgery."""
    assert str(BadCredential(fault)) == "the credential is not accepted"
