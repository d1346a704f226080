"""The text of a release: ``python tools/release_notes.py v0.1.0`` prints the changelog's section of it.

Links into the repository become links to the tag, since a release has no files beside it. It fails if the tag
is not the version of the source, or if the changelog has no section for it, or still has unreleased changes.
It needs no package.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]


def notes(tag: str, *, changelog: str, version: str, repository: str) -> str:
    """What ``changelog`` says of the release ``tag``, as Markdown.

    Raises:
        ValueError: the tag is not that of ``version``, or ``changelog`` has no text for it, or has
            unreleased changes.
    """
    if tag != f"v{version}":
        raise ValueError(f"the tag is {tag}, but the source has the version {version}")
    if _section("Unreleased", changelog):
        raise ValueError(f"CHANGELOG.md has changes under Unreleased; move them to the section {version}")
    if not (text := _section(version, changelog)):
        raise ValueError(f"CHANGELOG.md has no section {version}")
    return re.sub(r"\]\((?![a-z]+:|#)", f"]({repository}/blob/{tag}/", text) + "\n"


def _section(name: str, changelog: str) -> str:
    """Return the text of a section; empty if there is none."""
    pattern = rf"^## \[{re.escape(name)}\][^\n]*\n(.*?)(?=^## |^\[[^\]]+\]: |\Z)"
    found = re.search(pattern, changelog, re.DOTALL | re.MULTILINE)
    return found[1].strip() if found else ""


def _main() -> None:
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    source = (_ROOT / project["tool"]["hatch"]["version"]["path"]).read_text(encoding="utf-8")
    (version,) = re.findall(r'^__version__ = "(.+)"$', source, re.MULTILINE)
    changelog = (_ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    repository = project["project"]["urls"]["Repository"]
    try:
        sys.stdout.write(notes(sys.argv[1], changelog=changelog, version=version, repository=repository))
    except ValueError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    _main()
