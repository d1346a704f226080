"""Reads the files of all workers, and keeps the counts of those that have ended."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
import structlog
from msgspec import Struct

from macp_auth.adapters.metrics.cells import Name, read_cells
from macp_auth.domain.statistics import Distribution
from macp_auth.domain.worker_state import WorkerState

CELLS, STATE = ".cells", ".state"
"""The suffixes of a worker's files, after its process id."""
SILENT_SECONDS = 10.0
"""A worker that writes nothing for this long hangs, regardless of its last state."""
SILENT = "silent"
_UNUSABLE = (OSError, ValueError, OverflowError, struct.error, msgspec.MsgspecError)
"""What a file raises that no worker wrote, or only a part of it."""
_log = structlog.get_logger()


def files_of(directory: Path, pid: int) -> tuple[Path, Path]:
    """Return the paths of the counters and the state of worker ``pid``."""
    return directory / f"{pid}{CELLS}", directory / f"{pid}{STATE}"


def write_state(path: Path, state: WorkerState) -> None:
    """Replace ``path`` with ``state`` atomically.

    If there is no room, the last state stays; the reader sees its age.
    """
    new = path.with_suffix(".new")
    with suppress(OSError):
        new.write_bytes(msgspec.json.encode(state))
        new.replace(path)


def read_state(path: Path) -> WorkerState | None:
    """Return the state in ``path``; None if it was not written yet."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=WorkerState)
    except FileNotFoundError:
        return None


class Subject(Struct, frozen=True, kw_only=True):
    """The facts that the first process knows itself."""

    signer: str
    workers: int
    refresh_seconds: int
    started_at: float
    """In seconds since the epoch."""
    restarts: Callable[[], int]
    """Number of workers that died and were replaced."""


def not_ready(state: WorkerState, now: float) -> str | None:
    """Return why the worker of ``state`` can't mint at ``now`` (monotonic); None if it can."""
    return SILENT if now - state.at > SILENT_SECONDS else state.not_ready


class Counts(Struct):
    """The sum of all counters."""

    cells: dict[Name, float]
    signer: dict[str, float | Distribution]

    def add(self, cells: Mapping[Name, float], signer: Mapping[str, float | Distribution]) -> None:
        """Add the counts of one worker."""
        for name, number in cells.items():
            self.cells[name] = self.cells.get(name, 0) + number
        for statistic, count in signer.items():
            self.signer[statistic] = _sum(self.signer.get(statistic), count)


class Reading(Struct, frozen=True):
    """A reading of all workers."""

    counts: Counts
    """Of all current and former workers."""
    states: Mapping[int, WorkerState]
    """By worker index from 0; absent for one that has not written yet."""


class Workers:
    """Reads the files of the workers of one service.

    Args:
        directory: the folder of the files.
        pids: returns the current process ids. A replacement has the index of its predecessor.
    """

    def __init__(self, directory: Path, pids: Callable[[], Sequence[int]]) -> None:
        self._directory = directory
        self._pids = pids
        self._gone = Counts({}, {})
        self._skipped: set[Path] = set()

    def read(self) -> Reading:
        """Return what the workers wrote. Removes the files of those that have ended.

        A file that is not theirs is skipped, and logged once.
        """
        places = {pid: place for place, pid in enumerate(self._pids())}
        living = Counts({}, {})
        states = {}
        for path in self._directory.glob(f"*{CELLS}"):
            state_path = path.with_suffix(STATE)
            try:
                pid = int(path.stem)
                gone = pid not in places and not _exists(pid)  # a starting worker may not be in pids yet
                cells, state = read_cells(path), read_state(state_path)
            except FileNotFoundError:  # it was removed meanwhile
                continue
            except _UNUSABLE as error:
                self._skip(path, error)
                continue
            (self._gone if gone else living).add(cells, _growing(state))
            if gone:
                path.unlink(missing_ok=True)
                state_path.unlink(missing_ok=True)
            elif state is not None and pid in places:
                states[places[pid]] = state
        living.add(self._gone.cells, self._gone.signer)
        return Reading(living, dict(sorted(states.items())))

    def _skip(self, path: Path, error: Exception) -> None:
        if path not in self._skipped:
            self._skipped.add(path)
            _log.warning("cannot read a file of the metrics; skipping it", file=str(path), detail=str(error))


def _growing(state: WorkerState | None) -> dict[str, float | Distribution]:
    """Return the signer's numbers that may be summed."""
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
    return second  # the first one, or a plugin's that changed its type


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it belongs to another user
        return True
    return True
