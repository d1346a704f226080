"""docs/configuration.md and .env.example say what the settings types say."""

from __future__ import annotations

import re
from enum import Enum
from pathlib import Path

import pytest

from macp_auth.adapters.plugins import BUILT_IN, load_signer_plugin
from macp_auth.entrypoints.environment import ECOSYSTEM, PREFIX, Variable, variables
from macp_auth.entrypoints.server.connections import MAX_CONNECTIONS
from macp_auth.entrypoints.server.descriptors import RESERVED
from macp_auth.entrypoints.settings import Settings
from tests.docs.pages import PAGES, ROOT, plain, read, rows, section

EXAMPLES = ("MACP_AUTH_EXAMPLE_", "MACP_AUTH_ACME_")  # of the plugins on the pages for authors


def _declared() -> dict[str, list[Variable]]:
    """The variables of each settings type, by the heading under which they are documented."""
    declared = {"The service": variables(Settings, PREFIX)}
    for name in BUILT_IN:
        plugin = load_signer_plugin(name)
        declared[f"Signer: {name}"] = variables(plugin.settings, plugin.settings_prefix)
    return declared


DECLARED = _declared()
ALL_VARIABLES = [variable for found in DECLARED.values() for variable in found]


def _default(variable: Variable) -> str:
    if variable.required:
        return "required"
    default = variable.default.value if isinstance(variable.default, Enum) else variable.default
    return "unset" if default is None else f"`{default}`"


def _examples() -> dict[str, str]:
    lines = re.findall(r"^#([A-Z][A-Z0-9_]*)=(.*)$", read(".env.example"), re.MULTILINE)
    return dict(lines)


@pytest.mark.parametrize("heading", DECLARED)
def test_each_table_lists_the_variables_of_its_settings_type(heading: str) -> None:
    """The page has every variable of a settings type, in order, and no other."""
    documented = [plain(row[0]) for row in rows(section(read("docs/configuration.md"), heading))]
    assert documented == [variable.name for variable in DECLARED[heading]]


@pytest.mark.parametrize("heading", DECLARED)
def test_documented_defaults_are_the_codes(heading: str) -> None:
    """The default that the page gives is the one that the settings type has."""
    documented = {plain(row[0]): row[2] for row in rows(section(read("docs/configuration.md"), heading))}
    assert documented == {variable.name: _default(variable) for variable in DECLARED[heading]}


@pytest.mark.parametrize("heading", DECLARED)
def test_documented_ranges_are_those_of_the_error_messages(heading: str) -> None:
    """What the page says a value must be is what the refusal says."""
    table = rows(section(read("docs/configuration.md"), heading))
    documented = {plain(row[0]): plain(row[4]) for row in table}
    assert documented == {variable.name: variable.expects for variable in DECLARED[heading]}


def test_numbers_in_the_meanings_are_the_codes() -> None:
    """Those that no declaration bounds: what an unset variable stands for, and the reserved descriptors."""
    said = {
        variable.field: f"{variable.description} {variable.expects}"
        for variable in variables(Settings, PREFIX)
    }
    assert f"Unset: {MAX_CONNECTIONS}, or" in said["max_connections"]
    assert f"and {RESERVED} less than" in said["max_connections"]
    timing = Settings().rotation.timing
    assert f"({timing.publish_lead} with the defaults)" in said["key_publish_lead_seconds"]
    assert f"({timing.retire_lag} with the defaults)" in said["key_retire_lag_seconds"]


def test_every_documented_variable_has_a_meaning_and_a_type() -> None:
    """No cell of the tables is left empty."""
    for heading in DECLARED:
        for row in rows(section(read("docs/configuration.md"), heading)):
            assert len(row) == 5, row
            assert all(row), row


def test_the_example_lists_every_variable_with_its_default() -> None:
    """.env.example has each variable once, commented out, with the code's default or empty."""
    examples = _examples()
    assert examples.keys() == {variable.name for variable in ALL_VARIABLES}
    for name, value in examples.items():
        defaults = {_default(variable).strip("`") for variable in ALL_VARIABLES if variable.name == name}
        assert value in defaults or (not value and defaults <= {"unset", "required"}), name


def test_the_example_sets_nothing() -> None:
    """Loading .env.example as it is changes no setting and holds no key."""
    lines = [line for line in read(".env.example").splitlines() if line.strip()]
    assert [line for line in lines if not line.startswith("#")] == []


@pytest.mark.parametrize("path", [*PAGES, ROOT / ".env.example"], ids=lambda path: path.name)
def test_pages_name_only_variables_that_exist(path: Path) -> None:
    """A variable that a page names is one that the service reads, or another program of MACP."""
    named = set(re.findall(rf"\b{PREFIX}[A-Z0-9_]*[A-Z0-9]\b", path.read_text(encoding="utf-8")))
    named = {name for name in named if not name.startswith(EXAMPLES)}
    assert named <= {variable.name for variable in ALL_VARIABLES} | ECOSYSTEM
