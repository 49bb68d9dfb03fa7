"""Schemas as files: read, compared, drafted from tables, and those that come with Tessera."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd
import tomlkit

from datasites.data.reading.dictionary import read_dictionary, schema_by_dictionary
from datasites.data.reading.tables import Table, open_table
from datasites.study.schema.document import MOST_BYTES, StudySchema, parse_schema
from datasites.study.schema.variables import MISSING, plain
from datasites.study.signing import dump
from datasites.study.text import visible
from privacy.errors import InvalidInput

SHIPPED = "datasites.data.schemas"
_FREQUENT = 10
"""A word enters a draft only where so many rows hold it."""
_MOST_LEVELS = 30
_ALIKE = 60


def read_schema_document(path: Path) -> StudySchema:
    """Read a schema from a ``.toml`` or ``.json`` file, or one that comes with Tessera by its name.

    Raises:
        InvalidInput: it cannot be read, is longer than 16 MiB, or is no schema; the message says where.
    """
    if not path.suffix and not path.exists() and str(path) in shipped():
        toml = files(SHIPPED).joinpath(f"{path}.toml")
        found = toml if toml.is_file() else files(SHIPPED).joinpath(f"{path}.json")
        return parse_schema(found.read_bytes(), toml=found is toml)
    try:
        if path.stat().st_size > MOST_BYTES:
            raise InvalidInput(f"expected a schema of at most {MOST_BYTES >> 20} MiB at {path.name}")
        data = path.read_bytes()
    except OSError as error:
        known = ", ".join(shipped())
        raise InvalidInput(
            f"expected a schema at {path}, or one that comes with Tessera ({known}); could not read one: "
            f"{error.strerror}"
        ) from error
    return parse_schema(data, toml=path.suffix.lower() != ".json")


def shipped() -> tuple[str, ...]:
    """Return the names of the schemas that come with Tessera."""
    found = files(SHIPPED).iterdir()
    names = [entry.name.rpartition(".") for entry in found]
    return tuple(sorted(name for name, _, suffix in names if suffix in ("toml", "json")))


def differences(before: StudySchema, after: StudySchema) -> list[str]:
    """Return what differs, one line a field: its path, what it was, what it is."""
    return list(_differences("", dump(before), dump(after)))


def draft(tables: Sequence[Path], *, name: str, patient: str) -> str:
    """Return a schema in TOML to be filled in: names and kinds of columns, and words that at least ten rows hold.

    No number of any record enters: ranges are left open (low and high are 0), so that a draft is refused until people
    have written them.

    Raises:
        InvalidInput: a table cannot be read.
    """
    lines = [
        "# A draft: people fill in labels, units, ranges and the outcome. `tessera schema check` says what is missing.",
        f'name = "{name}"',
        "version = 1",
        f'title = "{name}"',
        'cohorts = [{name = "all"}]',
        f'patient = {{column = "{patient}"}}',
        "",
    ]
    for path in tables:
        lines += _drafted(open_table(path), patient)
    lines += [
        "# [[outcomes]]",
        '# kind = "binary"                # ordinal, categorical, count, continuous or survival',
        '# name = "..."',
        '# label = "..."',
        '# column = "..."',
        '# levels = [{name = "...", spellings = []}, {name = "...", spellings = []}]',
        "",
    ]
    return "\n".join(lines)


def described(tables: Sequence[Path], dictionary: Path, *, name: str, patient: str) -> tuple[str, list[str]]:
    """Return the schema that a data dictionary describes, in TOML, and what people should know.

    Raises:
        InvalidInput: a table or the dictionary cannot be read, the dictionary describes no schema, or a column that it
            needs is in no table.
    """
    entries = read_dictionary(dictionary)
    schema = schema_by_dictionary(entries, name=name, patient=patient)
    columns = {plain(column): column for path in tables for column in open_table(path).columns}
    told = {plain(entry.column) for entry in entries} | {plain(schema.patient.column)}
    absent = [e.column for e in entries if plain(e.column) not in columns and e.role in ("outcome", "patient")]
    if absent or plain(schema.patient.column) not in columns:
        raise InvalidInput(
            f"no table has the column {visible((absent or [schema.patient.column])[0])[:60]!r}, which the dictionary "
            "or --patient names"
        )
    unread = [visible(column)[:40] for key, column in columns.items() if key not in told]
    missing = [e.column for e in entries if plain(e.column) not in columns]
    notes = [f"not in the dictionary, and not read: {', '.join(unread)}"] if unread else []
    notes += [f"in the dictionary, and in no table: {', '.join(missing)}"] if missing else []
    head = "# Made from a data dictionary: ranges and levels are what it says, centres and scales follow from ranges.\n"
    return head + tomlkit.dumps(_without_nothing(dump(schema))), notes


def _without_nothing(value: Any) -> Any:
    """Return a value without what a schema need not say: TOML has no word for nothing."""
    if isinstance(value, dict):
        return {k: _without_nothing(v) for k, v in value.items() if v not in (None, "", [], {}, ())}
    return [_without_nothing(item) for item in value] if isinstance(value, list | tuple) else value


def _drafted(table: Table, patient: str) -> list[str]:
    stem = "".join(c if c.isalnum() else "-" for c in table.path.name.split(".")[0].casefold()).strip("-") or "table"
    columns = [column for column in table.columns if plain(column) != plain(patient)]
    lines = ["[[modalities]]", f'name = "{stem}"', f'label = "{stem}"']
    if len(columns) > _ALIKE:
        names = ", ".join(map(_quoted, columns))
        return [
            *lines,
            'kind = "sequence-counts"',
            f"columns = [{names}]",
            'measure = {name = "value", low = 0, high = 0}',
            "",
        ]
    lines += ['kind = "tabular"', "variables = ["]
    piece = next(iter(table.pieces(columns)), pd.DataFrame(columns=columns))
    for column in columns:
        cells = piece[column]
        if _numbers(cells):
            lines.append(f'  {{kind = "number", name = {_quoted(column)}, unit = "", low = 0, high = 0}},')
        else:
            counts = cells.map(lambda cell: str(cell).strip()).value_counts()
            words = [str(w) for w, n in counts.items() if n >= _FREQUENT and plain(str(w)) not in MISSING]
            words = words[:_MOST_LEVELS]
            levels = ", ".join(f"{{name = {_quoted(word)}}}" for word in words)
            lines.append(f'  {{kind = "category", name = {_quoted(column)}, levels = [{levels}]}},')
    return [*lines, "]", ""]


def _numbers(cells: pd.Series) -> bool:
    if pd.api.types.is_numeric_dtype(cells.dtype):
        return True
    given = [str(cell).strip().replace(",", ".", 1) for cell in cells if plain(str(cell)) not in MISSING]
    readable = pd.to_numeric(pd.Series(given, dtype=object), errors="coerce").notna()
    return bool(given) and float(readable.mean()) > 0.9 and len(set(given)) > 2


def _quoted(text: str) -> str:
    return '"' + "".join(f"\\u{ord(c):04X}" if ord(c) < 32 or c in '"\\\x7f' else c for c in text) + '"'


def _differences(path: str, before: Any, after: Any) -> Iterator[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted(before.keys() | after.keys()):
            yield from _differences(f"{path}.{key}".lstrip("."), before.get(key), after.get(key))
    elif _named(before) and _named(after):
        old, new = ({item["name"]: item for item in items} for items in (before, after))
        for key in dict.fromkeys([*old, *new]):
            yield from _differences(f"{path}[{key}]", old.get(key), new.get(key))
        if old.keys() == new.keys() and list(old) != list(new):
            yield f"{path}: another order"
    elif before != after:
        yield f"{path}: {_short(before)} -> {_short(after)}"


def _named(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(i, dict) and "name" in i for i in value)


def _short(value: Any) -> str:
    if value is None:
        return "not there"
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
