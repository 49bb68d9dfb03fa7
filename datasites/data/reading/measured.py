"""What was read of one hospital: its patients, their outcome, and each modality's values in the schema's units."""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
_HELD_BYTES = 128 << 20


class Stored:
    """Rows of floats that are appended in pieces and read again by place; large ones lie in a file without a name.

    The file has no name in any folder, only this process reads it, and it is gone when the process ends. So the memory
    that a table of any length takes is that of its ids and of a few pieces.

    Args:
        columns: of each row.
        kind: float32 or float64.
        scratch: the folder on whose disk rows lie that take more than 128 MiB; without, all are held in memory.
    """

    def __init__(self, columns: int, kind: np.dtype[Any], scratch: Path | None = None) -> None:
        self._columns, self.dtype, self._scratch = columns, kind, scratch
        self._pieces: list[Floats] = []
        self._starts = [0]
        self._file: IO[bytes] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """How many rows and columns."""
        return self._starts[-1], self._columns

    def __len__(self) -> int:
        return self._starts[-1]

    def append(self, rows: Floats) -> None:
        """Add rows [rows, columns] behind the others."""
        piece = np.ascontiguousarray(rows, dtype=self.dtype)
        self._starts.append(self._starts[-1] + len(piece))
        if self._file is None:
            self._pieces.append(piece)
            if self._scratch is not None and len(self) * self._row_bytes > _HELD_BYTES:
                self._move()
        else:
            self._file.seek(0, 2)
            self._file.write(piece.data)

    def take(self, places: NDArray[np.int64]) -> Floats:
        """Return the rows at some places, [places, columns], in the order of ``places``."""
        found = np.empty((len(places), self._columns), dtype=self.dtype)
        order = np.argsort(places, kind="stable")
        wanted = places[order]
        if self._file is None:
            for start, piece in zip(self._starts, self._pieces, strict=False):
                first, last = np.searchsorted(wanted, (start, start + len(piece)))
                found[order[first:last]] = piece[wanted[first:last] - start]
            return found
        breaks = (np.flatnonzero(np.diff(wanted) != 1) + 1).tolist()
        for first, last in zip([0, *breaks], [*breaks, len(wanted)], strict=True):
            if last > first:
                found[order[first:last]] = self._read(int(wanted[first]), last - first)
        return found

    def put(self, row: int, column: int, value: float) -> None:
        """Write one value."""
        if self._file is None:
            piece = int(np.searchsorted(self._starts, row, side="right")) - 1
            self._pieces[piece][row - self._starts[piece], column] = value
        else:
            self._file.seek(row * self._row_bytes + column * self.dtype.itemsize)
            self._file.write(np.array(value, dtype=self.dtype).tobytes())

    def __getitem__(self, rows: slice) -> Floats:
        return self.take(np.arange(*rows.indices(len(self)), dtype=np.int64))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Floats:
        return np.asarray(self[:], dtype=dtype)

    @property
    def _row_bytes(self) -> int:
        return max(1, self._columns) * self.dtype.itemsize

    def _move(self) -> None:
        file = tempfile.TemporaryFile(dir=self._scratch)  # noqa: SIM115 - it is closed with the last reference
        weakref.finalize(self, file.close)
        for piece in self._pieces:
            file.write(piece.data)
        self._pieces, self._file = [], file

    def _read(self, row: int, rows: int) -> Floats:
        assert self._file is not None  # noqa: S101 - for mypy
        self._file.seek(row * self._row_bytes)
        return np.frombuffer(self._file.read(rows * self._row_bytes), dtype=self.dtype).reshape(rows, self._columns)


class Beside:
    """Columns of the same rows that were stored one after another, as one table of them all."""

    def __init__(self, parts: Sequence[Stored]) -> None:
        self._parts = parts

    @property
    def shape(self) -> tuple[int, int]:
        """How many rows and columns."""
        return len(self), sum(part.shape[1] for part in self._parts)

    def __len__(self) -> int:
        return len(self._parts[0]) if self._parts else 0

    def take(self, places: NDArray[np.int64]) -> Floats:
        """See :meth:`Stored.take`."""
        return np.concatenate([part.take(places) for part in self._parts], axis=1)

    def __getitem__(self, rows: slice) -> Floats:
        return np.concatenate([part[rows] for part in self._parts], axis=1)


Values = Floats | Stored | Beside


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One modality: its patients in order of their ids, and ``values`` [patients, columns of the schema].

    A number is in the schema's unit, a category an index into ``combinations`` of its column, which hold places of
    levels; NaN is missing. Columns that are measured alike are float32, others float64.
    """

    patients: tuple[str, ...]
    values: Values
    combinations: Mapping[int, Sequence[tuple[int, ...]]]


@dataclass(frozen=True, kw_only=True)
class HospitalData:
    """The patients of one hospital that belong to the study, in order of their ids.

    ``outcome`` is float64 [patients, columns of the outcome]: the place of a class, a number, or time and event (0, 1).
    """

    patients: tuple[str, ...]
    cohorts: tuple[str, ...]
    outcome: NDArray[np.float64]
    modalities: Mapping[str, Measured]
