"""The pages in deploy/ lead somewhere, name what there is, and show commands that work."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest
import yaml

from tests.deploy.helm import Tools
from tests.docs.pages import ROOT, blocks, read, without_blocks

PAGES = sorted((ROOT / "deploy").glob("**/README.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_relative_links_lead_to_files(page: Path) -> None:
    """Every relative link names a file that is there."""
    links = re.findall(r"\]\(([^)\s#]+)", without_blocks(page.read_text(encoding="utf-8")))
    assert [link for link in links if ":" not in link and not (page.parent / link).exists()] == []


def _images() -> Iterator[tuple[str, str]]:
    """Each image that a file in deploy/docker/ names, and the file."""
    for path in sorted((ROOT / "deploy/docker").iterdir()):
        names = re.findall(r"^(?:ARG BASE=|FROM )(\S+)|^ +image: (\S+)", path.read_text(), re.MULTILINE)
        for name in filter(None, chain(*names)):
            image = re.sub(r"\$\{\w+:-(.+)\}", r"\1", name)  # Compose's default for a variable
            if image != "macp-auth" and not image.startswith("$"):
                yield path.name, image


def test_foreign_images_are_named_by_digest() -> None:
    """A build, or `docker compose up`, gets pinned versions."""
    images = list(_images())
    assert {file for file, _ in images} == {"Dockerfile", "README.md", "compose.yaml"}
    assert [each for each in images if not re.search(r":[\d.]+[\w-]*@sha256:[0-9a-f]{64}$", each[1])] == []
    assert len({image for _, image in images if "/python:" in image}) == 1


def test_the_install_command_works(tools: Tools) -> None:
    """Helm takes the page's command, from the root of the repository."""
    [block, _] = [
        block for block in blocks(read("deploy/helm/macp-auth/README.md")) if block.language == "sh"
    ]
    helm, *arguments = shlex.split(block.text.replace("\\\n", " "))
    paths = [str(ROOT / each) if each.startswith("deploy/") else each for each in arguments]
    run = tools.run(*paths, "--dry-run=client")
    assert helm == "helm"
    assert run.returncode == 0, run.stderr
    assert "signs with jwk-file" in run.stdout


def test_the_values_of_the_kubernetes_page_are_valid(tools: Tools) -> None:
    """Also with the examples on which the page puts them."""
    page = read("docs/kubernetes.md")
    parts = re.findall(r"^cat >>?values\.yaml <<'END'\n(.*?)^END$", page, re.DOTALL | re.MULTILINE)
    values = yaml.safe_load("".join(parts))
    assert len(parts) == 3
    assert tools.template(values=values)
    examples = ROOT / "deploy/helm/examples"
    manifests = tools.template(examples / "callers.yaml", examples / "monitoring.yaml", values=values)
    assert {"HorizontalPodAutoscaler", "ServiceMonitor"} <= {each["kind"] for each in manifests}
