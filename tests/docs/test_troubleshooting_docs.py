"""docs/troubleshooting.md explains what ``macp-auth verify`` says."""

from __future__ import annotations

import pytest

from macp_auth.entrypoints.cli import verification
from tests.docs.pages import read, rows, section

ADVICE = {
    name: value for name, value in vars(verification).items() if name.isupper() and isinstance(value, str)
}
TABLE = rows(section(read("docs/troubleshooting.md"), "A token is refused"))


def test_there_is_advice_for_each_kind_of_fault() -> None:
    """The constants that these tests read are the ones that ``verify`` prints."""
    keywords = {value.partition(":")[0] for value in ADVICE.values()}
    assert keywords >= {"stale cache", "issuer", "audience", "expired", "skew", "malformed", "algorithm"}


@pytest.mark.parametrize("name", ADVICE)
def test_each_advice_is_a_row_with_a_cause_and_a_remedy(name: str) -> None:
    """An operator can search the page for what ``verify`` printed, and reads why and what to do."""
    found = [row for row in TABLE if row[0] == ADVICE[name]]
    assert len(found) == 1
    assert all(found[0][1:])


def test_the_page_explains_nothing_that_verify_never_says() -> None:
    """No row is left of an advice that is gone."""
    assert {row[0] for row in TABLE} == set(ADVICE.values())
