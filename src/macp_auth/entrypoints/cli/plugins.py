"""``macp-auth plugins``: the available signers, and their conformance."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import rich_click as click

from macp_auth.entrypoints.cli.hyphens import HyphenatedArguments
from macp_auth.entrypoints.cli.output import echo

if TYPE_CHECKING:  # slow to import; `--help` must not wait
    from macp_auth.testing import Result

_COLOURS = {"passed": "green", "failed": "red", "skipped": "yellow"}
_INDENT = " " * len("skipped  ")


@click.group()
def plugins() -> None:
    """List the signers, and check one."""


@plugins.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_plugins(as_json: bool) -> None:  # noqa: FBT001 - a command line flag
    """Show the available signers and their packages; a star marks the selected one.

    No plugin is imported.
    """
    from macp_auth.adapters.plugins import known_signers  # noqa: PLC0415
    from macp_auth.entrypoints.plan import selected_signer  # noqa: PLC0415

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
    echo(json.dumps(rows, indent=2) if as_json else _as_table(rows))
    if not any(row["selected"] for row in rows):
        echo("macp-auth: unknown signer in MACP_AUTH_SIGNER", err=True)
        sys.exit(2)


def _as_table(rows: Sequence[Mapping[str, object]]) -> str:
    width = max(len(str(row["name"])) for row in rows)
    return "\n".join(
        f"{'*' if row['selected'] else ' '} {row['name']:<{width}}  {row['distribution']} {row['version']}"
        for row in rows
    )


@plugins.command("check", cls=HyphenatedArguments)
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check_plugin(name: str, as_json: bool) -> None:  # noqa: FBT001 - a command line flag
    """Run the conformance checks on the signer NAME, with the backend that the environment configures.

    The signer signs some hundreds of times; nothing is changed. Checks that need a rotation or an outage
    are skipped. Stops if the backend cannot be reached. Exits 1 if a check failed.
    """
    from macp_auth.adapters.plugins import available_signers, load_signer_plugin  # noqa: PLC0415
    from macp_auth.domain.errors import SignerUnavailable  # noqa: PLC0415
    from macp_auth.testing import SignerSubject, run_checks  # noqa: PLC0415

    if name not in (names := available_signers()):
        raise click.BadParameter(f"unknown signer {name!r}; available: {', '.join(names)}", param_hint="NAME")
    subject = SignerSubject(load_signer_plugin(name), os.environ)
    subject.settings()
    results = []
    for result in run_checks(subject):
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
    sys.exit(1 if counts["failed"] else 0)


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
