"""Rows become patients: whose row it is, which columns stand where, and one row for each patient by a declared rule."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from datasites.data.patient_rows import plain_id
from datasites.data.reading.cells.counting import Reading
from datasites.data.reading.cells.dates import years_between
from datasites.data.reading.cells.numbers import NumberColumn
from datasites.data.reading.cells.words import CategoryColumn
from datasites.data.reading.measured import Beside, Stored
from datasites.data.reading.tables import Table
from datasites.study.schema.document import PatientId, RowRule
from privacy.errors import InvalidInput

if TYPE_CHECKING:
    import pandas as pd

Column = NumberColumn | CategoryColumn
_CUT = re.compile(r"[+-]?\d([.,]\d+)?[eE]\+\d{2,3}")
_LARGEST_WHOLE = float(1 << 53)


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

    def columns(self, names: Sequence[str], *, with_ids: bool) -> list[str]:
        """Return the columns that are asked of the table for some of the readers, each once."""
        dates = [name for key, made in self.derived.items() if key in names for name in (made.since, made.until)]
        plainly = [name for name in names if name not in self.derived]
        first = [self.patient, *([self.order_by] if self.order_by else [])] if with_ids else []
        return list(dict.fromkeys([*first, *plainly, *dates]))


@dataclass(kw_only=True)
class Rows:
    """What was read of a group: ids [rows], values float [rows, columns], and what to order the rows by."""

    columns: tuple[str, ...]
    values: Beside
    patients: list[str] = field(default_factory=list)
    order: list[pd.Series] = field(default_factory=list)
    without_id: int = 0


def read_rows(wanted: Wanted, patient: PatientId, scratch: Path | None = None) -> Rows:
    """Read a group's columns; rows without an id are counted and left out.

    Args:
        wanted: which columns of which table.
        patient: how an id becomes a patient.
        scratch: see :class:`datasites.data.reading.measured.Stored`.

    Raises:
        InvalidInput: the table cannot be read to its end.
    """
    names, step = list(wanted.readers), wanted.table.columns_at_once
    parts: list[Stored] = []
    columns = tuple(name for name in names for _ in wanted.readers[name])
    rows = Rows(columns=columns, values=Beside(parts))
    for start in range(0, max(1, len(names)), step):
        chosen = [(name, reader) for name in names[start : start + step] for reader in wanted.readers[name]]
        parts.append(Stored(len(chosen), np.dtype(np.float32 if wanted.wide else np.float64), scratch))
        _read_columns(rows if start == 0 else None, chosen, parts[-1], wanted, patient)
    return rows


def _read_columns(
    rows: Rows | None, chosen: Sequence[tuple[str, Column]], into: Stored, wanted: Wanted, patient: PatientId
) -> None:
    """Read some columns of every row, and for ``rows`` whose they are."""
    names = [name for name, _ in chosen]
    for piece in wanted.table.pieces(wanted.columns(names, with_ids=rows is not None)):
        for name, made in wanted.derived.items():
            if name in names:
                piece[name] = years_between(piece[made.since], piece[made.until], made.reading)
        values = np.empty((len(piece), len(chosen)), dtype=into.dtype)
        for place, (name, reader) in enumerate(chosen):
            values[:, place] = reader.feed(piece[name])
        into.append(values)
        if rows is not None:
            rows.patients += [patient.of(text) for text in as_ids(piece[wanted.patient])]
            if wanted.order_by:
                rows.order.append(piece[wanted.order_by])
    for place, (_, reader) in enumerate(chosen):
        for row, value in reader.finish():
            into.put(row, place, value)


def as_ids(cells: pd.Series) -> list[str]:
    """Return ids as text: a number without a fraction as a whole number, however the file stores it."""
    import pandas as pd

    if cells.dtype != object and not pd.api.types.is_string_dtype(cells.dtype):
        return [_number_id(float(value)) for value in cells]
    return [str(text).strip() for text in cells]


def _number_id(value: float) -> str:
    if np.isnan(value):
        return ""
    if abs(value) >= _LARGEST_WHOLE:
        return f"{value:E}"
    return f"{value:.0f}" if value == np.round(value) else repr(value)


@dataclass(frozen=True, kw_only=True)
class OneRowEach:
    """The patients of a table in order of their first row, and where their rows stand.

    The rows of patient ``i``, as they were read, are ``rows[starts[i] : starts[i + 1]]``; several are merged by
    ``merge``.
    """

    patients: list[str]
    rows: NDArray[np.int64]
    starts: NDArray[np.int64]
    merge: RowRule = "one"

    def values(self, stored: Beside, patients: NDArray[np.int64]) -> NDArray[np.floating]:
        """Return the one row of some patients, float [patients, columns read]."""
        import pandas as pd

        counts = self.starts[patients + 1] - self.starts[patients]
        codes = np.repeat(np.arange(len(patients)), counts)
        within = np.arange(len(codes)) - np.repeat(np.cumsum(counts) - counts, counts)
        values = stored.take(self.rows[self.starts[patients][codes] + within])
        if len(codes) == len(patients):
            return values
        grouped = pd.DataFrame(values).groupby(codes)
        return (grouped.mean() if self.merge == "mean" else grouped.max()).to_numpy(dtype=values.dtype)


def one_row_each(rows: Rows, wanted: Wanted) -> OneRowEach:
    """Return which row counts for each patient.

    Raises:
        InvalidInput: a patient has several rows and the rule says one, or what orders rows is neither number nor date.
    """
    import pandas as pd

    _refuse_cut(rows.patients, wanted.table.name)
    ids = np.array(rows.patients, dtype=object)
    named = np.flatnonzero(ids != "")
    rows.without_id = len(ids) - len(named)
    codes, names = pd.factorize(ids[named])
    if len(names) == len(named):
        return OneRowEach(patients=list(names), rows=named, starts=np.arange(len(named) + 1))
    if wanted.rows == "one":
        raise InvalidInput(
            f"{wanted.table.name}: expected one row per patient for {wanted.group}, {len(named) - len(names)} rows are "
            "of a patient who has another; let the schema's `rows` say which counts, or merge them"
        )
    if wanted.rows in ("first", "last"):
        order = _ordered(pd.concat(rows.order, ignore_index=True)[named], wanted)
        kept = np.lexsort((np.arange(len(named)), order if wanted.rows == "first" else -order))
        chosen = pd.DataFrame({"code": codes[kept], "row": kept}).drop_duplicates("code").sort_values("code")["row"]
        return OneRowEach(patients=list(names), rows=named[chosen.to_numpy()], starts=np.arange(len(names) + 1))
    starts = np.concatenate([[0], np.cumsum(np.bincount(codes, minlength=len(names)))])
    return OneRowEach(
        patients=list(names), rows=named[np.argsort(codes, kind="stable")], starts=starts, merge=wanted.rows
    )


def _refuse_cut(ids: Sequence[str], table: str) -> None:
    """Refuse long numbers that a spreadsheet or a column of fractions has cut: several patients would have one id.

    Raises:
        InvalidInput: an id is written like 1.23E+11, or is a number beyond what a column of fractions holds.
    """
    cut = sum(_CUT.fullmatch(text) is not None for text in ids)
    if cut:
        raise InvalidInput(
            f"{table}: {cut} ids are numbers without their last digits (written like 1.23E+11); write ids as text, as "
            "the system has them"
        )


def alike(text: str) -> str:
    """Return an id as two spellings of it agree: no capitals, signs or leading zeros, and ``12`` for ``12.0``."""
    return plain_id(re.sub(r"^(\d+)\.0+$", r"\1", text.strip())).lstrip("0")


def _ordered(cells: pd.Series, wanted: Wanted) -> NDArray[np.float64]:
    import pandas as pd

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
