"""``macp-auth rotation``: the times that verifiers need, and a simulation."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from macp_auth.entrypoints.cli.output import SVG, echo, echo_json, write_picture
from macp_auth.entrypoints.cli.verifiers import CUSTOMS, NAMES, chosen_verifiers

if TYPE_CHECKING:  # slow to import; `--help` must not wait
    from macp_auth.domain.policy import RotationPolicy, Sum, Verifier
    from macp_auth.simulation.rotations import Report, Setup, World

_COLUMNS = 72
_SECONDS = click.IntRange(0)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def rotation() -> None:
    """Plan and simulate key rotations."""


# --- plan ----------------------------------------------------------------------------------------------


@rotation.command()
@NAMES
@CUSTOMS
@_JSON
def plan(names: Sequence[str], customs: Sequence[str], as_json: bool) -> None:  # noqa: FBT001 - a flag
    """Print the publish lead and retire lag that verifiers need.

    Also the revocation bound, and the reason of each. The service's own times come from the environment.
    Exits 1 if they are too short.
    """
    chosen = chosen_verifiers(names, customs)
    policy = _configured()
    answer = _plan(policy, chosen)
    echo(json.dumps(answer, indent=2) if as_json else _plan_as_text(answer))
    sys.exit(0 if all(verifier["satisfied"] for verifier in answer["verifiers"]) else 1)


def _configured() -> RotationPolicy:
    from macp_auth.entrypoints.cli.inspection import policy_of  # noqa: PLC0415

    return policy_of(os.environ)


def _plan(policy: RotationPolicy, chosen: Sequence[Verifier]) -> dict[str, Any]:
    needs = [_needs(policy, verifier) for verifier in chosen]
    return {
        "verifiers": needs,
        "publish_lead": max(need["publish_lead"]["seconds"] for need in needs),
        "retire_lag": max(need["retire_lag"]["seconds"] for need in needs),
        "settings": _settings(policy, chosen),
        "configured": {
            "publish_lead": policy.timing.publish_lead,
            "retire_lag": policy.timing.retire_lag,
        },
    }


def _needs(policy: RotationPolicy, verifier: Verifier) -> dict[str, Any]:
    lead, lag = policy.needed_lead(verifier), policy.needed_lag(verifier)
    short = {
        "publish_lead": max(0, lead.seconds - policy.timing.publish_lead),
        "retire_lag": max(0, lag.seconds - policy.timing.retire_lag),
    }
    return {
        "name": verifier.name,
        "publish_lead": _sum(lead),
        "retire_lag": _sum(lag),
        "revocation_bound": _sum(policy.revocation_bound(verifier)),
        "blocked_revocation_bound": _sum(policy.blocked_revocation_bound(verifier)),
        "short_by": short,
        "satisfied": not any(short.values()),
    }


def _sum(total: Sum | None) -> dict[str, Any] | None:
    return None if total is None else {"seconds": total.seconds, "sum": str(total)}


def _settings(policy: RotationPolicy, chosen: Sequence[Verifier]) -> dict[str, int]:
    """Return the variables with which the service requires exactly what ``chosen`` need."""
    slowest = max(chosen, key=lambda verifier: policy.needed_lead(verifier).seconds)
    lead = policy.needed_lead(slowest).seconds
    own = policy.refresh + policy.max_age + policy.clock_skew + policy.verifier.fetch_timeout
    grace = (slowest.stale_grace or 0) if slowest.refetch_cooldown is None else 0
    return {
        "MACP_AUTH_VERIFIER_CACHE_TTL_SECONDS": lead - own - grace,
        "MACP_AUTH_VERIFIER_STALE_GRACE_SECONDS": grace,
        "MACP_AUTH_VERIFIER_LEEWAY_SECONDS": max(verifier.leeway for verifier in chosen),
        "MACP_AUTH_KEY_PUBLISH_LEAD_SECONDS": lead,
        "MACP_AUTH_KEY_RETIRE_LAG_SECONDS": max(policy.needed_lag(v).seconds for v in chosen),
    }


_LABELS = {
    "publish_lead": "publish lead",
    "retire_lag": "retire lag",
    "revocation_bound": "revocation bound",
    "blocked_revocation_bound": "revocation bound, fetches blocked",
}


def _plan_as_text(answer: dict[str, Any]) -> str:
    lines = []
    for need in answer["verifiers"]:
        lines.append(need["name"])
        for name, label in _LABELS.items():
            lines.append(f"  {label}: {need[name]['sum'] if need[name] else 'no bound'}")
    configured = answer["configured"]
    lines += [
        "",
        f"For all of them: publish lead {answer['publish_lead']} s, retire lag {answer['retire_lag']} s",
        *(f"  {name}={value}" for name, value in answer["settings"].items()),
        "",
        f"Configured: publish lead {configured['publish_lead']} s, retire lag {configured['retire_lag']} s",
        *(f"  {need['name']}: {_verdict(need)}" for need in answer["verifiers"]),
    ]
    return "\n".join(lines)


def _verdict(need: dict[str, Any]) -> str:
    short = [
        f"{_LABELS[name]} {seconds} s too short" for name, seconds in need["short_by"].items() if seconds
    ]
    return ", ".join(short) if short else "enough"


# --- simulate ------------------------------------------------------------------------------------------


@rotation.command()
@click.option(
    "--verifiers",
    "population",
    default=10_000,
    show_default=True,
    type=click.IntRange(1),
    help="Number of verifiers, in addition to the worst cases.",
)
@NAMES
@click.option(
    "--replicas",
    default=3,
    show_default=True,
    type=click.IntRange(1, 100),
    help="Number of replicas; each reads the keys itself.",
)
@click.option(
    "--rotations",
    default=3,
    show_default=True,
    type=click.IntRange(1, 100),
    help="Number of rotations.",
)
@click.option("--revoke", is_flag=True, help="Revoke the last key while it signs.")
@click.option("--lead", type=_SECONDS, help="The publish lead in seconds.  [default: as configured]")
@click.option("--lag", type=_SECONDS, help="The retire lag in seconds.  [default: as configured]")
@click.option(
    "--outages",
    default=1,
    show_default=True,
    type=click.IntRange(0, 100),
    help="Number of outages of up to an hour in which no verifier can fetch.",
)
@click.option(
    "--outage-rate",
    default=0.1,
    show_default=True,
    type=click.FloatRange(0, 1),
    help="Share of verifiers that have an outage alone.",
)
@click.option("--skew", type=_SECONDS, help="Clock skew in seconds.  [default: as configured]")
@click.option("--seed", default=0, show_default=True, help="The same seed gives the same simulation.")
@SVG
@_JSON
def simulate(  # noqa: PLR0913 - one parameter an option
    *,
    population: int,
    names: Sequence[str],
    replicas: int,
    rotations: int,
    revoke: bool,
    lead: int | None,
    lag: int | None,
    outages: int,
    outage_rate: float,
    skew: int | None,
    seed: int,
    svg: Path | None,
    as_json: bool,
) -> None:
    """Simulate rotations with many verifiers.

    The worst cases are included. The service's own times come from the environment. Exits 1 if a token
    was wrongly rejected.
    """
    import random  # noqa: PLC0415

    from macp_auth.domain.rotation import Timing  # noqa: PLC0415
    from macp_auth.simulation import rotations as simulation  # noqa: PLC0415

    chosen = chosen_verifiers(names)
    policy = _configured()
    timing = policy.timing
    setup = simulation.Setup(
        policy=policy,
        timing=Timing(
            timing.publish_lead if lead is None else lead, timing.retire_lag if lag is None else lag
        ),
        verifiers=tuple(chosen),
        population=population,
        replicas=replicas,
        rotations=rotations,
        revoke=revoke,
        clock_skew=policy.clock_skew if skew is None else skew,
        outages=outages,
        outage_rate=outage_rate,
    )
    rng = random.Random(seed)  # noqa: S311 - not for a secret
    world = simulation.make_world(setup, rng)
    report = simulation.simulate(world, rng)
    echo_json(report) if as_json else echo(_report_as_text(report, world))
    if svg is not None:
        from macp_auth.entrypoints.cli.simulation_timeline import timeline_of  # noqa: PLC0415
        from macp_auth.entrypoints.pictures import drawing  # noqa: PLC0415

        write_picture(svg, drawing.as_file(timeline_of(report, world)))
    sys.exit(1 if report.wrongly_rejected else 0)


def _report_as_text(report: Report, world: World) -> str:
    timing = world.setup.timing
    rotations = "1 rotation" if len(world.new_keys) == 1 else f"{len(world.new_keys)} rotations"
    lead_and_lag = f"publish lead {timing.publish_lead} s, retire lag {timing.retire_lag} s"
    return "\n".join(
        [
            f"{report.verifiers} verifiers, {rotations}, {lead_and_lag}",
            "",
            *_timeline(world),
            "",
            f"tokens checked: {report.tokens}, in {report.checks} checks",
            f"wrongly rejected: {report.wrongly_rejected}",
            f"rejected while a verifier was cut off: {report.cut_off}",
            *_after_revocation(report, world.setup),
            *_first_failure(report),
        ]
    )


def _timeline(world: World) -> list[str]:
    """Draw the key states of a replica with the correct time: one row per key."""
    moments = [(column + 0.5) * world.end / _COLUMNS for column in range(_COLUMNS)]
    columns = [_marks(world, moment) for moment in moments]
    kids = [version.kid for version in world.backend.versions]
    indent = max(map(len, kids)) + 2
    outages = "".join("!" if any(s.begin <= t < s.end for s in world.outages) else " " for t in moments)
    edge = f"0 s{f'{world.end:.0f} s':>{_COLUMNS - 3}}"
    return [
        *(f"{kid:<{indent}}{''.join(marks.get(kid, ' ') for marks in columns)}".rstrip() for kid in kids),
        *([f"{'':<{indent}}{outages}".rstrip()] if world.outages else []),
        f"{'':<{indent}}{edge}",
        f"{'':<{indent}}. pre-activation  # signs  - deactivated  x revoked  ! outage of all fetches",
    ]


def _marks(world: World, moment: float) -> dict[str, str]:
    from macp_auth.domain.rotation import State, schedule  # noqa: PLC0415

    marks = {State.PRE_ACTIVATION: ".", State.ACTIVE: "#", State.DEACTIVATED: "-"}
    due = schedule(world.backend.versions_at(moment), world.setup.timing, moment)
    withdrawn = {kid: "x" for kid, since in world.backend.withdrawn.items() if since <= moment}
    return {key.version.kid: marks[key.state] for key in due.keys} | withdrawn


def _after_revocation(report: Report, setup: Setup) -> list[str]:
    if not setup.revoke:
        return []
    late = report.after_revocation
    lines = [f"accepted after revocation: {sum(found.count for found in late.values())}"]
    for verifier in setup.verifiers:
        found, name, slow = late.get(verifier.name), verifier.name, verifier.fetch_timeout
        healthy = setup.policy.revocation_bound(verifier)
        blocked = setup.policy.blocked_revocation_bound(verifier)
        if found and found.latest is not None:
            lines.append(f"  {name}: {_latest(found.latest, healthy, slow)}")
        if found and found.latest_blocked is not None:
            lines.append(f"  {name}, fetches blocked: {_latest(found.latest_blocked, blocked, slow)}")
    return lines


def _latest(seconds: float, bound: Sum | None, slow: int) -> str:
    known = "no bound" if bound is None else f"bound {bound.seconds} s; a slow fetch adds up to {slow} s"
    return f"at the latest {seconds:.3f} s after it ({known})"


def _first_failure(report: Report) -> list[str]:
    if report.first_failure is None:
        return []
    return [
        "",
        "Events before the first failure, in seconds since the start:",
        *(f"{at:>12.3f}  {event}" for at, event in report.first_failure.trace),
    ]
