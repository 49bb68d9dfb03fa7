"""Reading the clinical columns by their exact vocabularies: what each cell means, and what was not understood."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from datasites.data.reading.cells.counting import Reading
from datasites.data.reading.cells.numbers import NumberColumn, NumberRule
from datasites.data.reading.cells.words import CategoryColumn
from datasites.data.reading.mapping import LocalMapping
from datasites.data.tcga.stages import REFUSE_ABOVE
from datasites.data.tcga.variables import COMPOUND, OPEN, VARIABLES
from datasites.study.schema.variables import Category, Number, plain
from datasites.study.text import visible
from privacy.errors import InvalidInput

_SHOWN = 5
_KNOWN = frozenset({"case_id", "project", "tss", "site_name", "region", "stage", "stage_raw", "stage_idx"})


@dataclass(frozen=True, kw_only=True)
class ReadCells:
    """One column: ``values`` in the variable's unit (NaN missing), or the places of ``levels`` (none: missing)."""

    reading: Reading
    values: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    levels: tuple[tuple[int, ...], ...] = ()


def read_cells(variable: Number | Category, cells: pd.Series, mapping: LocalMapping | None = None) -> ReadCells:
    """Read one column of a clinical table; every cell is counted as understood, missing or refused.

    Args:
        variable: whose vocabulary counts.
        cells: texts or numbers; None and NaN are missing.
        mapping: the owner's words and units for the column.

    Raises:
        InvalidInput: the mapping names a unit or a level that the variable has not.
    """
    rule = (mapping or LocalMapping()).column("clinical", variable.name)
    reading = Reading(column=str(cells.name), variable=variable.name)
    if isinstance(variable, Number):
        try:
            column = NumberColumn(variable, reading, NumberRule(unit=rule.unit, decimal=rule.decimal))
        except KeyError:
            known = ", ".join([variable.unit, *variable.units]) or "none"
            raise InvalidInput(f"{variable.name}: unknown unit {rule.unit[:40]!r}; it knows {known}") from None
        values = column.feed(_texts(cells))
        for row, value in column.finish():
            values[row] = value
        return ReadCells(reading=reading, values=values)
    compound = COMPOUND.get(variable.name, {})
    texts = _texts(cells)
    if compound:
        texts = texts.map(lambda text: compound.get(plain(str(text)), text))
    reader = CategoryColumn(variable, reading, rule.words, others=variable.name in OPEN)
    codes = reader.feed(texts)
    levels = tuple(() if np.isnan(code) else reader.combinations[int(code)] for code in codes)
    return ReadCells(reading=reading, levels=levels)


def read_clinical(
    table: pd.DataFrame, *, where: str, mapping: LocalMapping | None = None
) -> tuple[pd.DataFrame, list[str]]:
    """Return a clinical table in the vocabularies' own words and units, and a line for everything that was lost.

    Raises:
        InvalidInput: more than :data:`REFUSE_ABOVE` of a column's values are not understood; the message shows some.
    """
    table, notes = _renamed(table, where, mapping)
    for variable in VARIABLES:
        if variable.name not in table.columns:
            continue
        read = read_cells(variable, table[variable.name], mapping)
        notes += _told(read.reading, where)
        table[variable.name] = _plainly(variable, table[variable.name], read)
    known = _KNOWN | {variable.name for variable in VARIABLES}
    unread = [str(c) for c in table.columns if c not in known and not str(c).startswith(("leak_", "has_"))]
    if unread:
        notes.append(f"{where}: {len(unread)} columns have no public encoding and are not read: {_few(unread)}")
    return table, notes


def _renamed(table: pd.DataFrame, where: str, mapping: LocalMapping | None) -> tuple[pd.DataFrame, list[str]]:
    notes, names = [], {}
    for variable in VARIABLES:
        asked = (mapping or LocalMapping()).column("clinical", variable.name).column
        if asked and asked not in table.columns:
            raise InvalidInput(f"{where}: has no column {asked[:60]!r}, which the mapping names for {variable.name}")
        alike = [c for c in table.columns if plain(str(c)) == variable.name]
        if asked and asked != variable.name:
            names[asked] = variable.name
        elif variable.name not in table.columns and alike:
            names[alike[0]] = variable.name
            notes.append(f"{where}: column {str(alike[0])!r} is read as {variable.name!r}")
    return table.rename(columns=names), notes


def _plainly(variable: Number | Category, cells: pd.Series, read: ReadCells) -> pd.Series:
    if isinstance(variable, Number):
        return pd.Series(read.values, index=cells.index)
    texts = []
    for text, places in zip(cells, read.levels, strict=True):
        named = [variable.levels[place].name for place in places if place < len(variable.levels)]
        texts.append(variable.separator.join(named) if named else str(text).strip() if places else None)
    return pd.Series(texts, index=cells.index, dtype=object)


def _told(reading: Reading, where: str) -> list[str]:
    read = reading.cells - reading.missing
    if not reading.refusals:
        return []
    shown = "; ".join(f"{visible(word)!r} ({count}): {reason}" for word, reason, count in reading.strange())
    line = f"{where}, column {reading.column!r}: {reading.refusals} of {read} values were not understood: {shown}"
    if reading.refusals > REFUSE_ABOVE * max(read, 1):
        raise InvalidInput(f"{line}; correct them, or say in a mapping what they mean")
    return [f"{line}; they count as missing"]


def _texts(cells: pd.Series) -> pd.Series:
    if pd.api.types.is_bool_dtype(cells.dtype):
        return cells.map(lambda value: str(value).lower())
    if pd.api.types.is_numeric_dtype(cells.dtype):
        return cells.astype(np.float64)
    return cells.astype(object).where(cells.notna(), "").map(_text)


def _text(value: object) -> str:
    return f"{value:.15g}" if isinstance(value, float) else str(value)


def _few(names: Sequence[str]) -> str:
    return ", ".join(visible(name)[:40] for name in names[:_SHOWN]) + (" ..." if len(names) > _SHOWN else "")
