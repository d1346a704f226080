"""Counters in a memory-mapped file, which outlive their process."""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from pathlib import Path
from struct import Struct

import msgspec

Name = tuple[str, ...]

_CELL = Struct("d248s")  # the number, and its name as a JSON array, padded with zeros
CELLS = 2048
"""Bounded, so that a process has 512 KB of them at most."""
_DOUBLES = _CELL.size // 8
_names = msgspec.json.Decoder(Name)


class Cells:
    """The counters of one process.

    Args:
        path: the file. If it exists, from a process with the same id, counting continues in it.
    """

    def __init__(self, path: Path) -> None:
        if not path.exists():
            # Renamed when it is whole, because others read it at any time. Allocate it all now: without
            # memory, a write into a hole would kill the process.
            new = path.with_suffix(".new-cells")
            new.write_bytes(bytes(_CELL.size * CELLS))
            new.rename(path)
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        self.numbers = memoryview(self._map).cast("d")
        """``numbers[cell] += 1`` counts."""
        self._cells = {name: place * _DOUBLES for place, name in enumerate(read_cells(path))}

    def cell(self, *name: str) -> int:
        """Return the cell called ``name``; a new one starts at 0.

        Raises:
            OverflowError: there is no room for another cell, or the name is too long.
        """
        if (cell := self._cells.get(name)) is None:
            cell = len(self._cells) * _DOUBLES
            encoded = msgspec.json.encode(name)
            if len(encoded) > _CELL.size - 8 or cell >= CELLS * _DOUBLES:
                raise OverflowError("no room for a number")
            _CELL.pack_into(self._map, cell * 8, 0.0, b"\0" + encoded[1:])
            self._map[cell * 8 + 8] = encoded[0]  # last: until then, a reader finds no cell here
            self._cells[name] = cell
        return cell


def read_cells(path: Path) -> Mapping[Name, float]:
    """Return the numbers in ``path`` by name, in order of creation."""
    numbers: dict[Name, float] = {}
    for number, encoded in _CELL.iter_unpack(path.read_bytes()):
        if not encoded[0]:
            break
        numbers[_names.decode(encoded.rstrip(b"\0"))] = number
    return numbers
