"""A hospital's data dictionary becomes a schema: what each column means, as those who keep the table wrote it down.

One row for each column, with ``column``, ``label``, ``unit``, ``low``, ``high``, ``levels``, ``role`` and ``modality``,
or the names that REDCap's data dictionaries have for them. Levels are written ``0, no | 1, yes``: the code in the
table, a comma, the name. Roles are ``input`` (nothing said), ``patient``, ``outcome`` and ``never``.

>>> read_levels("0, no | 1, yes")
[('no', ('0',)), ('yes', ('1',))]
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from datasites.data.reading.tables import open_table
from datasites.study.schema.document import StudySchema
from datasites.study.schema.variables import plain
from datasites.study.signing import parse
from datasites.study.text import visible
from privacy.errors import InvalidInput

_HEADERS: Mapping[str, tuple[str, ...]] = {
    "column": ("column", "variable", "name", "field", "variable / field name"),
    "label": ("label", "description", "meaning", "field label"),
    "unit": ("unit", "units", "field note"),
    "low": ("low", "min", "minimum", "text validation min"),
    "high": ("high", "max", "maximum", "text validation max"),
    "levels": ("levels", "values", "choices", "codes", "choices, calculations, or slider labels"),
    "role": ("role",),
    "modality": ("modality", "group", "form name"),
    "kind": ("kind",),
}
_ROLES = ("input", "patient", "outcome", "never")
_MOST_ROWS = 5000
_WIDTHS = 6.0
"""A range is taken for so many standard deviations: the schema's scale is a guess that people may correct."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What a dictionary says of one column."""

    column: str
    label: str
    unit: str
    low: float | None
    high: float | None
    levels: list[tuple[str, tuple[str, ...]]]
    role: str
    modality: str
    kind: str


def read_dictionary(path: Path) -> list[Entry]:
    """Read a data dictionary.

    Raises:
        InvalidInput: it is no table, has no column that names columns, or a row says something that cannot be.
    """
    table = open_table(path)
    places = {key: _header(table.columns, names) for key, names in _HEADERS.items()}
    if places["column"] is None:
        raise InvalidInput(
            f"{table.name}: expected a column called {' or '.join(_HEADERS['column'])} that names the table's columns, "
            f"got {', '.join(visible(c)[:30] for c in table.columns[:8])}"
        )
    wanted = [name for name in places.values() if name is not None]
    cells = pd.concat([*table.pieces(wanted), pd.DataFrame(columns=wanted)], ignore_index=True)
    if len(cells) > _MOST_ROWS:
        raise InvalidInput(f"{table.name}: expected at most {_MOST_ROWS} columns in a dictionary, got {len(cells)}")
    rows = [{k: _text(cells[n].iloc[row]) if n else "" for k, n in places.items()} for row in range(len(cells))]
    entries = [_entry(table.name, row) for row in rows if row["column"]]
    names = [entry.column for entry in entries]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InvalidInput(f"{table.name}: {visible(twice)[:60]!r} stands there twice; describe every column once")
    return entries


def schema_by_dictionary(entries: list[Entry], *, name: str, patient: str) -> StudySchema:
    """Return the schema that a dictionary describes.

    Args:
        entries: of the dictionary.
        name: of the schema.
        patient: the column that says whose row it is, where no role says so.

    Raises:
        InvalidInput: no outcome or no input, a number without a range, or something that no schema can have.
    """
    outcomes = [_outcome(entry) for entry in entries if entry.role == "outcome"]
    whose = next((entry.column for entry in entries if entry.role == "patient"), patient)
    groups: dict[str, list[dict[str, Any]]] = {}
    for entry in entries:
        if entry.role == "input" and entry.column != whose:
            groups.setdefault(_plain_name(entry.modality or "clinical"), []).append(_variable(entry))
    if not outcomes or not groups:
        missing = "an outcome: a row with the role outcome" if not outcomes else "an input: a row without a role"
        raise InvalidInput(f"the dictionary has no row for {missing}")
    return parse(
        StudySchema,
        {
            "name": name,
            "version": 1,
            "title": name,
            "cohorts": [{"name": "all"}],
            "patient": {"column": whose},
            "never": [entry.column for entry in entries if entry.role == "never"],
            "modalities": [
                {
                    "name": group,
                    "kind": "tabular",
                    "label": group,
                    "source": "ranges of the data dictionary",
                    "variables": variables,
                }
                for group, variables in groups.items()
            ],
            "outcomes": outcomes,
        },
    )


def read_levels(text: str) -> list[tuple[str, tuple[str, ...]]]:
    """Return names of levels with their codes in the table; a level without a code is its own."""
    levels: list[tuple[str, tuple[str, ...]]] = []
    for part in re.split(r"[|;\n]", text):
        code, comma, name = (word.strip() for word in part.partition("," if "," in part else "="))
        if comma and name:
            levels.append((name, (code,) if plain(code) != plain(name) else ()))
        elif code:
            levels.append((code, ()))
    return levels


def _header(columns: tuple[str, ...], names: tuple[str, ...]) -> str | None:
    found = {re.sub(r"\s+or\s+", " or ", plain(column)): column for column in columns}
    found |= {re.sub(r"\s*\(.*\)$", "", key): column for key, column in found.items()}
    return next((found[name] for name in names if name in found), None)


def _entry(where: str, row: Mapping[str, str]) -> Entry:
    role = plain(row["role"]) or "input"
    if role not in _ROLES:
        raise InvalidInput(
            f"{where}: {visible(row['column'])[:60]!r} has the role {visible(row['role'])[:30]!r}; expected one of "
            f"{', '.join(_ROLES)}, or nothing"
        )
    return Entry(
        column=row["column"],
        label=row["label"] or row["column"],
        unit=row["unit"],
        low=_number(where, row, "low"),
        high=_number(where, row, "high"),
        levels=read_levels(row["levels"]),
        role=role,
        modality=row["modality"],
        kind=plain(row["kind"]),
    )


def _variable(entry: Entry) -> dict[str, Any]:
    if entry.levels:
        return {"kind": "category", "name": entry.column, "label": entry.label, "levels": _levels(entry)}
    low, high = _range(entry)
    return {
        "kind": "number",
        "name": entry.column,
        "label": entry.label,
        "unit": entry.unit,
        "low": low,
        "high": high,
        "centre": (low + high) / 2,
        "scale": (high - low) / _WIDTHS,
    }


def _outcome(entry: Entry) -> dict[str, Any]:
    about = {"name": _plain_name(entry.column), "label": entry.label, "column": entry.column}
    if entry.levels:
        usual = "binary" if len(entry.levels) == 2 else "categorical"
        return {**about, "kind": entry.kind or usual, "levels": _levels(entry)}
    low, high = _range(entry)
    return {**about, "kind": entry.kind or "continuous", "unit": entry.unit, "low": low, "high": high}


def _levels(entry: Entry) -> list[dict[str, Any]]:
    return [{"name": name, "spellings": list(spellings)} for name, spellings in entry.levels]


def _range(entry: Entry) -> tuple[float, float]:
    if entry.low is None or entry.high is None or not entry.low < entry.high:
        raise InvalidInput(
            f"the dictionary says neither levels nor a range of {visible(entry.column)[:60]!r}; write low and high "
            "(what is plausible, not what your patients have), levels such as '0, no | 1, yes', or the role never"
        )
    return entry.low, entry.high


def _number(where: str, row: Mapping[str, str], key: str) -> float | None:
    if not row[key]:
        return None
    try:
        return float(row[key].replace(",", "."))
    except ValueError:
        raise InvalidInput(
            f"{where}: {key} of {visible(row['column'])[:60]!r} is {visible(row[key])[:30]!r}; expected a number"
        ) from None


def _text(cell: object) -> str:
    if isinstance(cell, float):
        return "" if cell != cell else f"{cell:.12g}"
    return str(cell).strip()


def _plain_name(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.casefold()).strip("-")[:40] or "clinical"
