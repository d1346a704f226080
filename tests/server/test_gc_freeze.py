"""The garbage collector and what start-up made."""

from __future__ import annotations

import gc

from tools.support.asgi import InProcess


def test_what_start_up_made_is_left_out_of_collections() -> None:
    """While the service serves, and no longer: a full collection would hold up every request."""
    before = gc.get_freeze_count()
    with InProcess({"MACP_AUTH_SIGNING_ALG": "ES256"}):
        assert gc.get_freeze_count() > before + 10_000
        assert len(gc.get_objects()) < gc.get_freeze_count() / 10
    assert gc.get_freeze_count() == 0
