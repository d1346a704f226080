"""Command-line options that select verifiers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:  # it takes a while to import, and `--help` should not wait
    from macp_auth.domain.policy import Verifier

_DEFAULT = "macp-runtime"
NAMES = click.option(
    "--verifier", "names", multiple=True, metavar="NAME", help="A known kind.  [default: macp-runtime]"
)
CUSTOMS = click.option(
    "--custom",
    "customs",
    multiple=True,
    metavar="NAME:TTL:GRACE",
    help="Another kind: how long it caches the JWKS, and how much longer while it can't fetch (seconds).",
)


def chosen_verifiers(names: Sequence[str], customs: Sequence[str] = ()) -> list[Verifier]:
    """Return the verifiers that the options name, or the default.

    Raises:
        click.BadParameter: a name is not known, or a custom one is malformed.
    """
    return [*_known(names if names or customs else [_DEFAULT]), *map(_custom, customs)]


def _known(names: Sequence[str]) -> list[Verifier]:
    from macp_auth.domain.policy import VERIFIERS  # noqa: PLC0415

    for name in names:
        if name not in VERIFIERS:
            known = ", ".join(VERIFIERS)
            raise click.BadParameter(f"{name!r} is not known; known are {known}", param_hint="--verifier")
    return [VERIFIERS[name] for name in dict.fromkeys(names)]


def _custom(text: str) -> Verifier:
    from macp_auth.domain.policy import Verifier  # noqa: PLC0415

    name, *numbers = text.split(":")
    if not name or [number.isascii() and number.isdigit() for number in numbers] != [True, True]:
        raise click.BadParameter(
            f"{text!r} must be a name and two whole numbers of seconds, as in gateway:600:0",
            param_hint="--custom",
        )
    return Verifier(name=name, cache_ttl=int(numbers[0]), stale_grace=int(numbers[1]))
