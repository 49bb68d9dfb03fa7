"""Columns that are read together: the inputs of one modality, or the columns of the records, table by table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasites.data.reading.cells.counting import Reading
from datasites.data.reading.cells.numbers import NumberColumn, NumberRule, unit_factor
from datasites.data.reading.cells.words import CategoryColumn
from datasites.data.reading.finding import Place, Sources
from datasites.data.reading.mapping import ColumnRule
from datasites.data.reading.patients import Column, Derived, Rows, Wanted, alike, read_rows
from datasites.data.reading.report import ColumnFacts, Strange, TableFacts
from datasites.data.reading.sniffing import shape
from datasites.study.schema.document import PatientId, RowRule
from datasites.study.schema.variables import Category, Number
from datasites.study.text import visible
from privacy.errors import InvalidInput
from privacy.sentences import joined as sentences_joined
from privacy.sentences import say, say_plural

Floats = NDArray[np.floating]
_MAPPED = 12
_EXAMPLES = 3
NOTHING = say("nothing")
CHECK_IDS = say("check the ids")


@dataclass(kw_only=True)
class Group:
    """A group's readers and what they counted, by the schema's name of the column."""

    name: str
    sources: Sources
    readers: dict[str, Column] = field(default_factory=dict)
    readings: dict[str, Reading] = field(default_factory=dict)
    places: dict[str, Place] = field(default_factory=dict)

    def add(self, variable: Number | Category, place: Place, *, name: str = "", others: bool = False) -> None:
        """Add a column; ``name`` is the schema's where it is not the variable's own.

        Raises:
            InvalidInput: the mapping names a unit or a level that the schema has not.
        """
        name, rule = name or variable.name, place.rule
        reading = Reading(column=place.column, variable=name)
        if isinstance(variable, Category):
            reader: Column = CategoryColumn(variable, reading, rule.words, others=others)
        else:
            reader = NumberColumn(variable, reading, self._number_rule(variable, place.table, rule))
        self.readers[name], self.readings[name], self.places[name] = reader, reading, place

    def tables(self) -> list[str]:
        """The tables that hold a column of this group."""
        return list(dict.fromkeys(place.table for place in self.places.values()))

    def read(
        self,
        table: str,
        patient: PatientId,
        *,
        rows: RowRule = "one",
        order_by: str = "",
        wide: bool = False,
        scratch: Path | None = None,
    ) -> tuple[list[str], Rows, Wanted]:
        """Read this group's columns of one table; return their names beside the rows.

        Raises:
            InvalidInput: the table cannot be read to its end.
        """
        names = [name for name, place in self.places.items() if place.table == table]
        readers: dict[str, list[Column]] = {}
        derived: dict[str, Derived] = {}
        in_column: dict[str, list[str]] = {}
        for name in names:
            place = self.places[name]
            in_column.setdefault(place.column, []).append(name)
            if place.rule.since:
                reading = self.readings[name]
                derived[place.column] = Derived(since=place.rule.since, until=place.rule.until, reading=reading)
            readers.setdefault(place.column, []).append(self.readers[name])
        ordered = [name for own in in_column.values() for name in own]
        if order_by and order_by not in self.sources.tables[table].columns:
            raise InvalidInput(
                f"{self.sources.tables[table].name}: expected the column {order_by!r}, which orders a patient's rows"
            )
        wanted = Wanted(
            group=self.name,
            table=self.sources.tables[table],
            patient=self.sources.patients[table],
            readers=readers,
            derived=derived,
            rows=rows,
            order_by=order_by,
            wide=wide,
        )
        return ordered, read_rows(wanted, patient, scratch), wanted

    def column_facts(self) -> list[ColumnFacts]:
        """Return how each column was read."""
        return [self._facts(name, reading) for name, reading in self.readings.items()]

    def problems(self, share: float) -> list[str]:
        """Return the columns of which more than a share of the cells was refused, and why."""
        found: list[str] = []
        for name, reading in self.readings.items():
            read = reading.cells - reading.missing
            if reading.refusals > share * max(read, 1):
                table = self.sources.tables[self.places[name].table].name
                examples = [say("{word!r}: {reason}", word=w, reason=r) for w, r, _ in reading.strange()[:_EXAMPLES]]
                found.append(
                    say(
                        "{table}, column {column!r}: {refused} of {read} values were not understood ({examples}); "
                        "correct them, or say in the mapping what they mean",
                        table=table,
                        column=reading.column,
                        refused=reading.refusals,
                        read=read,
                        examples=sentences_joined(examples),
                    )
                )
        return found

    def _facts(self, name: str, reading: Reading) -> ColumnFacts:
        common = reading.mapped.most_common()
        shown = common[:_MAPPED]
        mapped = [say_plural("{rule}: {count} cell", "{rule}: {count} cells", n, rule=rule) for rule, n in shown]
        rest = len(common) - _MAPPED
        more = [say_plural("and {count} more spelling", "and {count} more spellings", rest)] if rest > 0 else []
        return ColumnFacts(
            group=self.name,
            variable=name,
            table=self.sources.tables[self.places[name].table].name,
            column=reading.column,
            understood=reading.understood,
            missing=reading.missing,
            refused=reading.refusals,
            mapped=tuple(mapped + more),
            strange=tuple(Strange(spelling=w, reason=r, cells=n) for w, r, n in reading.strange()),
        )

    def _number_rule(self, variable: Number, table: str, rule: ColumnRule) -> NumberRule:
        if rule.unit:
            try:
                unit_factor(variable, rule.unit)
            except KeyError:
                known = ", ".join([variable.unit, *variable.units]) or "none"
                raise InvalidInput(
                    f"the mapping gives {variable.name} in {rule.unit[:40]!r}; the schema knows {known}"
                ) from None
        meant = [word for word, level in rule.words.items() if level]
        if meant:
            raise InvalidInput(
                f"the mapping reads the word {visible(meant[0])[:40]!r} of {variable.name}, which is a number, as "
                f'something; a word of a number can only say that it is missing: "{visible(meant[0])[:40]}" = ""'
            )
        own = self.sources.rules.get(table)
        decimal = rule.decimal or (own.decimal if own else "")
        commas = self.sources.tables[table].commas
        return NumberRule(unit=rule.unit, decimal=decimal, commas=commas, missing=tuple(rule.words))


def table_facts(
    group: str, table: str, rows: int, without_id: int, patients: list[str], wanted: set[str]
) -> TableFacts:
    """Return how many of a table's patients are patients of the study, and how ids look where some are not."""
    joined = [patient for patient in patients if patient in wanted]
    others = [patient for patient in patients if patient not in wanted]
    looks, expected, hint = "", "", ""
    if others and wanted:
        looks, expected = _commonest(others), _commonest(sorted(wanted))
        hint = _hint(patients, wanted, len(joined))
    return TableFacts(
        group=group,
        table=table,
        rows=rows,
        without_id=without_id,
        patients=len(patients),
        joined=len(joined),
        looks=looks,
        wanted=expected,
        hint=hint,
    )


def unread_columns(sources: Sources, groups: Sequence[Group]) -> None:
    """Note the columns of the tables that nothing of the schema was read from."""
    for key, table in sources.tables.items():
        used = {sources.patients[key]}
        for group in groups:
            for place in (p for p in group.places.values() if p.table == key):
                used |= {place.column, place.rule.since, place.rule.until}
        rest = [column for column in table.columns if column not in used]
        if rest:
            shown = ", ".join(visible(column)[:40] for column in rest[:_MAPPED]) + (
                " ..." if len(rest) > _MAPPED else ""
            )
            sources.notes.append(
                say_plural(
                    "{table}: {count} column is not in the schema and was not read: {columns}",
                    "{table}: {count} columns are not in the schema and were not read: {columns}",
                    len(rest),
                    table=table.name,
                    columns=shown,
                )
            )


def _commonest(ids: list[str]) -> str:
    return Counter(map(shape, ids)).most_common(1)[0][0]


def ids_problem(facts: TableFacts) -> str:
    """Return why the ids of a modality's table are a problem: none joined, or more would under another spelling."""
    return say(
        "{table}: {joined} of its {patients} ids are patients of the study (others look like {looks}, the study's like "
        "{wanted}); {hint}",
        table=facts.table,
        joined=facts.joined,
        patients=facts.patients,
        looks=facts.looks or NOTHING,
        wanted=facts.wanted or NOTHING,
        hint=facts.hint or CHECK_IDS,
    )


def _hint(patients: list[str], wanted: set[str], joined: int) -> str:
    loose = {alike(patient) for patient in wanted}
    found = sum(alike(patient) in loose for patient in patients)
    if found > joined:
        return say(
            "{found} instead of {joined} would agree without capitals, signs and leading zeros: write ids alike in all "
            "tables",
            found=found,
            joined=joined,
        )
    for separator in ("-", ".", "_", "/", " "):
        for parts in range(1, 6):
            cut = sum(separator.join(p.split(separator)[:parts]) in wanted for p in patients if separator in p)
            if cut > joined:
                return say(
                    "{cut} instead of {joined} would agree in their first {parts} parts, parted by {separator!r}: let "
                    "the schema say so in `patient`",
                    cut=cut,
                    joined=joined,
                    parts=parts,
                    separator=separator,
                )
    return ""
