"""The file with which an orchestrator starts an agent on a MACP SDK: ``macp_sdk.agent.from_bootstrap``."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any


def write_bootstrap(  # noqa: PLR0913 - the required members by name
    path: str | Path,
    *,
    token: str,
    participant_id: str,
    session_id: str,
    mode: str,
    runtime_url: str,
    **more: Any,
) -> None:
    """Write a bootstrap file, which only its owner can read (mode 0600), in the place of ``path``.

    A reader sees the whole file or the one before it. Names and meanings are those of macp-sdk-python 0.22.

    Args:
        path: the file. An existing one is replaced, not followed if it is a link.
        token: the agent's, with enough life for the session: the SDK reads the file once.
        participant_id: the token's sender. The SDK refuses to send as another.
        session_id: of the session to take part in, or to start.
        mode: of the session, such as ``macp.mode.decision.v1``.
        runtime_url: host and port of the runtime.
        more: other members that the SDK reads, such as ``participants``, ``initiator``, ``secure``,
            ``allow_insecure`` or ``cancel_callback``; what JSON can say.

    Raises:
        OSError: the folder is missing or can't be written.
        TypeError: a value is not of JSON.
        ValueError: a number is not finite.
    """
    context = {
        **more,
        "participant_id": participant_id,
        "session_id": session_id,
        "mode": mode,
        "runtime_url": runtime_url,
        "auth_token": token,
    }
    content = json.dumps(context, indent=2, allow_nan=False)
    path = Path(path)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mode 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
