"""A SPIRE server and agent of one trust domain, in a folder of their own."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

from tools.support.bounded import HANG_SECONDS
from tools.support.service import free_port, wait_until
from tools.support.tls import Pair

AGENT_ID = "spiffe://{domain}/agent"
START_SECONDS = 60

_SERVER = """
server {{
  bind_address = "127.0.0.1"
  bind_port = {port}
  socket_path = "{folder}/server.sock"
  trust_domain = "{domain}"
  data_dir = "{folder}"
  log_level = "WARN"
  ca_ttl = "{ca_ttl}s"
  default_x509_svid_ttl = "{svid_ttl}s"
  default_jwt_svid_ttl = "{svid_ttl}s"
  jwt_issuer = "{issuer}"
}}
plugins {{
  DataStore "sql" {{
    plugin_data {{
      database_type = "sqlite3"
      connection_string = "{folder}/datastore.sqlite3"
    }}
  }}
  NodeAttestor "join_token" {{ plugin_data {{}} }}
  KeyManager "memory" {{ plugin_data {{}} }}
}}
"""
_AGENT = """
agent {{
  data_dir = "{folder}/agent"
  log_level = "WARN"
  server_address = "127.0.0.1"
  server_port = {port}
  socket_path = "{folder}/agent.sock"
  trust_domain = "{domain}"
  insecure_bootstrap = true
}}
plugins {{
  NodeAttestor "join_token" {{ plugin_data {{}} }}
  KeyManager "memory" {{ plugin_data {{}} }}
  WorkloadAttestor "unix" {{ plugin_data {{}} }}
}}
"""


class Programs(Struct, frozen=True):
    """The two programs of SPIRE."""

    server: Path
    agent: Path


class TrustDomain(Struct, frozen=True):
    """A running SPIRE server and agent."""

    name: str
    issuer: str
    """The ``iss`` claim of its JWT-SVIDs."""
    folder: Path
    programs: Programs

    def register(self, spiffe_id: str) -> None:
        """Let processes of this user have ``spiffe_id``, and wait until the agent knows it."""
        parent = AGENT_ID.format(domain=self.name)
        entry = ["-parentID", parent, "-spiffeID", spiffe_id, "-selector", f"unix:uid:{os.getuid()}"]
        self._server("entry", "create", *entry)
        wait_until(lambda: _succeeds(self.x509_svid), within=START_SECONDS, what="the agent has an SVID")

    def x509_svid(self) -> Pair:
        """Fetch an X509-SVID from the agent."""
        target = self.folder / "svid"
        target.mkdir(exist_ok=True)
        self._agent("fetch", "x509", "-write", str(target))
        return Pair(target / "svid.0.pem", target / "svid.0.key")

    def jwt_svid(self, audience: str) -> str:
        """Fetch a JWT-SVID from the agent."""
        answer = json.loads(self._agent("fetch", "jwt", "-audience", audience, "-output", "json"))
        token: str = answer[0]["svids"][0]["svid"]
        return token

    def join_token(self) -> str:
        """Return a new token with which an agent joins, once."""
        agent_id = AGENT_ID.format(domain=self.name)
        made = self._server("token", "generate", "-spiffeID", agent_id, "-output", "json")
        token: str = json.loads(made)["value"]
        return token

    def agent_health(self) -> str:
        """Ask the agent whether it is healthy."""
        return _output(self.programs.agent, "healthcheck", "-socketPath", f"{self.folder}/agent.sock")

    def authorities(self) -> str:
        """Return the X.509 authorities, in PEM."""
        return self._server("bundle", "show")

    def jwks(self) -> str:
        """Return the trust bundle as a JWK Set."""
        return self._server("bundle", "show", "-format", "spiffe")

    def _server(self, *arguments: str) -> str:
        return _output(self.programs.server, *arguments, "-socketPath", f"{self.folder}/server.sock")

    def _agent(self, *arguments: str) -> str:
        return _output(self.programs.agent, "api", *arguments, "-socketPath", f"{self.folder}/agent.sock")


class Lifetimes(Struct, frozen=True):
    """In seconds. Each is replaced at half of it."""

    svid: int
    authority: int


@contextmanager
def running(
    programs: Programs, folder: Path, name: str, issuer: str, lifetimes: Lifetimes
) -> Iterator[TrustDomain]:
    """Run a server and an agent; they are gone afterwards, whatever happened.

    Args:
        programs: the two programs.
        folder: for their files; its path must be short, because it holds sockets.
        name: of the trust domain.
        issuer: the ``iss`` claim of its JWT-SVIDs.
        lifetimes: of its SVIDs and authorities.
    """
    port = free_port()
    values = {
        "folder": folder,
        "port": port,
        "domain": name,
        "issuer": issuer,
        "svid_ttl": lifetimes.svid,
        "ca_ttl": lifetimes.authority,
    }
    (folder / "agent").mkdir(parents=True)
    (folder / "server.conf").write_text(_SERVER.format(**values))
    (folder / "agent.conf").write_text(_AGENT.format(**values))
    domain = TrustDomain(name, issuer, folder, programs)
    with _process(folder / "server.log", programs.server, "run", "-config", folder / "server.conf"):
        wait_until(lambda: _succeeds(domain.authorities), within=START_SECONDS, what="the server answers")
        agent: list[str | Path] = ["run", "-config", folder / "agent.conf", "-joinToken", domain.join_token()]
        with _process(folder / "agent.log", programs.agent, *agent):
            wait_until(lambda: _succeeds(domain.agent_health), within=START_SECONDS, what="the agent answers")
            yield domain


def _succeeds(ask: Callable[[], object]) -> bool:
    try:
        ask()
    except subprocess.CalledProcessError:
        return False
    return True


def _output(program: Path, *arguments: str | Path) -> str:
    return subprocess.run(
        [program, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=HANG_SECONDS, check=True,
    ).stdout  # fmt: skip


@contextmanager
def _process(log_path: Path, *command: str | Path) -> Iterator[None]:
    with log_path.open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
