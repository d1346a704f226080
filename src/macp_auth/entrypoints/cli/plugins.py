"""``macp-auth plugins``: the available signers, their conformance, and the project of a new one."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from macp_auth.entrypoints.cli.hyphens import HyphenatedArguments
from macp_auth.entrypoints.cli.output import echo

if TYPE_CHECKING:  # slow to import; `--help` must not wait
    from macp_auth.testing import Result

_COLOURS = {"passed": "green", "failed": "red", "skipped": "yellow"}
_INDENT = " " * len("skipped  ")
_TEMPLATE = Path(__file__).parents[2] / "plugin_template"
_TEMPLATE_FILES = (  # and not what tools leave beside them
    *(".gitignore", "README.md", "pyproject.toml"),
    *("src/macp_auth_example/__init__.py", "src/macp_auth_example/py.typed"),
    *("tests/conftest.py", "tests/test_conformance.py", "tests/test_example.py"),
)


@click.group()
def plugins() -> None:
    """List the signers, check one, or start a new one."""


@plugins.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_plugins(as_json: bool) -> None:  # noqa: FBT001 - a command line flag
    """Show the available signers and their packages.

    A star marks the selected one. No plugin is imported.
    """
    from macp_auth.adapters.plugins import known_signers  # noqa: PLC0415
    from macp_auth.entrypoints.plan import program_name, selected_signer  # noqa: PLC0415

    selected = selected_signer(os.environ)
    rows = [
        {
            "name": signer.name,
            "version": signer.version,
            "distribution": signer.distribution,
            "selected": signer.name == selected,
        }
        for signer in known_signers()
    ]
    if (program := program_name(os.environ)) is not None:
        rows.append({"name": program, "version": None, "distribution": None, "selected": True})
    echo(json.dumps(rows, indent=2) if as_json else _as_table(rows))
    if not any(row["selected"] for row in rows):
        echo("macp-auth: unknown signer in MACP_AUTH_SIGNER", err=True)
        sys.exit(2)


def _as_table(rows: Sequence[Mapping[str, object]]) -> str:
    width = max(len(str(row["name"])) for row in rows)
    return "\n".join(
        f"{'*' if row['selected'] else ' '} {row['name']:<{width}}  "
        + (f"{row['distribution']} {row['version']}" if row["distribution"] else "MACP_AUTH_SIGNER_COMMAND")
        for row in rows
    )


@plugins.command("check", cls=HyphenatedArguments)
@click.argument("name")
@click.option("--only", multiple=True, metavar="CHECK", help="Run only this check. Repeatable.")
@click.option("--skip", multiple=True, metavar="CHECK", help="Do not run this check. Repeatable.")
@click.option(
    "--seconds", type=click.FloatRange(min=0, min_open=True), help="Time limit of one check.  [default: 60]"
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check_plugin(
    name: str,
    only: tuple[str, ...],
    skip: tuple[str, ...],
    seconds: float | None,
    as_json: bool,  # noqa: FBT001 - a command line flag
) -> None:
    """Run the conformance checks on the signer NAME.

    Its backend is the one that the environment configures. The signer signs some hundreds of times;
    nothing is changed. Checks that need a rotation or an outage are skipped, and those that would only
    repeat a fault. Stops if the backend cannot be reached. Exits 1 if a check failed.
    """
    import structlog  # noqa: PLC0415

    from macp_auth.adapters.plugins import available_signers, load_signer_plugin  # noqa: PLC0415
    from macp_auth.adapters.sandbox.process import kill_all  # noqa: PLC0415
    from macp_auth.domain.errors import SignerUnavailable  # noqa: PLC0415
    from macp_auth.entrypoints.plan import program_name  # noqa: PLC0415
    from macp_auth.testing import CHECKS, ProgramSubject, SignerSubject, run_checks  # noqa: PLC0415
    from macp_auth.testing.runner import CHECK_SECONDS  # noqa: PLC0415

    is_program = name == program_name(os.environ)
    if not is_program and name not in (names := available_signers()):
        raise click.BadParameter(f"unknown signer {name!r}; available: {', '.join(names)}", param_hint="NAME")
    if unknown := [each for each in (*only, *skip) if each not in CHECKS]:
        raise click.UsageError(f"unknown check {unknown[0]!r}; available: {', '.join(CHECKS)}")
    checks = [check for check in CHECKS.values() if check.name in (only or CHECKS) and check.name not in skip]
    # Its default is standard output, where the results go.
    structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr))
    subject = (
        ProgramSubject(os.environ) if is_program else SignerSubject(load_signer_plugin(name), os.environ)
    )
    subject.settings()
    threads = {*threading.enumerate()}
    results = []
    for result in run_checks(subject, checks, seconds or CHECK_SECONDS):
        results.append(result)
        if not as_json:
            echo(_as_text(result), mark=click.style(f"{result.outcome:<7}", fg=_COLOURS[result.outcome]))
        if isinstance(result.error, SignerUnavailable):
            echo("macp-auth: cannot reach the backend; no other check was run", err=True)
            break
    counts = {kind: sum(result.outcome == kind for result in results) for kind in _COLOURS}
    if as_json:
        echo(json.dumps([_as_object(result) for result in results], indent=2))
    else:
        echo("\n" + ", ".join(f"{number} {kind}" for kind, number in counts.items()))
    status = 1 if counts["failed"] else 0
    if {*threading.enumerate()} - threads:  # a call hangs, and Python would wait for its thread
        sys.stdout.flush()
        kill_all()
        os._exit(status)
    sys.exit(status)


def _as_text(result: Result) -> str:
    explanation = f"\n{_INDENT}-> {result.text}" if result.text else ""
    return f"  {result.check.name:<23}  {result.check.rule}{explanation}"


def _as_object(result: Result) -> dict[str, str]:
    return {
        "check": result.check.name,
        "rule": result.check.rule,
        "source": result.check.source,
        "outcome": result.outcome.value,
        "text": result.text,
    }


@plugins.command("new")
@click.argument("name")
@click.argument("directory", required=False, type=click.Path(path_type=Path))
def new_plugin(name: str, directory: Path | None) -> None:
    """Write the project of a signer called NAME.

    DIRECTORY is macp-auth-NAME by default. The project is complete: it signs with a key from a file, and
    its tests run the conformance checks. Put your own backend in its place.
    """
    from macp_auth.adapters.plugins import BUILT_IN  # noqa: PLC0415

    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        text = "must be lower-case letters and digits, with single hyphens between, and begin with a letter"
        raise click.BadParameter(text, param_hint="NAME")
    if name in BUILT_IN:
        raise click.BadParameter(f"{name!r} is a built-in signer", param_hint="NAME")
    directory = directory or Path(f"macp-auth-{name}")
    files = {
        directory / _renamed(file, name): _renamed((_TEMPLATE / file).read_text("utf-8"), name)
        for file in _TEMPLATE_FILES
    }
    if existing := [str(path) for path in files if os.path.lexists(path)]:
        raise click.BadParameter(f"{existing[0]} exists already; no file was written", param_hint="DIRECTORY")
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    steps = [
        f"cd {shlex.quote(str(directory))}",
        "pip install --editable . 'macp-auth[testing]'",
        "python -m pytest",
    ]
    echo("\n  ".join([f"{directory}: {len(files)} files written. Next:", *steps]))


def _renamed(text: str, name: str) -> str:
    """Return ``text`` of the template for the signer ``name``."""
    words = name.split("-")
    forms = {
        "EXAMPLE": "_".join(words).upper(),
        "Example": "".join(map(str.capitalize, words)),
        "_example": f"_{'_'.join(words)}",
        "example": name,
    }
    return re.sub("|".join(forms), lambda found: forms[found[0]], text)
