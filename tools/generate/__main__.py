"""``python -m tools.generate``: write what is generated; with ``--check``, only say what is stale."""

from __future__ import annotations

import argparse
import sys

from tools.generate import chart, pages
from tools.support.repository import ROOT

_CHART = "deploy/helm/macp-auth"
GENERATED = {
    "docs/configuration.md": pages.configuration_page,
    ".env.example": pages.environment_example,
    f"{_CHART}/values.yaml": chart.values,
    f"{_CHART}/values.schema.json": chart.schema,
    f"{_CHART}/README.md": chart.readme,
}
"""Each file, and what makes its new text of its text."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a file is stale")
    only_check = parser.parse_args().check
    stale = []
    for name, generate in GENERATED.items():
        path = ROOT / name
        text = path.read_text(encoding="utf-8")
        if (new := generate(text)) == text:
            continue
        stale.append(name)
        if not only_check:
            path.write_text(new, encoding="utf-8")
    for name in stale:
        print(f"{name} is stale; run make generate" if only_check else f"{name}: written")
    return 1 if only_check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
