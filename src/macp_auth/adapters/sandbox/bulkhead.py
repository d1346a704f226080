"""Limits concurrent signatures, so that a hanging signer does not collect calls without bound."""

from __future__ import annotations

import asyncio

from macp_auth.domain.errors import SignerUnavailable


class SignerBusy(SignerUnavailable):
    """The limit of concurrent calls is reached. This says nothing about the backend."""

    default_reason = "busy"


class Bulkhead:
    """Gives calls their turn: so many at once. Others wait, up to a limit.

    Args:
        name: the signer's name in messages.
        concurrent: how many calls have a turn at once.
        pending: how many have a turn or wait for one; the next is refused at once.
    """

    def __init__(self, name: str, *, concurrent: int, pending: int) -> None:
        self._name = name
        self._turns = asyncio.Semaphore(concurrent)
        self._limit = pending
        self.pending = 0
        """Calls that have a turn or wait for one."""

    async def take_turn(self, seconds: float) -> None:
        """Wait for a turn.

        Raises:
            SignerBusy: too many calls wait, or there was no turn within so many seconds.
        """
        if self.pending >= self._limit:
            raise SignerBusy(f"the signer {self._name!r} is busy: {self._limit} concurrent signatures")
        self.pending += 1
        try:
            if self._turns.locked():
                async with asyncio.timeout(seconds):
                    await self._turns.acquire()
            else:  # at once; a timeout would take a fifth of a call
                await self._turns.acquire()
        except TimeoutError:
            self.pending -= 1
            raise SignerBusy(f"the signer {self._name!r} is busy: no turn within {seconds:g} s") from None
        except asyncio.CancelledError:
            self.pending -= 1
            raise

    def end_turn(self) -> None:
        """Let the next call have its turn."""
        self.pending -= 1
        self._turns.release()
