"""docs/callers.md: its steps do what it shows, its examples are good, tables and numbers are the code's."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography import x509

import macp_auth.entrypoints.composition  # noqa: F401 - brings in every module that defines an error
from macp_auth.adapters.callers import file, issuer_keys, jwt, secret
from macp_auth.application import access, callers_refresh
from macp_auth.domain import errors
from macp_auth.domain.callers import Method
from macp_auth.domain.grants import Ceiling
from macp_auth.entrypoints.cli import serve
from macp_auth.entrypoints.http.errors import status_of
from tests.docs.pages import ROOT, Block, blocks, plain, read, rows, section
from tests.docs.terminal import Terminal, assert_as_shown, steps
from tools.support import callers
from tools.support.bounded import HANG_SECONDS
from tools.support.programs import require_tools
from tools.support.proxies import envoy
from tools.support.service import Service, clean_environment, free_port
from tools.support.tls import Authority
from tools.support.tls_service import trusting
from tools.support.wire import Answer, read_answer

PAGE = read("docs/callers.md")
TEXT = " ".join(PAGE.split())
EXAMPLES = [block.text for block in blocks(PAGE) if block.language == "toml"]
MINTERS = section(PAGE, "The MACP control plane and the playground")
_SERVE = re.compile(r"^((?:\w+=\S+ )+)macp-auth serve 2>service.log$")


# --- the tutorial -------------------------------------------------------------------------------------


class Reader:
    """Follows a page in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self._terminal = Terminal(directory, clean_environment({"PATH": path}))
        self._directory = directory
        self._ports: dict[str, str] = {}
        self.service: Service | None = None

    def take(self, command: str, shown: Block | None) -> None:
        """Do one step; what it prints is what the page shows, at once or soon."""
        if serve := _SERVE.match(command.strip()):
            self.start(dict(each.split("=", 1) for each in serve[1].split()))
            return
        for there, here in self._ports.items():
            command = command.replace(there, here)
        deadline = time.monotonic() + HANG_SECONDS
        while True:
            status, output = self._terminal.look(command)
            try:
                assert status == _status(shown), output
                if shown:
                    assert_as_shown(shown, output)
            except AssertionError:
                if not command.startswith(_LOOKS) or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
            else:
                return

    def start(self, env: dict[str, str]) -> Service:
        """Start the service, in the place of the one that runs."""
        self.stop()
        metrics_port = str(free_port())
        # The service runs in another directory.
        here = {"callers.toml": str(self._directory / "callers.toml"), "9464": metrics_port}
        self.service = Service(self._directory, {name: here.get(text, text) for name, text in env.items()})
        self.service.__enter__()
        self._terminal.run(f"export MACP_AUTH_SERVICE_URL={self.service.url}")
        self._ports = {"localhost:3200": f"localhost:{self.service.port}", ":9464": f":{metrics_port}"}
        for name, path in (("service.log", self.service.log_path), ("audit.log", self.service.audit_path)):
            link = self._directory / name
            link.unlink(missing_ok=True)
            link.symlink_to(path)
        return self.service

    def stop(self) -> None:
        if self.service is not None:
            self.service.__exit__()
            self.service = None

    def close(self) -> None:
        try:
            self._terminal.close()
        finally:
            self.stop()


_LOOKS = ("curl ", "grep ", "macp-auth audit ", "macp-auth mint ")
"""What shows a change of the service a moment after it."""


def _status(shown: Block | None) -> int:
    """The exit status that a command has with this output."""
    if shown and shown.text.startswith(("reason ", "macp-auth: no token: 4")):
        return 1
    return 2 if shown and shown.text.startswith("macp-auth: ") else 0


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    require_tools("bash", "curl")
    reader = Reader(tmp_path)
    yield reader
    reader.close()


def test_a_reader_who_follows_the_steps_gets_what_they_show(reader: Reader) -> None:
    """Each command of the five steps, in order, with the service of the step."""
    for command, shown in steps(PAGE):
        reader.take(command, shown)


# --- the procedures of the runbook --------------------------------------------------------------------


def _stolen(reader: Reader, directory: Path) -> None:
    minted = callers.mint(_port(reader), {"sender": "risk-agent"}, bearer=_secret_in(directory))
    assert minted.status == 200


def _broken(_reader: Reader, directory: Path) -> None:
    path = directory / "callers.toml"
    callers.write(path, path.read_text().replace("senders", "sender"))


RUNBOOK_PROCEDURES: dict[str, Callable[[Reader, Path], None]] = {
    "A caller's credential is stolen": _stolen,
    "The callers file is broken": _broken,
}
"""Each with what happens before it."""


@pytest.mark.parametrize("procedure", RUNBOOK_PROCEDURES)
def test_a_procedure_of_the_runbook_does_what_it_shows(
    procedure: str, reader: Reader, tmp_path: Path
) -> None:
    """Every command, in order; at the end, the caller gets a token."""
    (tmp_path / "orchestrator.secret").touch(mode=0o600)
    (tmp_path / "orchestrator.secret").write_text(f"{(made := secret.new_secret())}\n")
    digest = secret.digest_of(made).hex()
    callers.write(
        tmp_path / "callers.toml",
        f'[[caller]]\nname = "orchestrator"\nsecret_sha256 = "{digest}"\n{callers.RISK}',
    )
    reader.start({"MACP_AUTH_CALLERS_FILE": "callers.toml"})
    RUNBOOK_PROCEDURES[procedure](reader, tmp_path)
    for command, shown in steps(section(read("docs/runbook.md"), procedure)):
        reader.take(command, shown)
    last = callers.mint(_port(reader), {"sender": "risk-agent"}, bearer=_secret_in(tmp_path))
    assert last.status == 200


def _port(reader: Reader) -> int:
    assert reader.service is not None
    return reader.service.port


def _secret_in(directory: Path) -> str:
    return (directory / "orchestrator.secret").read_text().strip()


# --- the examples -------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", EXAMPLES)
def test_an_example_is_a_callers_file(text: str) -> None:
    """As it stands."""
    found = file.parse_callers(text.encode(), "F", audience="macp-runtime", max_ttl_seconds=3600)
    assert found.grants.by_caller()


def test_the_example_of_the_chart_has_the_callers_file_of_the_page() -> None:
    """For a Kubernetes service account."""
    values = (ROOT / "deploy/helm/examples/callers.yaml").read_text()
    [example] = [text for text in EXAMPLES if 'name = "cluster"' in text]
    assert "".join(f"#     {line}".rstrip() + "\n" for line in example.splitlines()) in re.sub(
        r"^#$", "#", values, flags=re.MULTILINE
    )


_OBSERVES = {"can_start_sessions": False, "is_observer": True}
_REGISTERS = {"can_manage_mode_registry": True}
_ACTS: dict[str, Any] = {"is_observer": False, "allowed_modes": ["macp.mode.decision.v1", ""]}


@pytest.mark.parametrize(
    ("caller", "sender", "scopes"),
    [  # read in their sources
        ("control-plane", "macp-control-plane", _OBSERVES),
        ("control-plane", "macp-control-plane", _OBSERVES | _REGISTERS),
        ("playground", "macp-playground", _REGISTERS | {"is_observer": False, "allowed_modes": ["*"]}),
        ("playground", "fraud-agent", _ACTS | {"can_start_sessions": True}),
        ("playground", "risk-agent", _ACTS | {"can_start_sessions": False}),
    ],
)
def test_the_example_grants_what_the_real_minters_ask_for(
    caller: str, sender: str, scopes: dict[str, Any], tmp_path: Path
) -> None:
    """With their default lifetime."""
    [example] = [block.text for block in blocks(MINTERS) if block.language == "toml"]
    path = tmp_path / "callers.toml"
    callers.write(path, example)
    command = [sys.executable, "-m", "macp_auth", "callers", "explain", str(path), "--caller", caller]
    run = subprocess.run(
        [*command, "--sender", sender, "--scopes", json.dumps(scopes), "--ttl", "3600"],
        env=clean_environment(), capture_output=True, text=True, timeout=HANG_SECONDS, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr


@contextmanager
def _sidecar(directory: Path, service: Service, clients: Authority) -> Iterator[int]:
    """The page's Envoy in front of the service; its port."""
    [block] = [block for block in blocks(section(PAGE, "An Envoy sidecar")) if block.language == "yaml"]
    port = free_port()
    Authority(directory, "servers").issue("server")
    text = block.text
    for there, here in {
        "address: 0.0.0.0, port_value: 3443": f"address: 127.0.0.1, port_value: {port}",
        "port_value: 3200": f"port_value: {service.port}",
        "/etc/envoy/macp-auth/clients.pem": str(clients.path),
        "/etc/envoy/macp-auth": str(directory),
    }.items():
        assert there in text
        text = text.replace(there, here)
    with envoy(text, directory, port):
        yield port


def test_the_sidecar_of_the_page_names_its_clients(tmp_path: Path) -> None:
    """Two SPIFFE IDs get what their grants say; a header that the client sends makes nobody another."""
    [example] = [block.text for block in blocks(MINTERS) if block.language == "toml"]
    env = callers.write(tmp_path / "callers.toml", example)
    clients = Authority(tmp_path, "clients")

    def mint(port: int, account: str, sender: str, **headers: str) -> Answer:
        spiffe_id = f"spiffe://example.org/ns/macp/sa/{account}"
        pair = clients.issue(account, names=[x509.UniformResourceIdentifier(spiffe_id)])
        context = trusting(tmp_path / "servers.pem", pair)
        with (
            socket.create_connection(("127.0.0.1", port), HANG_SECONDS) as raw,
            context.wrap_socket(raw, server_hostname="localhost") as sock,
        ):
            sock.sendall(callers.request({"sender": sender}, **headers))
            return read_answer(sock)

    with (
        Service(tmp_path, {**env, "MACP_AUTH_SIGNING_ALG": "ES256"}) as service,
        _sidecar(tmp_path, service, clients) as port,
    ):
        assert mint(port, "control-plane", "macp-control-plane").status == 200
        agent = mint(port, "playground", "risk-agent")
        assert (agent.status, agent.json["expires_in_seconds"]) == (200, 300)
        assert mint(port, "playground", "macp-control-plane").status == 403
        forged = "URI=spiffe://example.org/ns/macp/sa/control-plane"
        header = {"x_forwarded_client_cert": forged}
        assert mint(port, "playground", "macp-control-plane", **header).status == 403
        assert mint(port, "stranger", "macp-control-plane", **header).status == 401


# --- the reference ------------------------------------------------------------------------------------


def _keys(struct: type[msgspec.Struct]) -> list[str]:
    return list(struct.__struct_fields__)


@pytest.mark.parametrize(
    ("title", "struct"),
    [
        ("`[[issuer]]`", file.Issuer),
        ("`[proxy]`", file._Proxy),
        ("`[[caller]]`", file._Caller),
        ("`[[caller.grant]]`", file._Grant),
        ("`scopes`", Ceiling),
    ],
)
def test_the_tables_have_the_keys_of_the_file(title: str, struct: type[msgspec.Struct]) -> None:
    """All of them, in order, and no other; what the code requires is required."""
    table = rows(section(PAGE, title))
    assert [plain(row[0]) for row in table] == _keys(struct)
    required = {each.name for each in msgspec.structs.fields(struct) if each.required}
    assert {plain(row[0]) for row in table if row[2] == "required"} == required


def test_every_table_of_the_file_is_on_the_page() -> None:
    """A new table needs a section."""
    assert _keys(file._File) == ["issuer", "proxy", "caller"]
    assert _keys(file._JWTSubject) == ["issuer", "subject"]


def test_the_variables_are_those_of_the_settings() -> None:
    """The first table has those of callers, as the table of the configuration does."""
    named = [plain(row[0]) for row in rows(section(PAGE, "Callers"))]
    documented = [plain(row[0]) for row in rows(section(read("docs/configuration.md"), "The service"))]
    assert named == [name for name in documented if name.startswith("MACP_AUTH_CALLERS_")]


def test_methods_are_the_codes_in_their_order() -> None:
    """The names in the audit log."""
    assert [plain(row[1]) for row in rows(section(PAGE, "Methods"))] == list(Method)


def _reasons() -> dict[str, int]:
    """Each reason of a caller's refusal, with its status."""
    found: list[Any] = [errors.BadCredential(fault) for fault in errors.CredentialFault]
    found += [errors.NoCredential(), errors.NoGrant(), errors.AudienceNotGranted()]
    found += [errors.ScopeNotGranted("is_observer"), errors.RateLimited(1), errors.CallersUnavailable()]
    assert {type(each) for each in found} >= set(_leaves(errors.CallerRefused))
    return {each.reason: status_of(each) for each in found}


def _leaves(kind: type[Any]) -> Iterator[type[Any]]:
    if not kind.__subclasses__():
        yield kind
    for each in kind.__subclasses__():
        yield from _leaves(each)


def test_the_table_of_reasons_is_the_codes() -> None:
    """Every word of a refusal, with the status of the answer, and its meaning."""
    table = rows(section(PAGE, "Reasons"))
    assert {plain(reason): int(status) for reason, status, _ in table} == _reasons()
    assert all(meaning for _, _, meaning in table)


@pytest.mark.parametrize(
    "text",
    [
        f"at most {file.MAX_BYTES // 2**20} MiB",
        f"every {callers_refresh.POLL_INTERVAL_SECONDS:.0f} seconds",
        f"at most {access.REPORTS} in 10 seconds",
        f"it begins with `{secret.PREFIX}`",
        f"have {jwt.LEEWAY_SECONDS:.0f} s of leeway",
        f"at most {jwt.MAX_CHARS // 1024} KiB",
        f"{jwt.REMEMBERED:,} of them in a worker",
        f"every {issuer_keys.REFRESH_SECONDS:.0f} s; a file every {issuer_keys.FILE_REFRESH_SECONDS:.0f} s",
        f"at most every {issuer_keys.REQUEST_INTERVAL_SECONDS:.0f} s",
        f"for at most {issuer_keys.REFRESH_SECONDS + 2 * issuer_keys.FETCH_SECONDS:.0f} s",
        f"for at most {issuer_keys.MAX_AGE_SECONDS:.0f} s",
        f"{issuer_keys.CONNECT_SECONDS:.0f} s to connect, {issuer_keys.FETCH_SECONDS:.0f} s in all",
        f"{issuer_keys.MAX_BYTES // 1024} KiB, {issuer_keys.MAX_KEYS} keys, no redirects",
    ],
)
def test_numbers_are_the_codes(text: str) -> None:
    """To the letter."""
    assert text in TEXT


@pytest.mark.parametrize(
    ("event", "module"),
    [
        ("callers file would refuse", access),
        ("cannot use the callers file", callers_refresh),
        ("cannot read issuer keys", issuer_keys),
        ("callers file is not enforced", serve),
    ],
)
def test_events_are_the_codes(event: str, module: Any) -> None:
    """What the page says the log has, it has."""
    assert event in TEXT
    assert event in Path(module.__file__).read_text(encoding="utf-8")
