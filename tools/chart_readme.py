"""The table of values in the chart's README, made from values.yaml: ``make helm-docs``."""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

from tools.support.repository import ROOT

CHART = ROOT / "deploy/helm/macp-auth"
VALUES = CHART / "values.yaml"
README = CHART / "README.md"
BEGIN, END = "<!-- values: made by `make helm-docs` -->\n", "<!-- end of values -->\n"


def table() -> str:
    """A row for each value that has a ``# --`` comment; those comments are the only source."""
    rows = ["| value | default | meaning |", "|---|---|---|"]
    values = yaml.safe_load(VALUES.read_text(encoding="utf-8"))
    for path, meaning in documented():
        value: Any = values
        for name in path.split("."):
            value = value[name]
        rows.append(f"| `{path}` | `{json.dumps(value)}` | {meaning.replace('|', '&#124;')} |")
    return "\n".join(rows) + "\n"


def documented() -> list[tuple[str, str]]:
    """Each documented value, as ``signer.type``, with its meaning."""
    found = []
    parents: list[str] = []
    meaning = None
    for line in VALUES.read_text(encoding="utf-8").splitlines():
        if comment := re.match(r" *# -- (.+)", line):
            meaning = comment[1]
        elif key := re.match(r"( *)(\w+):", line):
            parents[len(key[1]) // 2 :] = [key[2]]
            if meaning:
                found.append((".".join(parents), meaning))
            meaning = None
    return found


def with_table(readme: str) -> str:
    """The README with the table as it should be."""
    before, _, rest = readme.partition(BEGIN)
    return f"{before}{BEGIN}\n{table()}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    README.write_text(with_table(README.read_text(encoding="utf-8")), encoding="utf-8")
