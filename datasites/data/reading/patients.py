"""Rows become patients: whose row it is, which columns stand where, and one row for each patient by a declared rule."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from datasites.data.patient_rows import plain_id
from datasites.data.reading.cells import CategoryColumn, NumberColumn, Reading, years_between
from datasites.data.reading.tables import Table
from datasites.study.schema.document import PatientId, RowRule
from privacy.errors import InvalidInput

Column = NumberColumn | CategoryColumn


@dataclass(frozen=True, kw_only=True)
class Derived:
    """A column that is made of two: the years from one date to another. Cells that are no dates are counted."""

    since: str
    until: str
    reading: Reading


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """One group of columns of one table that becomes one row per patient: the readers by local column."""

    group: str
    table: Table
    patient: str
    readers: Mapping[str, Sequence[Column]]
    derived: Mapping[str, Derived] = field(default_factory=dict)
    rows: RowRule = "one"
    order_by: str = ""
    wide: bool = False

    def columns(self) -> list[str]:
        """Return the columns that are asked of the table, each once."""
        dates = [name for made in self.derived.values() for name in (made.since, made.until)]
        plainly = [name for name in self.readers if name not in self.derived]
        return list(dict.fromkeys([self.patient, *plainly, *dates, *([self.order_by] if self.order_by else [])]))


@dataclass(kw_only=True)
class Rows:
    """What was read of a group: ids [rows], values float [rows, columns], and what to order the rows by."""

    columns: tuple[str, ...]
    patients: list[str] = field(default_factory=list)
    values: list[NDArray[np.floating]] = field(default_factory=list)
    order: list[pd.Series] = field(default_factory=list)
    without_id: int = 0


def read_rows(wanted: Wanted, patient: PatientId) -> Rows:
    """Read a group's columns; rows without an id are counted and left out.

    Raises:
        InvalidInput: the table cannot be read to its end.
    """
    columns = [name for name, readers in wanted.readers.items() for _ in readers]
    readers = [reader for readers in wanted.readers.values() for reader in readers]
    rows = Rows(columns=tuple(columns))
    for piece in wanted.table.pieces(wanted.columns()):
        for name, made in wanted.derived.items():
            piece[name] = years_between(piece[made.since], piece[made.until], made.reading)
        ids = [patient.of(text) for text in as_ids(piece[wanted.patient])]
        values = np.empty((len(piece), len(columns)), dtype=np.float32 if wanted.wide else np.float64)
        for place, (name, reader) in enumerate(zip(columns, readers, strict=True)):
            values[:, place] = reader.feed(piece[name])
        rows.patients += ids
        rows.values.append(values)
        if wanted.order_by:
            rows.order.append(piece[wanted.order_by])
    _fill_in(rows, readers)
    return rows


def as_ids(cells: pd.Series) -> list[str]:
    """Return ids as text: a number without a fraction as a whole number, however the file stores it."""
    if cells.dtype != object and not pd.api.types.is_string_dtype(cells.dtype):
        return ["" if np.isnan(v) else f"{v:.0f}" if v == np.round(v) else repr(float(v)) for v in cells]
    return [str(text).strip() for text in cells]


@dataclass(frozen=True, kw_only=True)
class OneRowEach:
    """The patients of a table in order of their first row, and where the row that counts for each one stands.

    ``merged`` holds values [patients, columns] where a rule makes one row of several; else ``chosen`` numbers the rows
    as they were read.
    """

    patients: list[str]
    chosen: NDArray[np.int64]
    merged: NDArray[np.floating] | None = None

    def fill(self, rows: Rows, target: NDArray[np.floating], lines: NDArray[np.int64], columns: Sequence[int]) -> None:
        """Write every patient's row into ``target``; ``rows`` gives up each piece once it is written.

        Args:
            rows: as they were read.
            target: float [lines, all columns].
            lines: of each patient; below 0 leaves her out.
            columns: of ``target``, for the columns read.
        """
        wanted, at = np.flatnonzero(lines >= 0), np.array(columns, dtype=np.int64)
        if self.merged is not None:
            target[lines[wanted][:, None], at] = self.merged[wanted]
            return
        source = self.chosen[wanted]
        order = np.argsort(source, kind="stable")
        source, places, start = source[order], lines[wanted][order], 0
        whole = list(columns) == list(range(target.shape[1]))
        for number in range(len(rows.values)):
            piece, rows.values[number] = rows.values[number], _NOTHING
            first, last = np.searchsorted(source, (start, start + len(piece)))
            held = piece[source[first:last] - start]
            if whole:
                target[places[first:last]] = held
            else:
                target[places[first:last, None], at] = held
            start += len(piece)


_NOTHING: NDArray[np.floating] = np.zeros((0, 0))


def one_row_each(rows: Rows, wanted: Wanted) -> OneRowEach:
    """Return which row counts for each patient.

    Raises:
        InvalidInput: a patient has several rows and the rule says one, or what orders rows is neither number nor date.
    """
    ids = np.array(rows.patients, dtype=object)
    named = np.flatnonzero(ids != "")
    rows.without_id = len(ids) - len(named)
    codes, names = pd.factorize(ids[named])
    if len(names) == len(named):
        return OneRowEach(patients=list(names), chosen=named)
    if wanted.rows == "one":
        raise InvalidInput(
            f"{wanted.table.name}: expected one row per patient for {wanted.group}, {len(named) - len(names)} rows are "
            "of a patient who has another; let the schema's `rows` say which counts, or merge them"
        )
    if wanted.rows in ("first", "last"):
        order = _ordered(pd.concat(rows.order, ignore_index=True)[named], wanted)
        kept = np.lexsort((np.arange(len(named)), order if wanted.rows == "first" else -order))
        chosen = pd.DataFrame({"code": codes[kept], "row": kept}).drop_duplicates("code").sort_values("code")["row"]
        return OneRowEach(patients=list(names), chosen=named[chosen.to_numpy()])
    values = np.concatenate(rows.values)[named]
    grouped = pd.DataFrame(values).groupby(codes)
    merged = (grouped.mean() if wanted.rows == "mean" else grouped.max()).to_numpy(dtype=values.dtype)
    return OneRowEach(patients=list(names), chosen=named, merged=merged)


def shape(text: str) -> str:
    """Return how an id looks without saying whose it is: letters as A, digits as 9.

    >>> shape("TCGA-A1-A0SB-01A")
    'AAAA-A9-A9AA-99A'
    """
    return "".join("9" if c.isdigit() else "A" if c.isalpha() else c for c in text[:40])


def alike(text: str) -> str:
    """Return an id as two spellings of it agree: no capitals, signs or leading zeros, and ``12`` for ``12.0``."""
    return plain_id(re.sub(r"^(\d+)\.0+$", r"\1", text.strip())).lstrip("0")


def _fill_in(rows: Rows, readers: Sequence[Column]) -> None:
    starts = np.cumsum([0, *(len(piece) for piece in rows.values)])
    for place, reader in enumerate(readers):
        for row, value in reader.finish():
            piece = int(np.searchsorted(starts, row, side="right")) - 1
            rows.values[piece][row - starts[piece], place] = value


def _ordered(cells: pd.Series, wanted: Wanted) -> NDArray[np.float64]:
    numbers = pd.to_numeric(cells, errors="coerce")
    if not numbers.isna().any():
        return numbers.to_numpy(dtype=np.float64)
    dates = pd.to_datetime(cells, errors="coerce", format="ISO8601", utc=True)
    if dates.isna().any():
        raise InvalidInput(
            f"{wanted.table.name}: expected numbers or dates such as 2024-05-31 in {wanted.order_by!r}, which orders "
            f"the rows of {wanted.group}; {int(dates.isna().sum())} cells are neither"
        )
    return np.asarray(dates.astype("int64"), dtype=np.float64)
