"""What docs/architecture.md says of imports, and no import contract can see."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import macp_auth
import tools
from macp_auth import plugin_api

SOURCE = Path(macp_auth.__file__).parent
TOOLS = Path(tools.__file__).parent
DOMAIN = sorted(path.stem for path in (SOURCE / "domain").glob("*.py"))
_LOAD = """
import msgspec, sys
before = set(sys.modules)
import macp_auth.domain.{module}
print(*sorted({{name.partition(".")[0] for name in set(sys.modules) - before}}))
"""


@pytest.mark.parametrize("module", DOMAIN)
def test_a_module_of_the_domain_loads_the_standard_library_and_msgspec(module: str) -> None:
    """In a fresh process, so that nothing that was imported before hides what it needs."""
    name = "" if module == "__init__" else module
    code = _LOAD.format(module=name).replace("domain.\n", "domain\n")
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(run.stdout.split())
    assert "macp_auth" in loaded
    assert loaded - {"macp_auth"} <= sys.stdlib_module_names


def test_the_domain_brings_no_other_room_along() -> None:
    """All of it in one process."""
    imports = "; ".join(f"import macp_auth.domain.{name}" for name in DOMAIN if name != "__init__")
    code = f"{imports}; import sys; print(*(name for name in sys.modules if name.startswith('macp_auth.')))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {name.split(".")[1] for name in run.stdout.split()} == {"domain"}


def test_the_public_api_is_importable_from_the_package() -> None:
    """Each name is the same object, and there is no other."""
    assert set(dir(macp_auth)) == {"__version__", *plugin_api.__all__}
    for name in plugin_api.__all__:
        assert getattr(macp_auth, name) is getattr(plugin_api, name)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = macp_auth.no_such_name


def test_the_root_of_the_entrypoints_has_fewer_than_eight_modules() -> None:
    """The rest is in one of the three rooms."""
    modules = [path for path in (SOURCE / "entrypoints").glob("*.py") if path.name != "__init__.py"]
    assert len(modules) < 8
    rooms = {path.parent.name for path in (SOURCE / "entrypoints").glob("*/__init__.py")}
    assert rooms == {"http", "server", "cli"}


def test_tools_import_no_test() -> None:
    """Tests may use the tools, not the other way round."""
    texts = {str(path): path.read_text(encoding="utf-8") for path in TOOLS.glob("**/*.py")}
    assert str(TOOLS / "drill" / "drill.py") in texts
    assert [path for path, text in texts.items() if re.search(r"(?m)^\s*(from|import) tests\b", text)] == []
