"""The chart's values that are settings of the service, their schema, and the README's table of all values."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec
import yaml

from macp_auth.entrypoints.environment import PREFIX, Variable, variables
from macp_auth.entrypoints.settings import Settings
from tools.generate.block import replaced
from tools.generate.declared import without_links
from tools.support.repository import ROOT

CHART = ROOT / "deploy/helm/macp-auth"
VALUES = CHART / "values.yaml"
_MARKERS = ("  # generated: make generate\n", "  # end\n")
# the templates set these
_NOT_A_VALUE = {"port", "metrics_port", "jwks_port", "signer"}
_DEFAULTS = {"host": "::"}  # the others are null: the service's own


def values(text: str) -> str:
    """values.yaml with a value for each setting."""
    new = "".join(
        f"  # -- {without_links(each.description)} Must be {each.expects}\n  {_camel(each)}: "
        f"{json.dumps(_DEFAULTS.get(each.field))}\n"
        for each in _settings()
    )
    return replaced(text, new, _MARKERS)


def schema(text: str) -> str:
    """values.schema.json with a schema for each setting."""
    whole = json.loads(text)
    whole["properties"]["config"]["properties"] = {_camel(each): _schema(each) for each in _settings()}
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


def readme(text: str) -> str:
    """README.md with its table of values."""
    return replaced(text, f"\n{_table(values(VALUES.read_text(encoding='utf-8')))}\n")


def documented(values_file: str) -> list[tuple[str, str]]:
    """Each value with a ``# --`` comment, as ``signer.type``, and that comment."""
    found = []
    parents: list[str] = []
    meaning = None
    for line in values_file.splitlines():
        if comment := re.match(r" *# -- (.+)", line):
            meaning = comment[1]
        elif key := re.match(r"( *)(\w+):", line):
            parents[len(key[1]) // 2 :] = [key[2]]
            if meaning:
                found.append((".".join(parents), meaning))
            meaning = None
    return found


def _settings() -> list[Variable]:
    return [each for each in variables(Settings, PREFIX) if each.field not in _NOT_A_VALUE]


def _camel(variable: Variable) -> str:
    return re.sub(r"_(\w)", lambda found: found[1].upper(), variable.field)


def _schema(variable: Variable) -> dict[str, Any]:
    """The JSON schema of a setting that may also be null, in the form of which helm's messages read best."""
    found = msgspec.json.schema(variable.type, schema_hook=lambda _: {"type": "string", "minLength": 1})
    for inner in found.pop("anyOf", []):
        found |= inner if inner != {"type": "null"} else {}
    found["description"] = without_links(variable.description)
    if "enum" in found:
        return {**found, "enum": [None, *found["enum"]]}
    if "pattern" in found:
        found["pattern"] = found["pattern"].replace(r"\A", "^").replace(r"\Z", "$")
    return {**found, "type": [found["type"], "null"]}


def _table(values_file: str) -> str:
    rows = ["| value | default | meaning |", "|---|---|---|"]
    defaults = yaml.safe_load(values_file)
    for path, meaning in documented(values_file):
        value: Any = defaults
        for name in path.split("."):
            value = value[name]
        rows.append(f"| `{path}` | `{json.dumps(value)}` | {meaning.replace('|', '&#124;')} |")
    return "\n".join(rows) + "\n"
