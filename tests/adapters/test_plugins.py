"""How a signer is found by its name; outside plugins are real distributions on sys.path."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from macp_auth.adapters import plugins
from macp_auth.adapters.plugins import BUILT_IN, available_signers, load_signer_plugin
from macp_auth.adapters.verifying import VerifyingSigner
from macp_auth.domain.errors import ConfigurationError, SignerMisconfigured, UnknownKid, WrongSignature
from macp_auth.domain.keys import KeyVersion
from macp_auth.domain.signer import Signer
from macp_auth.entrypoints.plan import plan_service

GOOD = """
import msgspec
from macp_auth import SignerPlugin, hookimpl
from macp_auth.adapters.signers.ephemeral import prepare, EphemeralSettings
from macp_auth.adapters.signers.local import LocalSigner

@hookimpl
def macp_auth_signer():
    return SignerPlugin(name="outside", api_version=1, settings=EphemeralSettings,
                        settings_prefix="MACP_AUTH_OUTSIDE_", prepare=prepare, open=LocalSigner)
"""

Install = Callable[[str, str], None]
INSTALLED = available_signers()
"""Ours, and what the virtual environment has besides."""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Installs a distribution with one entry point and one module, for this test."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))  # of the plugin's own process

    def install_plugin(name: str, source: str) -> None:
        module = f"{name}_{tmp_path.name}"  # a name of its own: Python remembers what it imported
        (tmp_path / f"{module}.py").write_text(source)
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[macp_auth]\n{name} = {module}\n")

    return install_plugin


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_ins_are_plugins_of_the_one_hook(name: str) -> None:
    assert load_signer_plugin(name).name == name


def test_installed_plugin_is_found(install: Install) -> None:
    """Built-ins are listed first; an installed one is loaded by the name of its entry point."""
    install("outside", GOOD)
    assert available_signers()[: len(BUILT_IN)] == list(BUILT_IN)
    assert set(available_signers()) == {*INSTALLED, "outside"}
    assert load_signer_plugin("outside").settings_prefix == "MACP_AUTH_OUTSIDE_"


def test_built_in_names_cannot_be_taken(install: Install) -> None:
    """An installed package that calls itself ephemeral is not even imported."""
    install("ephemeral", "raise SystemExit('imported')")
    assert load_signer_plugin("ephemeral").open.__module__ == "macp_auth.adapters.signers.local"
    assert available_signers() == INSTALLED


def test_unselected_plugin_is_not_imported(install: Install) -> None:
    install("outside", GOOD)
    install("broken", "raise SystemExit('imported')")
    assert load_signer_plugin("outside").name == "outside"


def test_unknown_name_lists_the_names_there_are(install: Install) -> None:
    install("outside", GOOD)
    with pytest.raises(
        SignerMisconfigured, match="MACP_AUTH_SIGNER; available: ephemeral, env-jwk, jwk-file, .*outside"
    ):
        load_signer_plugin("vaultt")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import no_such_module", "can't be loaded .ModuleNotFoundError"),
        ("", "registers no signer"),
        (GOOD.replace('name="outside"', 'name="other"'), "registers no signer"),
        (GOOD.replace("def macp_auth_signer", "def macp_auth_singer"), "can't be loaded"),
        (GOOD.replace("    return", "    1 / 0; return"), "can't register .ZeroDivisionError"),
        (GOOD.replace("api_version=1", "api_version=0"), "was written for version 0 .* upgrade the package"),
        (GOOD.replace("api_version=1", "api_version=2"), "was written for version 2 .* upgrade macp-auth"),
        (GOOD.replace("api_version=1", "api_version=(2, 3)"), "was written for versions 2 to 3 .*macp-auth"),
        (GOOD.replace("api_version=1, ", ""), "declares no valid api_version"),
        (GOOD.replace("api_version=1", "api_version=(2, 1)"), "declares no valid api_version"),
        (GOOD.replace("api_version=1", "api_version='1'"), "declares no valid api_version"),
    ],
    ids=[
        *("import-error", "empty", "other-name", "misspelt-hook"),
        *("raises", "older-api", "newer-api", "newer-apis", "no-api", "no-range", "no-number"),
    ],
)
def test_broken_plugin_is_named(install: Install, source: str, message: str) -> None:
    """A selected plugin that can't work stops the start-up, by name."""
    install("outside", source)
    with pytest.raises(SignerMisconfigured, match=f"'outside' {message}"):
        load_signer_plugin("outside")


@pytest.mark.parametrize(
    ("declared", "oldest", "newest", "warning"),
    [
        ("(1, 2)", 1, 1, None),
        ("(1, 2)", 1, 2, None),
        ("(1, 2)", 2, 2, None),
        ("(1, 2)", 2, 3, "versions 1 to 2 of the plugin API, which is deprecated"),
        ("1", 1, 2, "version 1 of the plugin API, which is deprecated"),
    ],
)
def test_one_release_of_a_plugin_serves_several_versions_of_the_api(
    install: Install,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    *,
    declared: str,
    oldest: int,
    newest: int,
    warning: str | None,
) -> None:
    """It loads where the ranges of plugin and host overlap, and a host with a newer version warns."""
    monkeypatch.setattr(plugins, "OLDEST_API_VERSION", oldest)
    monkeypatch.setattr(plugins, "API_VERSION", newest)
    install("outside", GOOD.replace("api_version=1", f"api_version={declared}"))
    load_signer_plugin("outside")
    warnings = [f"the signer plugin 'outside' was written for {warning}; upgrade the package of the plugin"]
    assert [record.getMessage() for record in caplog.records] == (warnings if warning else [])


@pytest.mark.process
@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        ("lambda _: 1 / 0", "'outside' raised ZeroDivisionError in prepare .outside_.*py:10."),
        ("lambda _: (lambda: 1)", "cannot pass the state of the signer plugin 'outside' to a worker process"),
    ],
    ids=["raises", "can't-travel"],
)
def test_a_plugin_that_cannot_prepare_stops_the_start_up_by_name(
    install: Install, prepare: str, message: str
) -> None:
    """Before anything listens, and without the text of its exception."""
    install("outside", GOOD.replace("prepare=prepare", f"prepare={prepare}"))
    with pytest.raises(ConfigurationError, match=message) as caught:
        plan_service({"MACP_AUTH_SIGNER": "outside"})
    assert "division" not in str(caught.value)


class Liar(Signer):
    """Publishes one key, and signs with the given one."""

    def __init__(self, honest: Signer, answer: Callable[[bytes], object]) -> None:
        self._honest = honest
        self._answer = answer

    async def key_versions(self) -> list[KeyVersion]:
        return list(await self._honest.key_versions())

    async def sign(self, kid: str, signing_input: bytes) -> bytes:
        return self._answer(await self._honest.sign(kid, signing_input))  # type: ignore[return-value]

    async def aclose(self) -> None:
        await self._honest.aclose()


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
def test_host_verifies_what_it_did_not_sign(algorithm: str) -> None:
    """A good signature passes; another length, other bytes, another type do not leave the host."""
    plugin = load_signer_plugin("ephemeral")
    state = plugin.prepare(plugin.settings(algorithm))

    async def through_host(answer: Callable[[bytes], object]) -> bytes:
        signer = VerifyingSigner(Liar(plugin.open(state), answer), "liar")
        (version,) = await signer.key_versions()
        return await signer.sign(version.kid, b"signing input")

    assert asyncio.run(through_host(lambda signature: signature))
    for lie in (lambda s: s[:-1], lambda s: bytes(len(s)), lambda _: b"", lambda _: None, lambda s: s.hex()):
        with pytest.raises(WrongSignature):
            asyncio.run(through_host(lie))


def test_host_asks_only_for_published_kids() -> None:
    plugin = load_signer_plugin("ephemeral")
    signer = VerifyingSigner(plugin.open(plugin.prepare(plugin.settings())), "ephemeral")
    with pytest.raises(UnknownKid):
        asyncio.run(signer.sign("dev-key-1", b"x"))


@pytest.mark.process
def test_importing_the_public_api_loads_no_web_framework() -> None:
    """A plugin's own tests should not wait for Litestar."""
    code = "import sys, macp_auth; sys.exit(bool({'litestar', 'uvicorn', 'cryptography'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
