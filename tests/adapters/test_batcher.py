"""The batcher: what shares a call, what bounds it, and that each request hears of its own outcome."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from macp_auth.adapters.signers.vault_transit.signer import Batcher, Limits
from macp_auth.adapters.signers.vault_transit.transit import Outcome
from macp_auth.domain.errors import SignerUnavailable, UnknownKid
from macp_auth.domain.statistics import Distribution
from tools.support.bounded import bounded


class Backend:
    """Answers a batch on request; each answer is the request in upper case."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.batches: list[tuple[str, list[bytes]]] = []
        self.gates: list[asyncio.Future[None]] = []
        self.batcher = Batcher(self._call, limits or Limits(batch=3, calls=1, requests=100))

    async def _call(self, key: str, contents: Sequence[bytes]) -> Sequence[Outcome]:
        self.batches.append((key, list(contents)))
        gate = asyncio.get_running_loop().create_future()
        self.gates.append(gate)
        await gate
        return [UnknownKid("x") if content == b"bad" else content.upper() for content in contents]

    def submit(self, *contents: bytes, key: str = "k") -> list[asyncio.Task[bytes]]:
        return [asyncio.create_task(self.batcher.submit(key, content)) for content in contents]

    async def begun(self, calls: int) -> None:
        """Wait until so many calls are in flight."""
        while len(self.gates) < calls:  # noqa: ASYNC110 - the batcher has no event to tell
            await asyncio.sleep(0)

    async def answer(self) -> None:
        """Let the oldest call that has begun end."""
        await self.begun(1)
        self.gates.pop(0).set_result(None)


@bounded
async def test_a_lone_request_goes_at_once() -> None:
    """Nothing is waited for that might share the call."""
    backend = Backend()
    [request] = backend.submit(b"a")
    await backend.answer()
    assert await request == b"A"
    assert backend.batches == [("k", [b"a"])]


@bounded
async def test_what_arrives_together_shares_the_first_call() -> None:
    """The first of them does not take it for itself alone."""
    backend = Backend()
    requests = backend.submit(b"a", b"b", b"c")
    await backend.answer()
    assert await asyncio.gather(*requests) == [b"A", b"B", b"C"]
    assert backend.batches == [("k", [b"a", b"b", b"c"])]


@bounded
async def test_what_arrives_during_a_call_forms_the_next_one() -> None:
    """Up to the bound of a batch, in the order of arrival."""
    backend = Backend()
    first = backend.submit(b"a")
    await asyncio.sleep(0)
    rest = backend.submit(b"b", b"c", b"d", b"e")
    for _ in range(3):
        await backend.answer()
    assert await asyncio.gather(*first, *rest) == [b"A", b"B", b"C", b"D", b"E"]
    assert backend.batches == [("k", [b"a"]), ("k", [b"b", b"c", b"d"]), ("k", [b"e"])]


@bounded
async def test_no_more_calls_than_the_bound() -> None:
    """The third request waits although it could go alone."""
    backend = Backend(Limits(batch=1, calls=2, requests=100))
    requests = backend.submit(b"a", b"b", b"c")
    await backend.begun(2)
    assert len(backend.batches) == 2
    for _ in range(3):
        await backend.answer()
    assert await asyncio.gather(*requests) == [b"A", b"B", b"C"]


@bounded
async def test_a_batch_is_for_one_key() -> None:
    """Transit takes one version a call; requests for the old one go first."""
    backend = Backend()
    blocker = backend.submit(b"x")
    await asyncio.sleep(0)
    requests = [*backend.submit(b"a"), *backend.submit(b"b", key="new"), *backend.submit(b"c")]
    for _ in range(3):
        await backend.answer()
    assert await asyncio.gather(*blocker, *requests) == [b"X", b"A", b"B", b"C"]
    assert backend.batches[1:] == [("k", [b"a", b"c"]), ("new", [b"b"])]


@bounded
async def test_one_bad_item_fails_alone() -> None:
    """Its neighbours in the batch get their answers."""
    backend = Backend()
    blocker = backend.submit(b"x")
    await asyncio.sleep(0)
    good, bad, other = backend.submit(b"a", b"bad", b"c")
    await backend.answer()
    await backend.answer()
    assert [await blocker[0], await good, await other] == [b"X", b"A", b"C"]
    with pytest.raises(UnknownKid):
        await bad


@pytest.mark.parametrize("outcomes", [ConnectionError("down"), [b"one too few"]])
def test_a_call_that_fails_is_the_outcome_of_all(outcomes: Any) -> None:
    """No request waits for ever, even if the answers don't match the requests."""

    @bounded
    async def test() -> None:
        async def call(_key: str, _contents: Sequence[bytes]) -> Sequence[Outcome]:
            await asyncio.sleep(0)
            if isinstance(outcomes, Exception):
                raise outcomes
            return list(outcomes)

        batcher = Batcher(call, Limits(batch=3, calls=1, requests=10))
        first = asyncio.create_task(batcher.submit("k", b"a"))
        await asyncio.sleep(0)
        answers = await asyncio.gather(
            first, batcher.submit("k", b"b"), batcher.submit("k", b"c"), return_exceptions=True
        )
        assert [type(answer) for answer in answers[1:]] == [
            type(outcomes) if isinstance(outcomes, Exception) else ValueError
        ] * 2

    test()


@bounded
async def test_too_many_requests_are_turned_away_at_once() -> None:
    """And let in again when some have their answers."""
    backend = Backend(Limits(batch=3, calls=1, requests=2))
    requests = backend.submit(b"a", b"b")
    await asyncio.sleep(0)
    with pytest.raises(SignerUnavailable) as refusal:
        await backend.batcher.submit("k", b"c")
    assert refusal.value.reason == "overloaded"
    await backend.answer()
    await asyncio.gather(*requests)
    [later] = backend.submit(b"d")
    await backend.answer()
    assert await later == b"D"


@bounded
async def test_a_cancelled_request_is_left_out() -> None:
    """One whose caller has gone is not signed; one in flight does no harm."""
    backend = Backend()
    under_way = backend.submit(b"a")[0]
    await asyncio.sleep(0)
    gone, kept = backend.submit(b"b", b"c")
    await asyncio.sleep(0)
    under_way.cancel()
    gone.cancel()
    await backend.answer()
    await backend.answer()
    assert await kept == b"C"
    assert backend.batches == [("k", [b"a"]), ("k", [b"c"])]


@bounded
async def test_close_ends_what_is_under_way() -> None:
    """Those who wait hear of it, nothing new begins, and no task is left."""
    backend = Backend()
    requests = backend.submit(b"a")
    await backend.begun(1)
    requests += backend.submit(b"b")
    await asyncio.sleep(0)
    await backend.batcher.aclose()
    for request in requests:
        with pytest.raises(SignerUnavailable, match="closed"):
            await request
    assert backend.batches == [("k", [b"a"])]


@bounded
async def test_close_before_a_call_has_begun() -> None:
    """Its requests hear of it as well."""
    backend = Backend()
    [request] = backend.submit(b"a")
    await asyncio.sleep(0)
    await backend.batcher.aclose()
    with pytest.raises(SignerUnavailable, match="closed"):
        await request
    assert backend.batches == []
    assert asyncio.all_tasks() == {asyncio.current_task()}


@bounded
async def test_the_sizes_of_calls_are_reported() -> None:
    """One alone, then all that waited; and how many are in flight and unanswered."""
    backend = Backend()
    tasks = backend.submit(b"a")
    await backend.begun(1)
    tasks += backend.submit(b"b", b"c")
    await asyncio.sleep(0)
    statistics = backend.batcher.statistics()
    assert (statistics["calls_in_flight"], statistics["requests_waiting"]) == (1, 3)
    await backend.answer()
    await backend.answer()
    await asyncio.gather(*tasks)
    statistics = backend.batcher.statistics()
    sizes = statistics["batch_size"]
    assert isinstance(sizes, Distribution)
    assert dict(zip(sizes.bounds, sizes.counts, strict=False)) == {1: 1, 2: 1, 4: 0, 8: 0, 16: 0, 32: 0}
    assert sizes.total == 3
    assert (statistics["calls_in_flight"], statistics["requests_waiting"]) == (0, 0)
