"""What tokens of each scope preset may do at the real runtime, and what not."""

from __future__ import annotations

import queue
import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from macp.v1 import core_pb2
from macp_sdk import DecisionSession, MacpClient, TaskSession, build_decision_policy
from msgspec import Struct

from macp_auth.domain.presets import PRESETS
from tools.support.bounded import HANG_SECONDS
from tools.support.macp_runtime import MacpRuntime, outcome
from tools.support.service import Service

DECISION = "macp.mode.decision.v1"
YES, NACK, DENIED = "accepted", "Ack FORBIDDEN", "status PERMISSION_DENIED"
OTHER = "agent://other"


class Agents:
    """Agents whose tokens have the scopes of a preset."""

    def __init__(self, service: Service, runtime: MacpRuntime, stack: ExitStack) -> None:
        self._service = service
        self._runtime = runtime
        self._stack = stack

    def new(self, preset: str) -> Agent:
        """One that no other test has: the runtime counts open sessions by sender."""
        sender = f"agent://{preset}-{uuid.uuid4().hex[:8]}"
        scopes = PRESETS[preset].scopes_for([DECISION])
        token = self._service.mint(sender=sender, scopes=scopes)["token"]
        return Agent(sender, self._stack.enter_context(self._runtime.client(token)))


class Agent:
    def __init__(self, sender: str, client: MacpClient) -> None:
        self.sender = sender
        self.client = client

    def start(self, *participants: str) -> DecisionSession:
        session = DecisionSession(self.client)
        session.start(
            intent="try", participants=[self.sender, *participants], ttl_ms=60_000, sender=self.sender
        )
        return session

    def start_in_another_mode(self) -> None:
        session = TaskSession(self.client)
        session.start(intent="try", participants=[self.sender, OTHER], ttl_ms=60_000, sender=self.sender)

    def propose(self, session_id: str) -> None:
        """A message in a session of the token's mode."""
        DecisionSession(self.client, session_id=session_id).propose(
            uuid.uuid4().hex, "option", sender=self.sender
        )

    def signal(self) -> None:
        """An ambient message."""
        self.client.send_signal(signal_type="try", data=b"x", correlation_session_id="x", sender=self.sender)

    def progress(self) -> None:
        """The other ambient message."""
        self.client.send_progress(progress_token="t", progress=1, total=2, sender=self.sender)

    def history(self, session_id: str) -> str:
        """What a stream says that asks for the history of a session."""
        answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        stream = self.client.open_stream()
        stream.on_inline_error(lambda error: answers.put(error.code))
        stream.send_subscribe(session_id)
        reading = threading.Thread(target=lambda: answers.put(outcome(lambda: stream.read(HANG_SECONDS))))
        reading.start()
        try:
            return answers.get(timeout=HANG_SECONDS)
        finally:
            stream.cancel()
            reading.join()

    def register_policy(self) -> None:
        policy = build_decision_policy(f"policy-{uuid.uuid4().hex[:8]}", "try")
        assert self.client.register_policy(policy).ok
        assert self.client.unregister_policy(policy.policy_id).ok

    def register_mode(self) -> None:
        mode = f"ext.try-{uuid.uuid4().hex[:8]}.v1"
        descriptor = core_pb2.ModeDescriptor(
            mode=mode,
            mode_version="1.0.0",
            message_types=["SessionStart", "Commitment"],
            terminal_message_types=["Commitment"],
        )
        assert self.client.register_ext_mode(descriptor).ok
        assert mode in {each.mode for each in self.client.list_ext_modes().modes}
        assert self.client.unregister_ext_mode(mode).ok


@pytest.fixture
def agents(service: Service, runtime: MacpRuntime) -> Iterator[Agents]:
    with ExitStack() as stack:
        yield Agents(service, runtime, stack)


class May(Struct, frozen=True):
    """What the runtime answers to each."""

    start: str = NACK
    send: str = NACK
    """In a session that it takes part in, and ambient."""
    look_in: str = DENIED
    """At a session that it takes no part in."""
    register: str = DENIED


MAY = {
    "initiator": May(start=YES, send=YES),
    "participant": May(send=YES),
    "observer": May(look_in=YES),
    "registrar": May(register=YES),
}


def test_all_presets_are_tried() -> None:
    """A new one needs a line above."""
    assert MAY.keys() == PRESETS.keys()


@pytest.mark.parametrize("preset", MAY)
def test_preset(agents: Agents, preset: str) -> None:
    """It can do what its summary says, and nothing else."""
    agent, may = agents.new(preset), MAY[preset]
    assert outcome(agent.start) == may.start
    assert outcome(agent.start_in_another_mode) == NACK
    with_agent = agents.new("initiator").start(agent.sender).session_id
    assert outcome(lambda: agent.propose(with_agent)) == may.send
    assert outcome(agent.signal) == may.send
    assert outcome(agent.progress) == may.send
    without_agent = agents.new("initiator").start(OTHER).session_id
    assert outcome(lambda: agent.client.get_session(without_agent)) == may.look_in
    assert agent.history(without_agent) == (YES if may.look_in == YES else "FORBIDDEN")
    assert outcome(agent.register_mode) == may.register
    assert outcome(agent.register_policy) == may.register


def test_an_initiator_has_four_sessions_open(agents: Agents) -> None:
    """And a fifth when one has ended."""
    initiator = agents.new("initiator")
    sessions = [initiator.start() for _ in range(4)]
    assert outcome(initiator.start) == "Ack RATE_LIMITED"
    sessions[0].cancel()
    assert outcome(initiator.start) == YES


@pytest.mark.parametrize("preset", MAY)
def test_every_token_lists_all_sessions(agents: Agents, preset: str) -> None:
    """No scope is about the list: it names sessions, their modes and participants."""
    session = agents.new("initiator").start(OTHER)
    listed = agents.new(preset).client.list_sessions()
    assert session.session_id in {each.session_id for each in listed}
