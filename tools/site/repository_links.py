"""Links to files that are no pages lead to the repository on the web."""

from __future__ import annotations

import posixpath
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.transforms import SphinxTransform


class RepositoryLinks(SphinxTransform):
    """Replaces a link to a file or folder that is no page by one to the same in the repository."""

    default_priority = 5  # before Sphinx copies what a page links to

    def apply(self, **_: Any) -> None:
        for link in list(self.document.findall(_is_of_markdown)):
            path = self._path(link)
            if path is None or not (target := Path(self.env.srcdir, path)).exists():
                continue  # Sphinx reports what is not there
            kind = "tree" if target.is_dir() else "blob"
            uri = f"{self.config.repository_url}/{kind}/{self.config.repository_ref}/{path}"
            link.replace_self(nodes.reference("", "", *link.children, refuri=uri, internal=False))

    def _path(self, link: nodes.Element) -> str | None:
        """Return the path below the root; None if the link is to a page."""
        if link.get("refdomain") == "doc":
            page = link["reftarget"]
            return None if page in self.env.found_docs else f"{page}.md"
        return posixpath.normpath(posixpath.join(posixpath.dirname(self.env.docname), link["reftarget"]))


def _is_of_markdown(node: nodes.Node) -> bool:
    kinds = (addnodes.download_reference, addnodes.pending_xref)
    return isinstance(node, kinds) and node.get("reftype") == "myst"


def setup(app: Any) -> dict[str, bool]:
    app.add_config_value("repository_url", "", "env")
    app.add_config_value("repository_ref", "main", "env")
    app.add_transform(RepositoryLinks)
    return {"parallel_read_safe": True}
