"""The links of the pages lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, ROOT, slug, without_blocks


def _anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", without_blocks(path.read_text(encoding="utf-8")), re.MULTILINE)
    return {slug(heading) for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_lead_to_files_and_headings(page: Path) -> None:
    """Every relative link names a file that is there, and a heading in it."""
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", without_blocks(page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in _anchors(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_headings_of_a_page_have_anchors_of_their_own(page: Path) -> None:
    """No two headings of a page share an anchor, so a link to one is a link to that one."""
    headings = re.findall(r"^#+ (.+)$", without_blocks(page.read_text(encoding="utf-8")), re.MULTILINE)
    slugs = [slug(heading) for heading in headings]
    if page.name != "CHANGELOG.md":  # each release has its own "Added"
        assert len(set(slugs)) == len(slugs)


def test_the_index_of_the_decision_records_has_each() -> None:
    """In the order of their numbers, with the title that the record has."""
    records = sorted((ROOT / "docs" / "adr").glob("[0-9]*.md"))
    titles = [record.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ") for record in records]
    index = (ROOT / "docs" / "adr" / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[(\d{4})\]\((.+?)\) \| (.+?) \|", index, re.MULTILINE)
    assert [name for _, name, _ in rows] == [record.name for record in records]
    assert [f"{number}. {title}" for number, _, title in rows] == titles
