"""The pictures of the pages are those that the commands draw."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, ROOT, read
from tools.pictures.__main__ import PICTURES


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_not_stale(name: str, tmp_path: Path) -> None:
    """Run `make pictures` if this fails."""
    assert PICTURES[name](tmp_path) == read(name)


def test_each_picture_is_on_a_page_and_has_a_text_in_its_place() -> None:
    """For those who can't see it, as long as a sentence."""
    shown = {
        str((page.parent / target).resolve().relative_to(ROOT)): words
        for page in PAGES
        for words, target in re.findall(
            r"!\[([^]]*)\]\((?!https?:)([^)]+\.svg)\)", page.read_text(encoding="utf-8")
        )
    }
    assert PICTURES.keys() <= shown.keys()
    assert min(map(len, shown.values())) > 40
