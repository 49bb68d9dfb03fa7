"""The files of one part of a dataset, written and read block by block: no table need be in memory at once.

A modality is a Parquet file with ``case_id`` and the model's inputs, float32: a column each, or, above 8,000 of them,
all in one column, a list a row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from privacy.errors import InvalidInput

if TYPE_CHECKING:
    import pandas as pd

_WIDE = 8000
_CELLS = 2_000_000
_ROW = "values"


class Sliced(Protocol):
    """Rows of numbers [rows, columns]: an array, or what is read in slices like one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """How many rows and columns."""

    def __getitem__(self, rows: slice, /) -> NDArray[Any]:
        """Return some rows."""


def blocks(values: Sliced) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield rows in blocks of about two million values, each with the place of its first row; at least one block."""
    step = max(1, _CELLS // max(1, values.shape[1]))
    for start in range(0, max(1, values.shape[0]), step):
        yield start, values[start : start + step]


def write_modality(path: Path, names: Sequence[str], cases: Sequence[str], values: Sliced) -> None:
    """Write one modality's rows.

    Args:
        path: a new file.
        names: of the inputs.
        cases: of the rows.
        values: float32 [cases, inputs].
    """
    wide = len(names) > _WIDE
    fields = [(_ROW, pa.list_(pa.float32()))] if wide else [(name, pa.float32()) for name in names]
    schema = pa.schema([("case_id", pa.string()), *fields])
    with pq.ParquetWriter(path, schema) as writer:
        for start, block in blocks(values):
            own = pa.array(list(cases[start : start + len(block)]), pa.string())
            columns = [pa.array(list(block), fields[0][1])] if wide else [pa.array(column) for column in block.T]
            writer.write_table(pa.Table.from_arrays([own, *columns], schema=schema))


def read_modality(path: Path, names: Sequence[str]) -> pd.DataFrame:
    """Return one modality's inputs by case id.

    Raises:
        InvalidInput: the file is missing, or holds other columns.
    """
    import pandas as pd

    if len(names) <= _WIDE:
        return read_columns(path, ["case_id", *names]).set_index("case_id")
    table = read_columns(path, ["case_id", _ROW])
    rows = [np.asarray(row, dtype=np.float32) for row in table[_ROW]]
    if any(row.shape != (len(names),) for row in rows):
        raise InvalidInput(f"{path.parent.name}/{path.name}: expected {len(names)} values in every row")
    return pd.DataFrame(np.reshape(rows, (len(rows), len(names))), index=pd.Index(table["case_id"]))


def modality_blocks(path: Path, names: Sequence[str]) -> Iterator[tuple[list[str], NDArray[np.float32]]]:
    """Yield one modality's case ids and inputs, float32 [cases, inputs], some rows at a time.

    Raises:
        InvalidInput: the file is missing, or holds other columns.
    """
    wide = len(names) > _WIDE
    wanted = ["case_id", *([_ROW] if wide else names)]
    try:
        with pq.ParquetFile(path) as file:
            if not set(wanted) <= set(file.schema_arrow.names):
                raise _other(path)
            for batch in file.iter_batches(batch_size=max(1, _CELLS // max(1, len(names))), columns=wanted):
                cases = batch.column("case_id").to_pylist()
                if wide:
                    rows = np.asarray(batch.column(_ROW).flatten(), dtype=np.float32).reshape(len(cases), len(names))
                else:
                    rows = np.empty((len(cases), len(names)), dtype=np.float32)
                    for place, name in enumerate(names):
                        rows[:, place] = np.asarray(batch.column(name), dtype=np.float32)
                yield cases, rows
    except (OSError, ValueError, TypeError) as error:
        raise _other(path) from error


def read_columns(path: Path, columns: list[str]) -> pd.DataFrame:
    """Return some columns of a file.

    Raises:
        InvalidInput: it is missing, or holds other columns.
    """
    import pandas as pd

    try:
        return pd.read_parquet(path, columns=columns)
    except (OSError, ValueError) as error:
        raise _other(path) from error


def file_hash(path: Path) -> bytes:
    """Return the SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _other(path: Path) -> InvalidInput:
    return InvalidInput(f"{path.parent.name}/{path.name}: missing, or other columns than its schema says")
