"""What docs/architecture.md says of imports, and no import contract can see."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest

import macp_auth
import tools
from macp_auth import plugin_api
from tools.support.asgi import InProcess

SOURCE = Path(macp_auth.__file__).parent
PAGE = SOURCE.parents[1] / "docs" / "architecture.md"
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


def test_a_start_loads_what_it_uses_only() -> None:
    """Nothing of signers and settings that are not selected, or that Litestar offers to others."""
    code = "import sys, macp_auth.entrypoints.composition; from macp_auth.entrypoints.http import app"
    code += "; app._Router([], logging_config=None, openapi_config=None); print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    others = {"aiohttp", "hvac", "jwt", "opentelemetry", "prometheus_client", "pydantic", "requests"}
    assert {name.split(".")[0] for name in run.stdout.split()} & others == set()


def test_the_public_api_is_importable_from_the_package() -> None:
    """Each name is the same object, and there is no other."""
    assert set(dir(macp_auth)) == {"__version__", *plugin_api.__all__}
    for name in plugin_api.__all__:
        assert getattr(macp_auth, name) is getattr(plugin_api, name)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = macp_auth.no_such_name


def test_the_root_of_the_entrypoints_has_fewer_than_eight_modules() -> None:
    """The rest is in one of the five rooms."""
    modules = [path for path in (SOURCE / "entrypoints").glob("*.py") if path.name != "__init__.py"]
    assert len(modules) < 8
    rooms = {path.parent.name for path in (SOURCE / "entrypoints").glob("*/__init__.py")}
    assert rooms == {"http", "server", "cli", "signers", "pictures"}


def test_tools_import_no_test() -> None:
    """Tests may use the tools, not the other way round."""
    texts = {str(path): path.read_text(encoding="utf-8") for path in TOOLS.glob("**/*.py")}
    assert str(TOOLS / "drill" / "drill.py") in texts
    assert [path for path, text in texts.items() if re.search(r"(?m)^\s*(from|import) tests\b", text)] == []


def _room(module: str) -> str:
    """The node of the page's diagram that ``module`` is in."""
    match module.split(".")[1:]:
        case ["entrypoints", ("http" | "server" | "cli" | "signers" | "pictures") as room, *_]:
            return room
        case ["entrypoints", "composition" | "plan", *_]:
            return "composition"
        case ["entrypoints", *_]:
            return "settings"
        case [room, *_]:
            return room
    return "macp_auth"


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("macp_auth."):
            for alias in node.names:
                yield f"{node.module}.{alias.name}"


def test_the_diagram_of_the_rooms_is_what_they_import() -> None:
    """Each arrow is an import, and each import from room to room has its arrow."""
    diagram = re.findall(r"^    (\w+)(?:\[.*?\])? --> (\w+)", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    rooms = {room for arrow in diagram for room in arrow}
    found = set()
    for path in SOURCE.rglob("*.py"):
        module = ".".join(("macp_auth", *path.relative_to(SOURCE).with_suffix("").parts))
        found |= {(_room(module), _room(imported)) for imported in _imports(path)}
    assert {(one, other) for one, other in found if one != other and {one, other} <= rooms} == set(diagram)


def test_the_modules_of_a_token_s_path_are_those_of_the_page() -> None:
    """Traced while a token is minted; what waits for nothing runs in one thread."""
    ran = set()

    def trace(frame: FrameType, _event: str, _argument: object) -> None:
        if (name := frame.f_globals.get("__name__", "")).startswith("macp_auth."):
            ran.add(name.removeprefix("macp_auth."))

    section = (
        PAGE.read_text(encoding="utf-8").partition("These modules run")[2].partition("Errors are domain")[0]
    )
    body = b'{"sender":"a","scopes":{}}'
    with InProcess({}) as service:
        assert service.post(body).status == 200  # what happens once has happened
        sys.setprofile(trace)
        try:
            status = service.post(body).status
        finally:
            sys.setprofile(None)
    assert status == 200
    assert set(re.findall(r"`([a-z_]+(?:\.[a-z_]+)+)`", section)) == ran
