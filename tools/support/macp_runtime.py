"""The real MACP runtime: where it is, a running one, and what a caller sees of it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import grpc
from macp_sdk import AuthConfig, MacpClient
from macp_sdk.errors import MacpAckError, MacpTransportError

from tools.support.bounded import HANG_SECONDS
from tools.support.programs import ProgramMissing, missing
from tools.support.repository import user_cache
from tools.support.service import free_port, wait_until

VERSION = "0.13.0"


def build_folder() -> Path:
    """Where ``make runtime`` installs it: outside of the working tree, so that fresh clones share it."""
    return user_cache() / f"macp-runtime-{VERSION}"


def runtime_program() -> Path:
    """The program: ``MACP_RUNTIME_BIN``, or what ``make runtime`` built.

    Raises:
        ProgramMissing: it is not there. In CI that is an AssertionError, unless it can't be built there.
    """
    program = Path(os.environ.get("MACP_RUNTIME_BIN") or build_folder() / "bin" / "macp-runtime")
    if not program.is_file():
        reason = (
            f"{program} is missing; run: make runtime (needs cargo, and Debian's package protobuf-compiler)"
        )
        if shutil.which("cargo") is None or "MACP_RUNTIME_BUILD_FAILED" in os.environ:
            raise ProgramMissing(reason)
        missing(reason)
    return program


def verifying(
    jwks_url: str,
    *,
    issuer: str = "macp-auth-service",
    audience: str = "macp-runtime",
    cache_ttl: int = 1,
) -> dict[str, str]:
    """Variables of a runtime that verifies with the keys at ``jwks_url``, and keeps them ``cache_ttl`` s."""
    return {
        "MACP_AUTH_ISSUER": issuer,
        "MACP_AUTH_AUDIENCE": audience,
        "MACP_AUTH_JWKS_URL": jwks_url,
        "MACP_AUTH_JWKS_TTL_SECS": str(cache_ttl),
    }


class MacpRuntime:
    """A running runtime, in memory and without TLS. Use as a context manager.

    Args:
        directory: where its log goes.
        env: its variables, as from :func:`verifying`. Unless they say otherwise it has no TLS and hardly any
            rate limit.
    """

    def __init__(self, directory: Path, env: Mapping[str, str]) -> None:
        port = free_port()
        self.target = f"127.0.0.1:{port}"
        """What an SDK's client connects to."""
        self.log_path = directory / f"runtime-{port}.log"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("MACP_")}
        ours = {
            "MACP_BIND_ADDR": self.target,
            "MACP_MEMORY_ONLY": "1",
            "MACP_ALLOW_INSECURE": "1",
            "MACP_SESSION_START_LIMIT_PER_MINUTE": "1000000",
            "MACP_MESSAGE_LIMIT_PER_MINUTE": "1000000",
            "MACP_SHUTDOWN_DRAIN_SECS": "0",  # by default 10, for open streams
        }
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [runtime_program()],
                env=inherited | ours | dict(env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=directory,
                start_new_session=True,  # Ctrl-C is for the tool that started it, which then ends it
            )

    def __enter__(self) -> Self:
        try:
            wait_until(self._answers, within=HANG_SECONDS, what="the runtime answers")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def client(self, token: str) -> MacpClient:
        """A client with this token. Close it, or use it as a context manager."""
        auth = AuthConfig.for_bearer(token)
        return MacpClient(target=self.target, allow_insecure=True, auth=auth, default_timeout=HANG_SECONDS)

    def answer_to(self, token: str) -> str:
        """What a caller with this token sees, by a call that only authenticates."""
        with self.client(token) as client:
            return outcome(client.list_sessions)

    def _answers(self) -> bool:
        if self.process.poll() is not None:
            raise RuntimeError(f"the runtime exited with {self.process.returncode}:\n{self.log}")
        with self.client("none") as client:  # Initialize does not authenticate
            return outcome(client.initialize) == "accepted"


def outcome(call: Callable[[], Any]) -> str:
    """``accepted``, ``Ack <code>`` or ``status <code>``: what a caller of the runtime sees."""
    try:
        call()
    except (MacpAckError, MacpTransportError, grpc.RpcError) as refused:
        # The SDK makes the same error of an Ack that refuses and of a call that is refused.
        call_refused = refused if isinstance(refused, grpc.RpcError) else refused.__cause__
        if isinstance(call_refused, grpc.RpcError):
            return f"status {call_refused.code().name}"
        return (
            f"Ack {refused.failure.code}" if isinstance(refused, MacpAckError) else f"status {refused.code}"
        )
    return "accepted"
