"""Opening: from the settings to a signer."""

from __future__ import annotations

from macp_auth.testing.checks.declarations import declares_its_limits, settings_are_usable
from macp_auth.testing.registry import check
from macp_auth.testing.watched import WatchedSubject


@check(
    "The result of prepare() can be pickled",
    source="each worker gets it through a pipe",
    needs=(declares_its_limits, settings_are_usable),
)
async def state_travels(subject: WatchedSubject) -> None:
    """Prepare, and pickle the result."""
    await subject.prepare()


@check(
    "open() returns a Signer; its aclose() ends within 2 s", source="the plugin API", needs=(state_travels,)
)
async def opens_and_closes(subject: WatchedSubject) -> None:
    """Open a signer from the unpickled state, and close it unused."""
    async with subject.opened():
        pass
