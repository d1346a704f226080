"""The pages in deploy/ lead somewhere, name what there is, and show commands that work."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.deploy.helm import Tools
from tests.docs.pages import ROOT, blocks, read, without_blocks

PAGES = sorted((ROOT / "deploy").glob("**/README.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_relative_links_lead_to_files(page: Path) -> None:
    """Every relative link names a file that is there."""
    links = re.findall(r"\]\(([^)\s#]+)", without_blocks(page.read_text(encoding="utf-8")))
    assert [link for link in links if ":" not in link and not (page.parent / link).exists()] == []


def test_the_install_command_works(tools: Tools) -> None:
    """Helm takes the page's command, from the root of the repository."""
    [block] = [block for block in blocks(read("deploy/helm/macp-auth/README.md")) if block.language == "sh"]
    helm, *arguments = shlex.split(block.text.replace("\\\n", " "))
    paths = [str(ROOT / each) if each.startswith("deploy/") else each for each in arguments]
    run = tools.run(*paths, "--dry-run=client")
    assert helm == "helm"
    assert run.returncode == 0, run.stderr
    assert "signs with jwk-file" in run.stdout
