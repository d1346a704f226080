"""The documentation site; `make docs` builds it, and checks links, anchors and orphans."""

from __future__ import annotations

import json
import posixpath
import re
from pathlib import Path

import pytest

import macp_auth.testing
from macp_auth import plugin_api
from tests.docs.pages import ROOT, read
from tools.site.navigation import INDEX_PAGES, entries
from tools.site.self_contained import loaded_elsewhere
from tools.site.versions import add


def test_each_page_is_once_in_the_navigation() -> None:
    """The first index page leads to each page of the site, on one way only."""
    listed = [
        posixpath.normpath(posixpath.join(posixpath.dirname(index), entry.page))
        for index in INDEX_PAGES
        for listed in entries(read(f"{index}.md")).values()
        for entry in listed
    ]
    pages = {path.relative_to(ROOT).as_posix().removesuffix(".md") for path in ROOT.glob("docs/**/*.md")}
    assert len(set(listed)) == len(listed)
    assert pages <= {"docs/index", *listed}


def test_python_api_shows_each_public_name() -> None:
    """A name that is added to the public API is added to the page."""
    shown = set(re.findall(r"^\.\. [a-z]+:: (?:[\w.]+\.)?(\w+)", read("docs/python-api.md"), re.MULTILINE))
    assert {*plugin_api.__all__, *macp_auth.testing.__all__} <= shown


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("page.html", '<script defer src="https://cdn.example/mermaid.js"></script>'),
        ("page.html", '<link rel="stylesheet" href="//fonts.example/css" />'),
        ("page.html", '<img alt="badge" src="https://img.example/badge.svg"/>'),
        ("style.css", "@font-face { src: url('https://fonts.example/a.woff2') }"),
    ],
)
def test_what_a_page_loads_from_another_host_is_found(name: str, content: str, tmp_path: Path) -> None:
    """Scripts, styles, pictures and fonts; a link that a reader may follow is none of them."""
    (tmp_path / name).write_text(content + '<a href="https://example.com/">')
    (tmp_path / "own.html").write_text(
        '<script src="../_static/own.js"></script><a href="https://example.com/">'
    )
    assert [found.partition(":")[0] for found in loaded_elsewhere(tmp_path)] == [name]


def test_versions_are_published_beside_each_other(tmp_path: Path) -> None:
    """The first page leads to the newest release, by number; a version that is built again is replaced."""
    built, folder = tmp_path / "built", tmp_path / "pages"
    folder.mkdir()

    def published(version: str, file: str) -> list[tuple[str, bool]]:
        built.mkdir()
        (built / file).touch()
        add(built, folder, version, "/macp-auth/")
        (built / file).unlink()
        built.rmdir()
        menu = json.loads((folder / "versions.json").read_text())
        assert all(entry["url"] == f"/macp-auth/{entry['version']}/" for entry in menu)
        return [(entry["version"], entry.get("preferred", False)) for entry in menu]

    assert published("dev", "a.html") == [("dev", False)]
    assert "url=dev/docs/index.html" in (folder / "index.html").read_text()
    published("0.9", "a.html")
    assert published("0.10", "a.html") == [("dev", False), ("0.10", True), ("0.9", False)]
    assert "url=0.10/docs/index.html" in (folder / "index.html").read_text()
    published("0.9", "b.html")
    assert [path.name for path in (folder / "0.9").iterdir()] == ["b.html"]
