"""The documentation site: ``make docs``.

The root of its sources is the root of the repository, so a link leads to the same page here and there.
"""

import os
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pygments.lexers import JsonLexer, TextLexer  # noqa: E402 - from here
from sphinx.application import Sphinx  # noqa: E402

from macp_auth import __version__  # noqa: E402 - from the root

project = "macp-auth"
author = "The macp-auth authors"
project_copyright = author
version = release = os.environ.get("DOCS_VERSION", "dev")
"""The name of this build in the menu of versions; see tools.site.versions."""

root_doc = "docs/index"
include_patterns = [
    "docs/**.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "clients/python/README.md",
    "deploy/**/README.md",
    "plugins/*/*.md",
]
exclude_patterns = [".*", "**/node_modules", "src", "tests", "tools"]

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinxcontrib.openapi",
    "sphinx_copybutton",
    "tools.site.diagrams",
    "tools.site.long_names",
    "tools.site.navigation",
    "tools.site.openapi",
    "tools.site.repository_links",
    "tools.site.self_contained",
]

myst_heading_anchors = 4
myst_fence_as_directive = ["mermaid"]
openapi_default_renderer = "httpdomain"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
add_module_names = False

generated_folder = ".cache/site/generated"
"""What the build makes and reads again, below the root."""
repository_url = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]
repository_ref = "main" if version == "dev" else f"v{__version__}"

html_theme = "pydata_sphinx_theme"
html_title = "macp-auth"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
# The pages have the layout of the repository, so the first one is not at the root.
html_additional_pages = {"index": "to_home.html"}
templates_path = ["_templates"]
html_theme_options = {
    "github_url": repository_url,
    "navbar_align": "left",
    "navbar_end": ["version-switcher", "theme-switcher", "navbar-icon-links"],
    "switcher": {"json_url": "../versions.json", "version_match": version},
    "check_switcher": False,  # the list is beside the site, and only where that is published
    "show_version_warning_banner": True,
    "footer_start": [],
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc"],
    "show_prev_next": True,
    "show_nav_level": 2,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}


def setup(app: Sphinx) -> None:
    """Name the languages of code blocks that Pygments does not know, or reads wrongly."""
    app.add_lexer("jsonl", JsonLexer)
    app.add_lexer("hcl", TextLexer)
