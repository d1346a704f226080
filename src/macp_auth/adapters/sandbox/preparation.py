"""What a plugin prepares, before anything listens."""

from __future__ import annotations

import pickle
from typing import Any

from msgspec import Struct

from macp_auth.adapters.hookspecs import SignerPlugin
from macp_auth.adapters.sandbox.translation import place_of
from macp_auth.domain.errors import SignerError, SignerMisconfigured


def prepare_state(plugin: SignerPlugin, settings: Struct) -> Any:
    """Return what ``plugin`` prepares from ``settings``, which worker processes are handed.

    Raises:
        SignerMisconfigured: it can't, or what it prepares can't travel; the text names the plugin.
    """
    try:
        state = plugin.prepare(settings)
    except (SignerMisconfigured, KeyboardInterrupt):  # this is the main thread, so Ctrl-C is the operator's
        raise
    except SignerError as error:
        raise SignerMisconfigured(f"the signer plugin {plugin.name!r} can't prepare: {error}") from error
    except BaseException as error:  # noqa: BLE001 - a plugin may raise anything; its message may hold a secret
        raise SignerMisconfigured(
            f"the signer plugin {plugin.name!r} raised {type(error).__name__} in prepare{place_of(error)}; "
            "check its settings, or fix its package"
        ) from None
    try:
        pickle.dumps(state)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - pickle raises whatever an object's methods raise
        raise SignerMisconfigured(
            f"what the signer plugin {plugin.name!r} prepares can't be handed to a worker process "
            f"({type(error).__name__}); its package must return what can be pickled"
        ) from None
    return state
