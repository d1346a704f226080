"""clients/python/README.md says what the code does, and its code works as it stands there."""

from __future__ import annotations

import asyncio
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
from macp_sdk import DecisionSession, MacpClient
from macp_sdk.agent import from_bootstrap
from macp_sdk.errors import MacpAckError

import macp_auth_client
from macp_auth_client import AsyncTokenSource, MintError, TokenSource, schedule
from tests.client.support import SCOPES
from tests.docs.pages import Block, blocks, plain, read, rows, section
from tools.support.callers import claims_of
from tools.support.macp_runtime import MacpRuntime, verifying
from tools.support.service import Service

PAGE = read("clients/python/README.md")
TEXT = " ".join(PAGE.split())


def _python(title: str) -> list[str]:
    return [block.text for block in blocks(section(PAGE, title)) if block.language == "python"]


def _here(code: str, service: Service, **replacements: str) -> str:
    """The code with our addresses and paths in the place of those of the page."""
    code = code.replace("https://auth.example.com", service.url)
    code = re.sub(r'\n    (bearer_file|cacert)=".*",', "", code)
    for old, new in replacements.items():
        code = code.replace(old, new)
    return code


def test_the_table_lists_every_argument() -> None:
    """With its default, in the order of the signature, which both kinds share."""
    for kind in (TokenSource, AsyncTokenSource):
        parameters = inspect.signature(kind).parameters
        listed = rows(section(PAGE, "Arguments"))
        assert [plain(row[0]) for row in listed] == list(parameters)
        for name, _, default in listed:
            found = parameters[plain(name)].default
            if found is inspect.Parameter.empty:
                assert default == "required"
            elif default.startswith("`"):
                assert plain(default) == str(found)
            else:
                assert found is None


def test_the_table_lists_every_error() -> None:
    """And whether it is retried."""
    kinds = {
        name: kind
        for name in macp_auth_client.__all__
        if inspect.isclass(kind := getattr(macp_auth_client, name))
        and issubclass(kind, MintError)
        and kind is not MintError
    }
    listed = {plain(row[0]): row[1] for row in rows(section(PAGE, "Errors"))}
    assert listed == {name: str(kind.retryable).lower() for name, kind in kinds.items()}


@pytest.mark.parametrize(
    "said",
    [
        f"in its last {schedule._MAX_MARGIN_SECONDS:.0f} seconds",
        f"at most {schedule._MAX_RETRY_AFTER_SECONDS:.0f} s)",
        f"after {schedule._FIRST_RETRY_SECONDS} s, then",
        f"up to {schedule._MAX_RETRY_SECONDS:.0f} s;",
        f"under {schedule._MAX_MARGIN_SECONDS / schedule._MARGIN_SHARE:.0f} s)",
    ],
)
def test_numbers_are_the_code_s(said: str) -> None:
    """Those of the schedule."""
    assert said in TEXT


def test_the_first_example_mints(service: Service) -> None:
    """With threads, and with asyncio."""
    sync, asynchronous = _python("Use")
    names: dict[str, Any] = {}
    exec(_here(sync, service), names)  # noqa: S102 - our own page
    assert claims_of(names["token"])["macp_scopes"] == SCOPES
    kind = (
        _here(sync, service).replace("TokenSource", "AsyncTokenSource").replace("token = source.token()", "")
    )
    body = "".join(f"    {line}\n" for line in f"{kind}\n{asynchronous}".splitlines())
    exec(f"async def example():\n{body}    return token", names)  # noqa: S102 - our own page
    assert claims_of(asyncio.run(names["example"]()))["sub"] == "risk-agent"


def test_the_httpx_example_sends_the_token(service: Service) -> None:
    """The service's own address is as good as another for it."""
    (code,) = _python("httpx")
    code = code.replace("https://api.example.com/sessions", f"{service.url}/healthz")
    names: dict[str, Any] = {"source": TokenSource(service.url, "risk-agent", SCOPES)}
    exec(code, names)  # noqa: S102 - our own page


@pytest.fixture
def own_runtime(service: Service, tmp_path: Path) -> Any:
    with MacpRuntime(tmp_path, verifying(f"{service.url}/.well-known/jwks.json")) as running:
        yield running


def test_an_agent_that_requests_its_own_tokens(service: Service, own_runtime: MacpRuntime) -> None:
    """Its calls carry a live token, and one that the runtime refuses is replaced."""
    definitions, use = _python("An agent that requests its own tokens")
    names: dict[str, Any] = {"source": TokenSource(service.url, "risk-agent", SCOPES)}
    exec(definitions, names)  # noqa: S102 - our own page
    target = f'target="{own_runtime.target}", allow_insecure=True'
    exec(use.replace('target="runtime.example.com:50051"', target), names)  # noqa: S102 - our own page
    assert names["sessions"] == []
    client, source, authenticated = names["client"], names["source"], names["authenticated"]
    assert isinstance(client, MacpClient)

    def signal() -> str:
        client.send_signal(signal_type="try", data=b"x", correlation_session_id="x", sender="risk-agent")
        return "accepted"

    with client:
        for call, answer in ((client.list_sessions, []), (signal, "accepted")):
            old = source.token()
            source._schedule._token = schedule.Token("x" + old, 600, source._clock())
            assert authenticated(source, call) == answer
            assert source.token() not in {old, "x" + old}
        session, token = DecisionSession(client), source.token()
        with pytest.raises(MacpAckError, match="FORBIDDEN"):
            authenticated(source, lambda: session.start(intent="try", participants=["a"], ttl_ms=60_000))
        assert source.token() == token, "it was not the token"


def test_an_orchestrator_that_starts_agents(
    service: Service, own_runtime: MacpRuntime, tmp_path: Path
) -> None:
    """The SDK reads the file, and starts its session at the runtime."""
    (code,) = _python("An orchestrator that starts agents")
    path = tmp_path / "risk-agent.json"
    code = code.replace("https://auth.example.com", service.url)
    code = code.replace("/run/agents/risk-agent.json", str(path))
    code = code.replace('runtime_url="runtime.example.com:50051"', f'runtime_url="{own_runtime.target}"')
    code = code.replace(
        "    participants=", "    secure=False, allow_insecure=True, **more,\n    participants="
    )
    start = {"intent": "try", "participants": ["risk-agent", "fraud-agent"], "ttl_ms": 60_000}
    names: dict[str, Any] = {
        "scopes": SCOPES | {"can_start_sessions": True, "max_open_sessions": 1},
        "more": {"initiator": {"session_start": start}},
    }
    exec(code, names)  # noqa: S102 - our own page
    participant = from_bootstrap(str(path))
    participant._emit_initiator_envelopes()
    session = participant.actions.get_session()
    assert session.metadata.session_id == participant.session_id
    participant._client.close()


def test_blocks_are_of_python_or_of_the_shell() -> None:
    """So that these tests see each."""
    assert {block.language for block in blocks(PAGE)} == {"sh", "python"}
    assert sum(isinstance(block, Block) and block.language == "python" for block in blocks(PAGE)) == 6
