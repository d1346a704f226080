"""Reads what the workers of a service wrote, and keeps what those that are gone had counted."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from macp_auth.adapters.metrics.cells import Name, read_cells
from macp_auth.domain.statistics import Distribution
from macp_auth.domain.worker_state import WorkerState

CELLS, STATE = ".cells", ".state"
"""What a worker's files are called, behind its process id."""


def files_of(directory: Path, pid: int) -> tuple[Path, Path]:
    """Return where the worker ``pid`` counts, and where it writes how it is."""
    return directory / f"{pid}{CELLS}", directory / f"{pid}{STATE}"


def write_state(path: Path, state: WorkerState) -> None:
    """Put ``state`` into ``path``, so that a reader finds the old one or the new one, and never half.

    Without room for it, the last one stays; the reader sees its age.
    """
    new = path.with_suffix(".new")
    with suppress(OSError):
        new.write_bytes(msgspec.json.encode(state))
        new.replace(path)


def read_state(path: Path) -> WorkerState | None:
    """Return what ``path`` holds; None if its worker has not written yet."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=WorkerState)
    except FileNotFoundError:
        return None


class Counts(Struct):
    """What only ever grows, added up."""

    cells: dict[Name, float]
    signer: dict[str, float | Distribution]

    def add(self, cells: Mapping[Name, float], signer: Mapping[str, float | Distribution]) -> None:
        """Add what one worker counted."""
        for name, number in cells.items():
            self.cells[name] = self.cells.get(name, 0) + number
        for statistic, count in signer.items():
            self.signer[statistic] = _sum(self.signer.get(statistic), count)


class Reading(Struct, frozen=True):
    """All workers, at one time."""

    counts: Counts
    """Of all workers that there are and were."""
    states: Mapping[int, WorkerState]
    """By the worker's place, from 0 on; one that has not written yet is missing."""


class Workers:
    """The workers of one service, by their files.

    Args:
        directory: where the files are.
        pids: says which processes the workers are now. A worker that takes the place of another has its
            place in the sequence, too.
    """

    def __init__(self, directory: Path, pids: Callable[[], Sequence[int]]) -> None:
        self._directory = directory
        self._pids = pids
        self._gone = Counts({}, {})

    def read(self) -> Reading:
        """Return what they wrote. The files of those that are gone are removed."""
        places = {pid: place for place, pid in enumerate(self._pids())}
        living = Counts({}, {})
        states = {}
        for path in self._directory.glob(f"*{CELLS}"):
            pid = int(path.stem)
            gone = pid not in places and not _exists(pid)  # one that is being started may be in no place yet
            state_path = path.with_suffix(STATE)
            state = read_state(state_path)
            (self._gone if gone else living).add(read_cells(path), _growing(state))
            if gone:
                path.unlink()
                state_path.unlink(missing_ok=True)
            elif state is not None and pid in places:
                states[places[pid]] = state
        living.add(self._gone.cells, self._gone.signer)
        return Reading(living, dict(sorted(states.items())))


def _growing(state: WorkerState | None) -> dict[str, float | Distribution]:
    """Return those of a signer's numbers that may be added up."""
    return {
        name: number
        for name, number in (state.signer if state else {}).items()
        if isinstance(number, Distribution) or name.endswith("_total")
    }


def _sum(first: float | Distribution | None, second: float | Distribution) -> float | Distribution:
    match first, second:
        case Distribution(), Distribution() if first.bounds == second.bounds:
            counts = [one + other for one, other in zip(first.counts, second.counts, strict=True)]
            return Distribution(first.bounds, counts, first.total + second.total)
        case int() | float(), int() | float():
            return first + second
    return second  # the first one, or a plugin's that has changed its mind


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is another user's
        return True
    return True
