"""``python -m tools.pictures``: draw the pictures of the documentation, with the commands of the pages."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

from macp_auth.entrypoints.cli.root import root
from tools.support.repository import ROOT

NOW = 1_795_996_800 + 1234
"""30 November 2026, 00:20 UTC: the same picture at each time."""


def keys_timeline(folder: Path) -> str:
    """Return the picture of a rotation that began 25 minutes ago."""
    keys, picture = folder / "keys.json", folder / "keys.svg"
    rotate = ["keys", "rotate", str(keys), "--alg", "ES256", "--kid"]
    _call(*rotate, "key-2026-10", at=NOW - 40 * 86400)
    _call(*rotate, "key-2026-11", at=NOW - 25 * 60)
    _call("keys", "timeline", str(keys), "--svg", str(picture))
    return picture.read_text(encoding="utf-8")


def simulated_rotations(folder: Path) -> str:
    """Return the picture of rotations of which the last key is revoked."""
    picture = folder / "rotations.svg"
    _call("rotation", "simulate", "--revoke", "--svg", str(picture))
    return picture.read_text(encoding="utf-8")


PICTURES: dict[str, Callable[[Path], str]] = {
    "docs/keys-timeline.svg": keys_timeline,
    "docs/rotations.svg": simulated_rotations,
}
"""Each file, and what draws it in an empty folder."""


def _call(*arguments: str, at: float = NOW) -> None:
    with (
        patch("time.time", return_value=float(at)),
        patch("macp_auth.entrypoints.logs.configure_logs"),  # the log of this process is that of a test
        redirect_stdout(StringIO()),
        suppress(SystemExit),
    ):
        root(arguments, prog_name="macp-auth", standalone_mode=False)


def main() -> None:
    for name, draw in PICTURES.items():
        with TemporaryDirectory() as folder:
            (ROOT / name).write_text(draw(Path(folder)), encoding="utf-8")


if __name__ == "__main__":
    main()
