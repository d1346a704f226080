"""``macp-auth keys rotate`` and ``revoke``: change the keys file of a running service."""

from __future__ import annotations

import os
import time
from pathlib import Path

import click

from macp_auth.entrypoints.cli.hyphens import HyphenatedArguments
from macp_auth.entrypoints.cli.keys import ALGORITHM, FILE, exists, new_key
from macp_auth.entrypoints.cli.output import echo
from macp_auth.entrypoints.cli.times import moment

_NO_FILE = (
    "Missing argument 'FILE': the JWK Set of the signer jwk-file. Rotate the keys of another signer in its "
    "backend: docs/rotation.md, 'Where keys rotate'"
)
_DRY_RUN = click.option("--dry-run", is_flag=True, help="Print what would happen, and change nothing.")


@click.command(cls=HyphenatedArguments)
@click.argument("file", type=FILE, required=False)
@click.option("--alg", type=ALGORITHM, help="The new key's algorithm.  [default: as the signing key]")
@click.option("--kid", help="The new key's id.  [default: its RFC 7638 thumbprint]")
@click.option(
    "--at", metavar="TIME", help="When it starts signing: +2h, or 2026-12-01T06:00Z.  [default: when safe]"
)
@_DRY_RUN
def rotate(file: Path | None, alg: str | None, kid: str | None, at: str | None, dry_run: bool) -> None:  # noqa: FBT001
    """Add a key to FILE that signs after the publish lead.

    The old key leaves after the retire lag. A service with MACP_AUTH_SIGNING_KEYS_FILE=FILE reads the
    change itself. A change that would make verifiers reject valid tokens is refused, with the rule. If
    FILE does not exist, it is created with a first key, which signs at once.
    """
    from macp_auth.adapters.signers.jwk_file_editor import create_jwk_file, edit_jwk_file  # noqa: PLC0415
    from macp_auth.domain.key_changes import plan_rotation  # noqa: PLC0415
    from macp_auth.entrypoints.cli import inspection, key_reports  # noqa: PLC0415

    if file is None:
        raise click.UsageError(_NO_FILE)
    now = time.time()
    starts = moment(at, "--at", now)
    timing = inspection.policy_of(os.environ).timing
    if not exists(file):
        if starts is not None:
            raise click.BadParameter("a first key signs at once; leave it out", param_hint="--at")
        key, kid = new_key(alg or "RS256", kid)
        report = key_reports.first_key(file, kid)
        if not dry_run:
            create_jwk_file(file, key, kid, now)
    else:
        with edit_jwk_file(file) as editor:
            rotation = plan_rotation(editor.versions, timing, now, starts)
            key, kid = new_key(alg or rotation.retiring.algorithm.value, kid)
            editor.rotate(rotation, key, kid, now)
            report = key_reports.rotation(rotation, kid, timing, now)
            if not dry_run:
                editor.save()
    _print(report, dry_run)


@click.command(cls=HyphenatedArguments)
@click.argument("file", type=FILE)
@click.argument("kid")
@_DRY_RUN
def revoke(file: Path, kid: str, dry_run: bool) -> None:  # noqa: FBT001
    """Remove the key KID from FILE now.

    For a key whose tokens can no longer be trusted. Prints until when each kind of verifier may still
    accept it.
    """
    from macp_auth.adapters.signers.jwk_file_editor import edit_jwk_file  # noqa: PLC0415
    from macp_auth.domain.key_changes import plan_revocation  # noqa: PLC0415
    from macp_auth.entrypoints.cli import inspection, key_reports  # noqa: PLC0415

    now = time.time()
    policy = inspection.policy_of(os.environ)
    with edit_jwk_file(file) as editor:
        revocation = plan_revocation(editor.versions, kid, policy.timing, now)
        editor.revoke(kid, revocation)
        if not dry_run:
            editor.save()
    _print(key_reports.revocation(kid, revocation, policy, now), dry_run)


def _print(report: str, dry_run: bool) -> None:  # noqa: FBT001
    echo(report)
    if dry_run:
        echo("dry run: nothing was written")
