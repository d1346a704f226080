"""What was recorded of the real runtime is what it does: our pages and ``macp-auth verify`` rest on it."""

from __future__ import annotations

import functools
import json
import time
from pathlib import Path

import pytest
from macp_sdk import AuthConfig, MacpClient

from tests.support.fake_server import FakeServer, Reply
from tools.macp_runtime import behaviour, keys
from tools.macp_runtime.__main__ import RECORDED as VERDICTS
from tools.macp_runtime.behaviour import QUESTIONS
from tools.macp_runtime.cases import Case, all_cases
from tools.support.macp_runtime import VERSION, MacpRuntime, outcome, verifying

pytestmark = pytest.mark.slow  # services of their own

RECORD = json.loads(behaviour.RECORDED.read_bytes())
BEHAVIOUR = RECORD["answers"]
UNRELATED = json.dumps({"keys": [keys.public("rsa-2048-257")]}).encode()


def test_all_questions_are_recorded() -> None:
    """And no others, of the version that the tests start."""
    assert BEHAVIOUR.keys() == QUESTIONS.keys()
    assert RECORD["asked"].startswith(f"macp-runtime {VERSION}, ")
    assert f"of macp-runtime {VERSION}" in json.loads(VERDICTS.read_bytes())["asked"]


@pytest.mark.parametrize("name", QUESTIONS)
def test_behaviour(name: str, tmp_path: Path) -> None:
    """The runtime answers as on the day of the record."""
    assert QUESTIONS[name](tmp_path) == BEHAVIOUR[name]


def test_verdicts(tmp_path: Path) -> None:
    """Of the resolver alone; here the whole runtime fetches each case's keys and gets its token in a call."""
    recorded = {row["id"]: "accepted" in row for row in json.loads(VERDICTS.read_bytes())["cases"]}
    published = UNRELATED
    with (
        FakeServer(lambda _: Reply(200, published)) as server,
        MacpRuntime(tmp_path, verifying(server.url, cache_ttl=0)) as runtime,
        runtime.client("a.b") as client,
    ):
        accepted = {}
        for case in all_cases():
            document = case.document().encode()
            if document != published:
                # Where the keys of the case can't be read, the runtime goes on with these.
                published = UNRELATED
                assert outcome(client.list_sessions) == "status UNAUTHENTICATED"
                published = document
            accepted[case.id] = _accepts(client, case)
    assert accepted == recorded


def _accepts(client: MacpClient, case: Case) -> bool:
    """Within one second: some cases are about the last one in which a token is good."""
    while True:
        now = int(time.time())
        token = case.token(now)
        if not (token.isascii() and token.isprintable()):
            return False  # gRPC's metadata can't carry it
        answer = outcome(functools.partial(client.list_sessions, auth=AuthConfig.for_bearer(token)))
        assert answer in {"accepted", "status UNAUTHENTICATED"}, case.id
        if int(time.time()) == now:
            return answer == "accepted"
