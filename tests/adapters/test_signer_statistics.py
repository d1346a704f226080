"""A signer's numbers on their way out: through the rules of the sandbox, which add their own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from macp_auth.adapters import jose
from macp_auth.adapters.sandbox.circuit import CircuitBreaker
from macp_auth.adapters.sandbox.translation import TranslatingSigner
from macp_auth.adapters.signers.local import LocalKey, LocalSigner
from macp_auth.adapters.verifying import VerifyingSigner
from macp_auth.domain.errors import SignerUnavailable
from macp_auth.domain.keys import Algorithm, KeyVersion
from macp_auth.domain.signer import Signer

KEY = LocalKey.signing("k1", jose.generate(Algorithm.ES256))


class Telling(Signer):
    """Tells what the test says."""

    def __init__(self, reported: Any = None, raising: BaseException | None = None) -> None:
        self._reported = reported
        self._raising = raising
        self._honest = LocalSigner([KEY])

    async def key_versions(self) -> Sequence[KeyVersion]:
        return await self._honest.key_versions()

    async def sign(self, _kid: str, _signing_input: bytes) -> bytes:
        raise SignerUnavailable("down")

    async def aclose(self) -> None:
        """Nothing to close."""

    def statistics(self) -> Any:
        if self._raising is not None:
            raise self._raising
        return self._reported


async def opened(plugin: Signer) -> TranslatingSigner:
    """The plugin behind the first rule, after its first call."""
    signer = TranslatingSigner(lambda: plugin, "demo")
    await signer.key_versions()
    return signer


def test_a_signer_tells_nothing_unless_it_wants_to() -> None:
    """The port's own method is no duty."""
    assert LocalSigner([KEY]).statistics() == {}


def test_numbers_pass_every_rule_and_two_rules_add_their_own() -> None:
    """The circuit, and the verification."""

    async def run() -> None:
        signer: Signer = await opened(Telling({"calls_total": 7}))
        signer = CircuitBreaker(signer, "demo", failures=1, open_seconds=60)
        signer = VerifyingSigner(signer, "demo")
        await signer.key_versions()
        reported = {"calls_total": 7, "circuit_open": 0, "unusable_keys": 0}
        assert signer.statistics() == reported
        with pytest.raises(SignerUnavailable):
            await signer.sign("k1", b"x")
        assert signer.statistics() == {**reported, "circuit_open": 1}

    asyncio.run(run())


@pytest.mark.parametrize("raising", [ValueError("secret"), SystemExit(1), KeyboardInterrupt()])
def test_a_plugin_that_raises_tells_nothing(raising: BaseException) -> None:
    """Numbers are no reason to stop a worker."""

    async def run() -> None:
        assert (await opened(Telling(raising=raising))).statistics() == {}

    asyncio.run(run())


def test_a_plugin_s_nonsense_is_left_out() -> None:
    """Also before it was opened, when it can't be asked."""

    async def run() -> None:
        assert TranslatingSigner(Telling, "demo").statistics() == {}
        assert (await opened(Telling({"good": 1, "BAD": 1, "worse": "1"}))).statistics() == {"good": 1}

    asyncio.run(run())
