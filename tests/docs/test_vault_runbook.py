"""The procedures of docs/runbook.md for keys in Vault, done to a service while OpenBao has that very fault.

Steps that a procedure leaves to others, such as to start Vault, are done before its last check.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests

from tests.docs.pages import plain, read, rows, section
from tests.docs.terminal import Terminal, steps
from tests.docs.test_runbook import DISPATCH, _take
from tests.docs.vault_procedures import PROCEDURES, vault_environment
from tests.support.fake_server import FakeServer, Reply, Request
from tests.support.proxy import Proxy
from tests.vault.test_faults import readiness
from tools.support.bounded import HANG_SECONDS
from tools.support.openbao import OpenBao
from tools.support.service import Service, clean_environment, wait_until
from tools.support.vault_environment import POLICY

pytestmark = pytest.mark.slow  # each procedure of the page, on a Vault of its own

RUNBOOK = read("docs/runbook.md")
KEY, NAME = "macp", "macp-auth"  # as in docs/vault.md
ROLE = f"auth/approle/role/{NAME}"
READ_LINE, SIGN_LINE = POLICY.format(key=KEY).strip().splitlines()
READY_SECONDS = 10
ASK, ASK_AGAIN = steps(section(RUNBOOK, DISPATCH))


class Place:
    """A Vault that is set up as docs/vault.md says, and the way to it."""

    proxy: Proxy
    """In between, for the procedure that needs one."""
    node: FakeServer
    """The same."""

    def __init__(self, directory: Path, procedure: str, stack: ExitStack) -> None:
        self.directory = directory
        self.bao = stack.enter_context(OpenBao(directory))
        self.bao.create_key(KEY, "ecdsa-p256")
        self.bao.write_policy(NAME, POLICY.format(key=KEY).strip())
        client = self.bao.client()
        client.sys.enable_auth_method("approle")
        times = {"token_ttl": "10s", "token_max_ttl": "10s"} if procedure in SHORT_LEASE else {}
        client.write_data(ROLE, data={"token_policies": [NAME], "token_ttl": "1h", **times})
        self.role_id = client.read(f"{ROLE}/role-id")["data"]["role_id"]
        self.secret_id = client.write_data(f"{ROLE}/secret-id", data={})["data"]["secret_id"]
        (directory / "secret-id").write_text(self.secret_id)
        self.url = self.bao.url
        if procedure in BETWEEN:
            BETWEEN[procedure](self, stack)
        self.env = {
            "MACP_AUTH_SIGNER": "vault-transit",
            "MACP_AUTH_VAULT_KEY": KEY,
            "MACP_AUTH_VAULT_AUTH": "approle",
            "MACP_AUTH_VAULT_ROLE_ID": self.role_id,
            "MACP_AUTH_VAULT_SECRET_ID_FILE": str(directory / "secret-id"),
            "MACP_AUTH_KEY_REFRESH_SECONDS": REFRESH_SECONDS.get(procedure, "1"),
            "VAULT_ADDR": self.url,
        }

    def destroy_secret_id(self) -> None:
        self.bao.client().write_data(f"{ROLE}/secret-id/destroy", data={"secret_id": self.secret_id})

    def revoke_tokens(self) -> None:
        client = self.bao.client()
        mine = client.auth.token.lookup_self()["data"]["accessor"]
        for accessor in client.auth.token.list_accessors()["data"]["keys"]:
            if accessor != mine:
                client.auth.token.revoke_accessor(accessor)


def _a_proxy(place: Place, stack: ExitStack) -> None:
    place.proxy = stack.enter_context(Proxy(place.bao.port))
    place.url = place.proxy.url


def _a_node(place: Place, stack: ExitStack) -> None:
    """A node that can redirect: OpenBao's standbys forward, so a fake is in front of it."""
    place.node = stack.enter_context(FakeServer(_passes_on(place)))
    place.url = place.node.url


def _passes_on(place: Place) -> Callable[[Request], Reply]:
    def reply(request: Request) -> Reply:
        headers = {name: request.headers[name] for name in ("x-vault-token",) if name in request.headers}
        url = place.bao.url + request.path
        answer = requests.request(
            request.method, url, headers=headers, data=request.body, timeout=HANG_SECONDS
        )
        return Reply(answer.status_code, answer.content)

    return reply


def _redirects(request: Request) -> Reply:
    if request.path.startswith("/v1/sys/health"):
        return Reply(429, {"standby": True})
    return Reply(307, {}, {"location": f"http://127.0.0.1:1{request.path}"})


def _is_a_standby(place: Place) -> None:
    place.node.reply = _redirects


def _is_active(place: Place) -> None:
    place.node.reply = _passes_on(place)


def _slow(place: Place) -> None:
    place.proxy.delay(3)


def _fast(place: Place) -> None:
    place.proxy.let_pass()
    place.proxy.cut()


def _limited(place: Place) -> None:
    quota = {"path": "transit/", "rate": 1, "interval": "60s"}
    place.bao.client().write_data("sys/quotas/rate-limit/transit", data=quota)


def _may_not_sign(place: Place) -> None:
    place.bao.write_policy(NAME, READ_LINE)


def _may_not_read(place: Place) -> None:
    place.bao.write_policy(NAME, SIGN_LINE)


def _credential_gone(place: Place) -> None:
    place.destroy_secret_id()
    place.revoke_tokens()


def _key_gone(place: Place) -> None:
    place.bao.create_key("another")
    place.bao.delete_key(KEY)


def _another_key(place: Place) -> None:
    place.bao.delete_key(KEY)
    place.bao.create_key(KEY, "ecdsa-p256")


SHORT_LEASE = {"The token can't be renewed"}
REFRESH_SECONDS = {"A signature is wrong": "15"}  # long enough to see the fault before it fixes itself
BETWEEN: dict[str, Callable[[Place, ExitStack], None]] = {
    "Vault is a standby": _a_node,
    "Vault answers too late": _a_proxy,
}
FAULTS: dict[str, Callable[[Place], None]] = {
    "Vault can't be reached": lambda place: place.bao.stop(),
    "Vault is sealed": lambda place: place.bao.seal(),
    "Vault is a standby": _is_a_standby,
    "Vault answers too late": _slow,
    "Vault limits the rate": _limited,
    "Vault denies the permission": _may_not_sign,
    "Vault refuses the login": _credential_gone,
    "The token can't be renewed": Place.destroy_secret_id,
    "The transit key is missing": _key_gone,
    "A signature is wrong": _another_key,
    "The keys are stale": _may_not_read,
}
FIXED_BY_OTHERS: dict[str, Callable[[Place], None]] = {
    "Vault can't be reached": lambda place: place.bao.start(),
    "Vault is sealed": lambda place: place.bao.unseal(),
    "Vault is a standby": _is_active,
    "Vault answers too late": _fast,
}


@pytest.fixture
def place(tmp_path: Path, procedure: str) -> Iterator[Place]:
    with ExitStack() as stack:
        yield Place(tmp_path, procedure, stack)


@pytest.fixture
def reader(place: Place) -> Iterator[Terminal]:
    own = {"VAULT_TOKEN": place.bao.root_token, **place.env}
    terminal = Terminal(place.directory, vault_environment(place.directory, **own))
    yield terminal
    terminal.close()


@pytest.mark.parametrize("procedure", PROCEDURES)
def test_a_procedure_ends_the_fault_that_it_is_for(procedure: str, place: Place, reader: Terminal) -> None:
    """Every command, in order, prints what the page shows; the reason is there before, and gone after."""
    with Service(place.directory, clean_environment(place.env)) as service:
        (place.directory / "service.log").symlink_to(service.log_path)
        wait_until(lambda: readiness(service) == "ready", within=READY_SECONDS, what="ready before")
        FAULTS[procedure](place)
        if reasons := reasons_of(procedure):
            wait_until(lambda: readiness(service) in reasons, within=READY_SECONDS, what=f"one of {reasons}")
        first = [ASK] if reasons else []
        *before, last = [*first, *steps(section(RUNBOOK, procedure)), ASK_AGAIN]
        for written, shown in before:
            _take(reader, written.replace("localhost:3200", f"localhost:{service.port}"), shown)
        if procedure in FIXED_BY_OTHERS:
            FIXED_BY_OTHERS[procedure](place)
        _take(reader, last[0].replace("localhost:3200", f"localhost:{service.port}"), last[1])
        assert service.mint()["token"]


def reasons_of(procedure: str) -> set[str]:
    """The reasons from which the runbook leads to a procedure; none if the service is still ready."""
    [what] = [row[0] for row in rows(section(RUNBOOK, DISPATCH)) if row[1].startswith(f"[{procedure}]")]
    return set() if what.startswith("ready") else set(plain(what).split(", "))


def test_each_reason_leads_to_its_procedure() -> None:
    """Each procedure of Vault is in the table of reasons, and they stand at the end, in order."""
    assert [name for name in PROCEDURES if not reasons_of(name)] == ["The token can't be renewed"]
    assert list(FAULTS) == list(PROCEDURES)
    headings = re.findall(r"^## (.*)$", RUNBOOK, re.MULTILINE)
    assert headings[-len(PROCEDURES) :] == list(PROCEDURES)
