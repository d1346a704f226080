"""The verifiers that a drill can have, and what each needs to be there."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from tools.drill.desk import Judge
from tools.drill.envoy import token_checking_envoy
from tools.drill.judges.protocol import AUDIENCE, ISSUER
from tools.drill.scenario import Scenario
from tools.support.macp_runtime import MacpRuntime, verifying
from tools.support.programs import missing, require_tool
from tools.support.service import Service

_JUDGES = Path(__file__).parent / "judges"
_JOSE = _JUDGES / "jose.mjs"
_INSTALL_SECONDS = 110


@contextmanager
def _envoy(service: Service, scenario: Scenario, directory: Path) -> Iterator[Judge]:
    with token_checking_envoy(directory, service.port, scenario.cache_ttl, scenario.leeway) as port:
        yield Judge("envoy", _python("envoy_client", port))


@contextmanager
def _pyjwt(service: Service, scenario: Scenario, _directory: Path) -> Iterator[Judge]:
    yield Judge("pyjwt", _python("pyjwt_client", _jwks(service), scenario.cache_ttl, scenario.leeway))


@contextmanager
def _macp_runtime(service: Service, scenario: Scenario, directory: Path) -> Iterator[Judge]:
    with MacpRuntime(directory, verifying(_jwks(service), cache_ttl=scenario.cache_ttl)) as runtime:
        yield Judge("macp-runtime", _python("macp_runtime_client", runtime.target))


@contextmanager
def _macp_runtime_model(service: Service, scenario: Scenario, _directory: Path) -> Iterator[Judge]:
    times = (scenario.cache_ttl, scenario.stale_grace, scenario.leeway)
    yield Judge("macp-runtime-model", _python("macp_runtime_model", _jwks(service), *times))


@contextmanager
def _jose(service: Service, scenario: Scenario, directory: Path) -> Iterator[Judge]:
    npm, node = require_tool("npm", "npm"), require_tool("node", "nodejs")
    modules = directory / "node"
    modules.mkdir()
    for file in (_JUDGES / "package.json", _JUDGES / "package-lock.json", _JOSE):
        shutil.copy(file, modules)
    install = subprocess.run(
        [npm, "ci", "--silent", "--no-audit", "--no-fund"],
        cwd=modules, capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False,
    )  # fmt: skip
    if install.returncode != 0:
        missing(f"npm can't install jose; is its registry reachable? ({install.stderr.strip()[-200:]})")
    arguments = (_jwks(service), scenario.cache_ttl, scenario.leeway, ISSUER, AUDIENCE)
    yield Judge("jose", [node, _JOSE.name, *map(str, arguments)], modules)


VERIFIERS: dict[str, Callable[[Service, Scenario, Path], AbstractContextManager[Judge]]] = {
    "macp-runtime": _macp_runtime,
    "macp-runtime-model": _macp_runtime_model,
    "envoy": _envoy,
    "pyjwt": _pyjwt,
    "jose": _jose,
}
"""By name: what makes all that the verifier needs, says how to start it, and ends what it started."""


def _jwks(service: Service) -> str:
    return f"{service.url}/.well-known/jwks.json"


def _python(module: str, *arguments: object) -> list[str]:
    return [sys.executable, "-m", f"tools.drill.judges.{module}", *map(str, arguments)]
