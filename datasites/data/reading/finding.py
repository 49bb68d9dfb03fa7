"""Which column of which table a variable of the schema is read from: by the hospital's mapping, or by its name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from datasites.data.reading.mapping import ColumnRule, LocalMapping, TableRule
from datasites.data.reading.tables import SUFFIXES, Dialect, Table, known, open_table
from datasites.study.schema.document import Modality, StudySchema
from datasites.study.schema.variables import plain
from privacy.errors import InvalidInput
from privacy.sentences import say

RECORDS = "records"
"""The group of columns that are no inputs: outcome, cohort, criteria."""

_NAMED = 8


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where one variable stands."""

    table: str
    column: str
    rule: ColumnRule


@dataclass(kw_only=True)
class Sources:
    """A hospital's tables by the name its mapping gives them (else the file's), and their columns of patients."""

    tables: dict[str, Table]
    patients: dict[str, str]
    rules: Mapping[str, TableRule]
    notes: list[str] = field(default_factory=list)


def open_sources(paths: Sequence[Path], schema: StudySchema, mapping: LocalMapping) -> Sources:
    """Open every table that is given, or that the mapping names.

    Args:
        paths: tables, or folders of tables; the mapping's files are looked for below the first folder.
        schema: says which column holds the patient.
        mapping: the hospital's.

    Raises:
        InvalidInput: no table, one that cannot be read, or one without a column of patients.
    """
    tables: dict[str, Table] = {}
    notes: list[str] = []
    if mapping.tables:
        for name, rule in mapping.tables.items():
            dialect = Dialect(encoding=rule.encoding, separator=rule.separator)
            tables[name] = open_table(_below(paths, rule.file), dialect, sheet=rule.sheet)
    else:
        for path in _files(paths, notes):
            name = path.name.split(".")[0]
            if name in tables:
                raise InvalidInput(f"two tables are called {name}; name both in a mapping")
            tables[name] = open_table(path)
    for table in tables.values():
        notes += table.notes
    sources = Sources(tables=tables, patients={}, rules=mapping.tables, notes=notes)
    wanted = {plain(name) for modality in schema.modalities for name in modality.names}
    for name, table in list(tables.items()):
        asked = mapping.tables[name].patient if name in mapping.tables else ""
        if not asked and not wanted & set(map(plain, table.columns)) and schema.patient.column not in table.columns:
            notes.append(
                say(
                    "{table}: no column of the schema and no {column!r}; it was not read",
                    table=table.name,
                    column=schema.patient.column,
                )
            )
            del tables[name]
            continue
        sources.patients[name] = _column_called(table, asked or schema.patient.column, notes)
    return sources


def find_modality(sources: Sources, modality: Modality, mapping: LocalMapping) -> dict[str, Place]:
    """Return where each column of a modality stands; empty where this hospital has none of them.

    Raises:
        InvalidInput: some but not all of many columns that are measured alike, or one that stands in two tables.
    """
    found = {
        name: place
        for name in modality.names
        if (place := find(sources, name, mapping.column(modality.name, name))) is not None
    }
    absent = [name for name in modality.names if name not in found]
    if not modality.variables and found and absent:
        raise InvalidInput(
            f"modality {modality.name}: {len(absent)} of {len(modality.names)} columns are in no table, such as "
            f"{', '.join(absent[:3])}; bring all of them, or agree on a schema that names those you share"
        )
    if found and absent:
        sources.notes.append(
            say(
                "modality {modality}: {columns} stand in no table; they count as missing for every patient",
                modality=modality.name,
                columns=", ".join(absent[:_NAMED]) + (" ..." if len(absent) > _NAMED else ""),
            )
        )
    return found


def find(sources: Sources, name: str, rule: ColumnRule) -> Place | None:
    """Return where one variable stands, None where no table has it.

    Raises:
        InvalidInput: the mapping names a column that is not there, or two tables have the column.
    """
    if rule.since:
        return Place(table=_only_table(sources, name, rule), column=f"{rule.since} to {rule.until}", rule=rule)
    asked = rule.column or name
    if rule.table:
        table = sources.tables[rule.table]
        if asked not in table.columns:
            raise InvalidInput(f"{table.name}: has no column {asked[:60]!r}, which the mapping names for {name}")
        return Place(table=rule.table, column=asked, rule=rule)
    holders = [key for key, table in sources.tables.items() if asked in table.columns]
    if not holders and not rule.column:
        nearly = [(key, column) for key, table in sources.tables.items() for column in _nearly(table, asked)]
        if len(nearly) == 1:
            table = sources.tables[nearly[0][0]]
            read_as = say(
                "{table}: column {column!r} is read as {name!r}", table=table.name, column=nearly[0][1], name=name
            )
            sources.notes.append(read_as)
            return Place(table=nearly[0][0], column=nearly[0][1], rule=rule)
    if len(holders) > 1:
        names = ", ".join(sources.tables[key].name for key in holders)
        raise InvalidInput(f"{asked!r} stands in several tables ({names}); let the mapping say which counts")
    if not holders and rule.column:
        raise InvalidInput(f"no table has the column {asked[:60]!r}, which the mapping names for {name}")
    return Place(table=holders[0], column=asked, rule=rule) if holders else None


def _nearly(table: Table, name: str) -> list[str]:
    """Return the columns that differ from a name in capitals and spaces only."""
    return [column for column in table.columns if plain(column) == plain(name)]


def _only_table(sources: Sources, name: str, rule: ColumnRule) -> str:
    holders = [rule.table] if rule.table else list(sources.tables)
    holders = [key for key in holders if {rule.since, rule.until} <= set(sources.tables[key].columns)]
    if len(holders) != 1:
        raise InvalidInput(f"expected one table with the columns {rule.since!r} and {rule.until!r} of {name}")
    return holders[0]


def _below(paths: Sequence[Path], file: str) -> Path:
    relative = Path(file)
    if relative.is_absolute() or ".." in relative.parts:
        raise InvalidInput(f"expected a file below the folder of tables in the mapping, got {file[:80]!r}")
    folders = [path if path.is_dir() else path.parent for path in paths]
    for folder in folders:
        if (folder / relative).is_file():
            return folder / relative
    raise InvalidInput(f"the mapping names {file[:80]!r}, which is not among the tables given")


def _files(paths: Sequence[Path], notes: list[str]) -> list[Path]:
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        inside = sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))
        found += [p for p in inside if known(p)]
        notes += [
            say(
                "{file} is no table ({kinds}) and was not read",
                file=str(p.relative_to(path)),
                kinds=", ".join(SUFFIXES),
            )
            for p in inside
            if not known(p)
        ]
    if not found:
        raise InvalidInput(f"expected tables ({', '.join(SUFFIXES)}), found none")
    return found


def _column_called(table: Table, name: str, notes: list[str]) -> str:
    if name in table.columns:
        return name
    nearly = _nearly(table, name)
    if len(nearly) != 1:
        raise InvalidInput(
            f"{table.name}: expected a column {name!r} that says whose row it is, got "
            f"{', '.join(table.columns[:_NAMED])}{' ...' if len(table.columns) > _NAMED else ''}; "
            "name it as `patient` of the table in the mapping"
        )
    notes.append(say("{table}: column {column!r} says whose row it is", table=table.name, column=nearly[0]))
    return nearly[0]
