"""``macp-auth doctor``: is this deployment ready for production, and if not, how to fix it."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence

import click

from macp_auth.entrypoints.cli.output import echo, echo_finding, echo_json
from macp_auth.entrypoints.cli.verifiers import CUSTOMS, NAMES, chosen_verifiers


@click.command()
@NAMES
@CUSTOMS
@click.option("--issuer", help="The iss that the verifiers expect.")
@click.option("--audience", help="The aud that the verifiers expect.")
@click.option("--strict", is_flag=True, help="Exit 1 also for warnings.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(  # noqa: PLR0913 - one parameter an option
    *,
    names: Sequence[str],
    customs: Sequence[str],
    issuer: str | None,
    audience: str | None,
    strict: bool,
    as_json: bool,
) -> None:
    """Check the configured service: its settings, signer and key.

    Each finding names a fault and its remedy. The signer signs once;
    nothing is changed. Exits 1 on a failure.
    """
    from macp_auth.domain.diagnosis import Status  # noqa: PLC0415
    from macp_auth.entrypoints.cli import diagnosis  # noqa: PLC0415
    from macp_auth.entrypoints.logs import configure_logs  # noqa: PLC0415

    verifiers = chosen_verifiers(names, customs)
    expected = diagnosis.Expected(verifiers=verifiers, issuer=issuer, audience=audience)
    configure_logs(logging.WARNING)  # to standard error
    findings = []
    for finding in diagnosis.diagnose(os.environ, expected):
        findings.append(finding)
        if not as_json:
            echo_finding(finding)
    failures, warnings = (
        sum(finding.status is status for finding in findings) for status in (Status.FAILURE, Status.WARNING)
    )
    if as_json:
        echo_json(findings)
    else:
        echo(f"\n{_count(failures, 'failure')}, {_count(warnings, 'warning')}")
    sys.exit(1 if failures or (strict and warnings) else 0)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
