"""The README says what the code does, and its commands work as they stand there."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from macp_auth_pkcs11 import PKCS11Settings, macp_auth_signer

if TYPE_CHECKING:  # importable by mypy only: pytest imports each test file apart
    from conftest import Commands, SoftHSM

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def test_table_lists_every_setting() -> None:
    """Each variable is there with its default, and no other."""
    rows = re.findall(r"^\| `(MACP_AUTH_PKCS11_\w+)` \|.*\| (.*) \|$", README, re.MULTILINE)
    fields = {
        macp_auth_signer().settings_prefix + field.name.upper(): field
        for field in msgspec.structs.fields(PKCS11Settings)
    }
    assert [name for name, _ in rows] == list(fields)
    for name, default in rows:
        field = fields[name]
        shown = "unset" if field.default is None else f"`{field.default}`"
        assert default == ("required" if field.required else shown), name


def test_commands_do_what_they_are_shown_for(empty_hsm: SoftHSM, commands: Commands) -> None:
    """Made, published, rotated and withdrawn with the README's commands, before one signer's eyes."""
    make_token, make_rsa, make_ec, _serve = commands("README.md", "Set-up")
    rotate, delete = commands("README.md", "Rotate")
    (list_objects,) = commands("README.md", "Withdraw")

    shell = empty_hsm.shell

    async def scenario() -> None:
        shell(make_token)
        shell(make_rsa)
        async with empty_hsm.signer() as signer:
            (first,) = await signer.key_versions()
            assert (first.algorithm, first.created_at) == ("RS256", None)
            shell(rotate)
            (second,) = (version for version in await signer.key_versions() if version != first)
            assert second.algorithm == "ES256"
            assert second.created_at is not None
            assert re.search(r"label: +macp@20", shell(list_objects))
            shell(delete)
            assert await signer.key_versions() == [second]
            shell(make_ec)
            assert len(await signer.key_versions()) == 2

    asyncio.run(scenario())


def test_serve_block_sets_what_the_service_reads(commands: Commands) -> None:
    """The variables of the last block of the set-up fill the settings."""
    *_, serve = commands("README.md", "Set-up")
    script = serve.replace("macp-auth serve", f"exec {sys.executable} -c 'import os; print(*os.environ)'")
    shown = subprocess.run(
        ["bash", "-euc", script], env={"PKCS11_MODULE": "m"}, check=True, capture_output=True, text=True
    ).stdout.split()
    required = {field.name.upper() for field in msgspec.structs.fields(PKCS11Settings) if field.required}
    assert {f"MACP_AUTH_PKCS11_{name}" for name in required} | {"MACP_AUTH_SIGNER"} <= set(shown)
