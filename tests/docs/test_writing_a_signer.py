"""The tutorial for authors leads to a signer that passes, and the reference says what the code does."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import msgspec
import pluggy
import pytest

import macp_auth
from macp_auth import Algorithm, Secret, Signer, SignerPlugin
from macp_auth.adapters import hookspecs, plugins
from macp_auth.adapters.sandbox import connection, planning
from macp_auth.adapters.sandbox.limits import Limits
from macp_auth.domain import errors
from macp_auth.domain.errors import ConfigurationError
from macp_auth.entrypoints.cli.diagnosis import SECONDS as DOCTOR_SECONDS
from macp_auth.entrypoints.signers import hosted, process
from macp_auth.entrypoints.signers import settings as signer_settings
from macp_auth.entrypoints.signers.settings import read_signer_settings, unusable_settings
from macp_auth.testing import CHECKS, SignerSubject, suite, watched
from macp_auth.testing.checks.signatures import LEADING_ZERO_SIGNATURES
from tests.docs.pages import ROOT, blocks, plain, read, rows, section
from tests.docs.terminal import Terminal, assert_as_shown, steps
from tools.support.programs import require_tools
from tools.support.service import BOOT_SECONDS, clean_environment, free_port, wait_until

TUTORIAL = read("docs/writing-a-signer.md")
REFERENCE = read("docs/signer-reference.md")
FOR_THE_WALK = {
    *("faker", "h11", "httpcore", "httpx", "litestar-htmx", "polyfactory"),  # unused.in
    *("markdown-it-py", "mdurl", "rich", "rich-click"),
    *("iniconfig", "joserfc", "packaging", "pygments", "pytest"),  # macp-auth[testing]
    *("editables", "hatchling", "pathspec", "tomlkit", "trove-classifiers"),  # to build the plugin
}
INSTALL_SECONDS = 240
PREFIX = "MACP_AUTH_ACME_"


# --- the steps ------------------------------------------------------------------------------------------


def _run(*command: str | Path, cwd: Path) -> None:
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with macp-auth, built as for a release, and what the walk installs, at the locked versions."""
    directory = tmp_path_factory.mktemp("wheels")
    locked = (ROOT / "requirements" / "dev.txt").read_text(encoding="utf-8")
    wanted = [entry for entry in re.split(r"\n(?=\S)", locked) if entry.split("==")[0] in FOR_THE_WALK]
    assert len(wanted) == len(FOR_THE_WALK)
    (directory / "walk.txt").write_text("\n".join(wanted))
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    runtime = ROOT / "requirements" / "runtime.txt"
    _run(*pip, "download", "--no-deps", "--require-hashes", "-r", runtime, "-r", "walk.txt", cwd=directory)
    _run(sys.executable, "-m", "hatchling", "build", "--target=sdist", "--directory", directory, cwd=ROOT)
    (sdist,) = directory.glob("macp_auth-*.tar.gz")
    _run(*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", ".", sdist, cwd=directory)
    sdist.unlink()
    return directory


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def terminal(tmp_path: Path, wheels: Path, port: int) -> Iterator[Terminal]:
    """A shell in an empty folder, whose pip finds nothing but the locked versions."""
    own = {"PORT": str(port), "MACP_AUTH_SERVICE_URL": f"http://localhost:{port}"}
    env = clean_environment({"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels), **own})
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
    opened = Terminal(tmp_path, env)
    yield opened
    opened.close()


@pytest.fixture
def shell_tools() -> None:
    """What the page's commands call."""
    require_tools("bash", "curl", "openssl")


@pytest.mark.slow  # installs into environments of its own
@pytest.mark.usefixtures("shell_tools")
@pytest.mark.timeout(2 * INSTALL_SECONDS + 120)
def test_from_an_empty_folder_to_a_signer_that_passes(terminal: Terminal, tmp_path: Path, port: int) -> None:
    """Each command exits 0 and prints what the page shows; ruff and mypy find no fault in the project."""
    for commands, shown in steps(TUTORIAL):
        before, serves, _ = commands.partition("macp-auth serve\n")
        output = terminal.run(before.replace("localhost:3200", f"localhost:{port}"), within=INSTALL_SECONDS)
        if serves:
            terminal.run("macp-auth serve >service.log 2>&1 &")
            is_ready = f"curl -sf http://localhost:{port}/readyz"
            wait_until(lambda c=is_ready: terminal.look(c)[0] == 0, within=BOOT_SECONDS, what="it is ready")
        elif shown:
            assert_as_shown(shown, output)
    project = tmp_path / "macp-auth-acme"
    (code,) = [block.text for block in blocks(TUTORIAL) if block.language == "python"]
    assert code in (project / "src/macp_auth_acme/__init__.py").read_text(encoding="utf-8")
    for tool in ("ruff check", "ruff format --check", "mypy ."):
        _run(sys.executable, "-m", *tool.split(), cwd=project)


# --- every name -----------------------------------------------------------------------------------------


def first_column(heading: str) -> list[str]:
    return [plain(row[0]) for row in rows(section(REFERENCE, heading))]


def test_every_public_name_and_field_is_documented() -> None:
    """Also none that is there no more."""
    fields = [field.name for field in msgspec.structs.fields(SignerPlugin)]
    kit = [*macp_auth.testing.__all__, suite.SignerConformance.__name__]
    assert sorted(first_column("Every public name")) == sorted([*macp_auth.__all__, *fields, *kit])


def test_every_hook_is_documented() -> None:
    """The page shows and names each one."""
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    hooks = [name for name in vars(manager.hook) if not name.startswith("_")]
    assert hooks == ["macp_auth_signer"]
    for hook in hooks:
        assert f"`{hook}`" in section(REFERENCE, "Every public name")


def test_every_operation_field_and_capability_is_documented() -> None:
    """What an author implements, or fills in."""
    operations = [re.sub(r"\(.*", "", name) for name in first_column("The three operations")]
    assert set(operations) == Signer.__abstractmethods__
    optional = {name for name in vars(Signer) if not name.startswith("_")} - Signer.__abstractmethods__
    assert all(f"`{name}()`" in section(REFERENCE, "The three operations") for name in optional)
    fields = [field.name for field in msgspec.structs.fields(macp_auth.KeyVersion)]
    assert first_column("Key versions and times") == fields
    can = [name.removesuffix("()") for name in first_column("What the subject can do")]
    as_the_host_does = {"settings", "prepare", "open", "opened"}
    assert set(can) == {name for name in vars(SignerSubject) if not name.startswith("_")} - as_the_host_does


def test_every_error_is_documented_with_its_reason() -> None:
    """Each that may leave a signer and is public."""
    public = {
        name: getattr(macp_auth, name).default_reason
        for name in macp_auth.__all__
        if isinstance(getattr(macp_auth, name), type)
        and issubclass(getattr(macp_auth, name), errors.SignerError)
    }
    public.pop("SignerError")
    assert {plain(row[0]): plain(row[2]) for row in rows(section(REFERENCE, "The errors"))} == public


def test_every_check_is_documented_with_its_rule() -> None:
    """In order, and with what it uses of the subject."""
    expected = []
    for check in CHECKS.values():
        source = inspect.getsource(check.run)
        for helper in re.findall(r"\b(_\w+)\(subject\b", source):
            source += inspect.getsource(getattr(sys.modules[check.run.__module__], helper))
        methods = ("secrets", "rotate", "break_backend", "hang_backend", "refuse_backend", "garble_backend")
        uses = [f"{name}()" for name in methods if f"subject.{name}(" in source]
        expected.append([check.name, check.rule, ", ".join(uses)])
    assert [[plain(cell) for cell in row] for row in rows(section(REFERENCE, "The checks"))] == expected


# --- every number and message ---------------------------------------------------------------------------


def test_the_limits_are_the_hosts() -> None:
    """Each, and no other."""
    documented = rows(section(REFERENCE, "What the host does around a plugin"))
    assert {plain(row[0]): float(row[1]) for row in documented} == msgspec.structs.asdict(Limits())


def test_numbers_in_the_text_are_the_codes() -> None:
    """Those that stand outside of tables."""
    text = " ".join(REFERENCE.split())
    assert f"`API_VERSION` is {macp_auth.API_VERSION}." in text
    assert f"All signer checks together get {DOCTOR_SECONDS:g} s" in text
    assert f"may take {suite.SignerConformance.check_seconds:g} s" in text
    assert f"`aclose()` after {watched.CLOSE_SECONDS:g} s" in text
    assert f"`open()` after {watched.READ_SECONDS:g} s" in text
    assert watched.READ_SECONDS == watched.START_SECONDS
    assert f"up to {LEADING_ZERO_SIGNATURES} times" in text
    assert f"shorter than {Limits().sign_seconds:g} s" in text
    assert f"so it is at most {hookspecs.MAX_SIGN_SECONDS:g}" in text


def test_messages_about_the_api_version_are_the_hosts() -> None:
    """Word for word, for a plugin that is older, newer by one version or more, or says nothing."""
    (shown,) = blocks(section(REFERENCE, "The version of the API"))
    messages = []
    for declared in (0, 2, (2, 3), None):
        plugin = SignerPlugin(
            name="example",
            api_version=declared,
            settings=msgspec.Struct,
            settings_prefix="",
            prepare=lambda _: None,
            open=lambda _: pytest.fail("opened"),
        )
        with pytest.raises(errors.SignerMisconfigured) as refused:
            plugins.check_api_version(plugin)
        messages.append(str(refused.value))
    assert shown.text.splitlines() == messages


def test_what_a_line_says_when_it_does_not_load_is_said_by_the_code() -> None:
    """Each fragment of the table is a part of a message."""
    sources = [
        inspect.getsource(module)
        for module in (plugins, signer_settings, process, hosted, connection, planning)
    ]
    texts = re.sub(r'"\s*\n\s*f?"', "", "".join(sources))
    fragments = first_column("When it does not load")
    assert fragments
    assert [fragment for fragment in fragments if fragment not in texts] == []


# --- settings -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def acme() -> dict[str, Any]:
    """What the blocks of Python in the reference define, run in their order."""
    module = sys.modules["acme_of_the_page"] = ModuleType(
        "acme_of_the_page"
    )  # where annotations are resolved
    for block in blocks(REFERENCE):
        if block.language == "python":
            exec(block.text, vars(module))  # noqa: S102 - our own page
    return vars(module)


def acme_plugin(settings: type[msgspec.Struct]) -> SignerPlugin:
    return SignerPlugin(
        name="acme",
        settings=settings,
        settings_prefix=PREFIX,
        prepare=lambda _: None,
        open=lambda _: pytest.fail("opened"),
    )


GOOD = {"ACME_URL": "https://acme.example", f"{PREFIX}KEYS": "a,b"}


def test_the_example_of_settings_is_usable(acme: dict[str, Any]) -> None:
    """All fields, with the names that the page gives their variables."""
    plugin = acme_plugin(acme["AcmeSettings"])
    assert list(unusable_settings(plugin)) == []
    environ = {**GOOD, "ACME_REGION": "mars", f"{PREFIX}API_TOKEN": "t", f"{PREFIX}TIMEOUT_SECONDS": "1"}
    settings: Any = read_signer_settings(plugin, environ)
    assert (settings.url, settings.region, settings.timeout_seconds) == (GOOD["ACME_URL"], "mars", 1.0)
    assert isinstance(settings.api_token, Secret)


def test_messages_about_settings_are_the_hosts(acme: dict[str, Any]) -> None:
    """What the operator reads is what the page says."""
    table = [
        row for row in rows(section(REFERENCE, "Settings")) if "must be" in row[1] or "must be set" in row[1]
    ]
    assert len(table) > 5
    for given, message in table[:7]:
        name, _, value = plain(given).partition("=")
        environ = {} if name == "nothing" else {**GOOD, name: value}
        with pytest.raises(ConfigurationError) as refused:
            read_signer_settings(acme_plugin(acme["AcmeSettings"]), environ)
        assert str(refused.value) == plain(message)


def test_types_take_and_refuse_what_the_page_says() -> None:
    """Each example in the table of types."""
    known = {"Algorithm": Algorithm, "Secret": Secret, "re": re}
    table = [row for row in rows(section(REFERENCE, "Settings")) if len(row) == 3]
    assert len(table) == 7
    for kind, taken, refused in table:
        annotation = eval(plain(kind), known)  # noqa: S307 - our own page
        plugin = acme_plugin(
            msgspec.defstruct("OneSetting", [("field", Annotated[annotation, msgspec.Meta()])])
        )
        for text in re.findall("`([^`]+)`", taken):
            read_signer_settings(plugin, {f"{PREFIX}FIELD": text})
        for text in re.findall("`([^`]+)`", refused):
            with pytest.raises(ConfigurationError):
                read_signer_settings(plugin, {f"{PREFIX}FIELD": text})


def test_what_meta_may_say_is_what_the_host_reads() -> None:
    """Each key of ``extra``."""
    table = [
        row for row in rows(section(REFERENCE, "Settings")) if row[0].startswith(("`description", "`extra"))
    ]
    source = inspect.getsource(sys.modules["macp_auth.entrypoints.environment"])
    read_by_host = set(re.findall(r'extra\.get\("(\w+)"', source))
    assert {name for row in table for name in re.findall(r'extra\["(\w+)"\]', row[0])} == read_by_host


def test_the_other_examples_are_what_the_host_and_the_kit_take(acme: dict[str, Any]) -> None:
    """The diagnosis yields findings; the subject overrides what there is to override."""
    settings = read_signer_settings(acme_plugin(acme["AcmeSettings"]), {**GOOD, f"{PREFIX}API_TOKEN": "t"})
    (finding,) = acme["diagnose"](settings, None)
    assert isinstance(finding, macp_auth.Finding)
    assert finding.remedy == "MACP_AUTH_ACME_API_TOKEN_FILE=<file>"
    subject = acme["AcmeSubject"]
    assert {name for name in vars(subject) if not name.startswith("_")} <= vars(SignerSubject).keys()
