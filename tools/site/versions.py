"""``python -m tools.site.versions FOLDER VERSION``: put a built site beside those of other versions.

FOLDER is what a web server publishes. It gets a folder for each version, the list for the menu of versions,
and a first page that leads to the newest release, or to ``dev`` before the first one.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
from pathlib import Path
from typing import Any

from tools.support.repository import ROOT

BUILT = ROOT / ".cache" / "site" / "html"
DEVELOPMENT = "dev"
_RELEASE = re.compile(r"\d+\.\d+")
_FIRST_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>macp-auth</title>
<meta http-equiv="refresh" content="0; url={version}/docs/index.html">
<a href="{version}/docs/index.html">The documentation of macp-auth {version}</a>
</html>
"""


def add(built: Path, folder: Path, version: str, base: str) -> None:
    """Publish ``built`` as ``version`` in ``folder``, and replace what was published for it.

    Args:
        built: the folder of the site.
        folder: the folder of all versions.
        version: ``dev``, or the first two numbers of a release, such as ``0.1``.
        base: the path of ``folder`` on the web server; it begins and ends with a slash.
    """
    shutil.rmtree(folder / version, ignore_errors=True)
    shutil.copytree(built, folder / version)
    releases = sorted((path.name for path in folder.iterdir() if _RELEASE.fullmatch(path.name)), key=_numbers)
    newest = releases[-1] if releases else None
    versions = [name for name in (DEVELOPMENT, *reversed(releases)) if (folder / name).is_dir()]
    menu = json.dumps([_entry(name, base, newest) for name in versions], indent=2)
    (folder / "versions.json").write_text(menu + "\n", encoding="utf-8")
    first_page = _FIRST_PAGE.format(version=newest or DEVELOPMENT)
    (folder / "index.html").write_text(first_page, encoding="utf-8")


def _numbers(release: str) -> tuple[int, ...]:
    return tuple(map(int, release.split(".")))


def _entry(version: str, base: str, newest: str | None) -> dict[str, Any]:
    entry: dict[str, Any] = {"version": version, "url": f"{base}{version}/"}
    return {**entry, "name": f"{version} (newest)", "preferred": True} if version == newest else entry


def _version(text: str) -> str:
    if text == DEVELOPMENT or _RELEASE.fullmatch(text):
        return text
    raise argparse.ArgumentTypeError(f"{text!r} is neither {DEVELOPMENT!r} nor a release such as '0.1'")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.site.versions", description=__doc__)
    parser.add_argument("folder", type=Path, help="of all versions")
    parser.add_argument("version", type=_version, help="dev, or the first two numbers of a release")
    parser.add_argument("--base", default="/", help="the path of the folder on the web server (default: /)")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    add(BUILT, arguments.folder, arguments.version, arguments.base)


if __name__ == "__main__":
    main()
