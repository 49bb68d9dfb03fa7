"""What is known of a patient besides the inputs: outcome, cohort, and whether she belongs to the study."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from datasites.data.dataset import plain_id
from datasites.data.reading.cells import CategoryColumn
from datasites.data.reading.finding import RECORDS, Sources, find
from datasites.data.reading.groups import CHECK_IDS, NOTHING, Group, as_mapping, table_facts
from datasites.data.reading.mapping import LocalMapping
from datasites.data.reading.report import Step, TableFacts
from datasites.study.schema.document import Criterion, StudySchema
from datasites.study.schema.outcomes import Classes, Outcome, Quantity
from datasites.study.schema.variables import Category, Level, Number
from privacy.errors import InvalidInput
from privacy.sentences import say, say_plural

_LONGEST_TIME = 1e6


@dataclass(frozen=True, kw_only=True)
class Records:
    """Every patient that some table of records names: her columns, by the schema's names; a category is a place."""

    rows: Mapping[str, Mapping[str, float]]
    group: Group
    tables: tuple[TableFacts, ...]
    problems: tuple[str, ...]


def read_records(
    sources: Sources, schema: StudySchema, outcome: Outcome, mapping: LocalMapping, *, with_cohort: bool
) -> Records:
    """Read outcome, cohort and criteria of every patient, from whichever tables hold them.

    Several rows of one patient count as one where they agree in every cell that both have; else they are a problem.

    Raises:
        InvalidInput: a column is in no table, or a table cannot be read.
    """
    group = Group(name=RECORDS, sources=sources)
    for name, (variable, others) in _variables(schema, outcome, with_cohort).items():
        place = find(sources, name, mapping.column(RECORDS, name))
        if place is None:
            raise InvalidInput(
                f"no table has the column {name!r}, which the schema needs; name yours in the mapping under "
                f'[columns."{name}"]'
            )
        group.add(variable, place, name=name, others=others)
    merged: dict[str, dict[str, float]] = {}
    named: dict[str, dict[str, None]] = {}
    counted_rows: list[tuple[str, int, int]] = []
    tables: list[TableFacts] = []
    problems: list[str] = []
    for table in group.tables():
        names, rows, wanted = group.read(table, schema.patient)
        values = np.concatenate(rows.values) if rows.values else np.zeros((0, len(names)))
        conflicts: set[str] = set()
        for patient, row in zip(rows.patients, values, strict=True):
            if patient and not _agree(merged.setdefault(patient, {}), as_mapping(names, row)):
                conflicts.add(patient)
        if conflicts:
            problems.append(_contradiction(wanted.table.name, names, len(conflicts)))
        named[wanted.table.name] = dict.fromkeys(filter(None, rows.patients))
        without = sum(not patient for patient in rows.patients)
        counted_rows.append((wanted.table.name, len(rows.patients), without))
    for name, total, without in counted_rows:
        elsewhere = {patient for other, own in named.items() if other != name for patient in own}
        facts = table_facts(RECORDS, name, total, without, list(named[name]), elsewhere or set(named[name]))
        tables.append(facts)
        if not facts.joined or facts.hint:
            problems.append(_apart(facts))
    problems += spelled_twice(merged)
    readers = {name: reader for name, reader in group.readers.items() if isinstance(reader, CategoryColumn)}
    placed = {patient: _placed(row, readers) for patient, row in merged.items()}
    return Records(rows=placed, group=group, tables=tuple(tables), problems=tuple(problems))


def _contradiction(table: str, columns: Sequence[str], patients: int) -> str:
    return say_plural(
        "{table}: {count} patient has rows that contradict each other in {columns}; correct them, or leave out the "
        "rows that do not count",
        "{table}: {count} patients have rows that contradict each other in {columns}; correct them, or leave out the "
        "rows that do not count",
        patients,
        table=table,
        columns=", ".join(columns),
    )


def _apart(facts: TableFacts) -> str:
    return say(
        "{table}: {joined} of its {patients} ids are in the other tables with outcome, cohort or criteria (others look "
        "like {looks}); {hint}",
        table=facts.table,
        joined=facts.joined,
        patients=facts.patients,
        looks=facts.looks or NOTHING,
        hint=facts.hint or CHECK_IDS,
    )


def spelled_twice(patients: Collection[str]) -> list[str]:
    """Return a problem where two ids differ in capitals, signs or spaces only: one patient would count as two."""
    repeated = len(patients) - len({plain_id(patient) for patient in patients})
    if not repeated:
        return []
    return [
        say_plural(
            "{count} id is another spelling of an id (capitals, spaces and punctuation do not count): one patient "
            "would count as two; write every patient in one way",
            "{count} ids are another spelling of an id (capitals, spaces and punctuation do not count): one patient "
            "would count as two; write every patient in one way",
            repeated,
        )
    ]


def select(
    records: Records, schema: StudySchema, outcome: Outcome, *, with_cohort: bool
) -> tuple[list[str], list[Step]]:
    """Return the patients that belong to the study, and how many were left out for which first reason."""
    reasons: Counter[str] = Counter()
    kept = []
    for patient, row in records.rows.items():
        reason = _reason(row, schema, outcome, with_cohort)
        if reason:
            reasons[reason] += 1
        else:
            kept.append(patient)
    return sorted(kept), [Step(reason=reason, patients=count) for reason, count in reasons.most_common()]


def _variables(schema: StudySchema, outcome: Outcome, with_cohort: bool) -> dict[str, tuple[Number | Category, bool]]:
    """The columns of the records by name, and whether words beside its levels count as one level more."""
    found: dict[str, tuple[Number | Category, bool]] = {}
    if isinstance(outcome, Classes):
        left = tuple(Level(name=word) for word in outcome.left_out)
        found[outcome.column] = (Category(name=outcome.column, levels=(*outcome.levels, *left)), False)
    elif isinstance(outcome, Quantity):
        whole = outcome.kind == "count"
        number = Number(name=outcome.column, unit=outcome.unit, low=outcome.low, high=outcome.high, whole=whole)
        found[outcome.column] = (number, False)
    else:
        found[outcome.time] = (Number(name=outcome.time, unit=outcome.unit, low=0.0, high=_LONGEST_TIME), False)
        found[outcome.event] = (Category(name=outcome.event, levels=(outcome.censored, outcome.happened)), False)
    if with_cohort:
        found[schema.cohort_column] = (Category(name=schema.cohort_column, levels=schema.cohorts), False)
    for criterion in schema.inclusion:
        if criterion.column in found:
            raise InvalidInput(f"the schema has a criterion on {criterion.column!r}, which is its outcome or cohort")
        found[criterion.column] = _criterion(criterion)
    return found


def _criterion(criterion: Criterion) -> tuple[Number | Category, bool]:
    if criterion.one_of:
        levels = tuple(Level(name=word) for word in criterion.one_of)
        return Category(name=criterion.column, levels=levels), True
    return Number(name=criterion.column, low=-1e12, high=1e12), False


def _agree(known: dict[str, float], row: Mapping[str, float]) -> bool:
    agreed = True
    for name, value in row.items():
        before = known.get(name, math.nan)
        if math.isnan(before):
            known[name] = value
        elif not math.isnan(value) and value != before:
            agreed = False
    return agreed


def _placed(row: Mapping[str, float], readers: Mapping[str, CategoryColumn]) -> dict[str, float]:
    """Return a row in which codes of categories have become places of levels."""
    return {
        name: float(readers[name].combinations[int(value)][0]) if name in readers and not math.isnan(value) else value
        for name, value in row.items()
    }


def _reason(row: Mapping[str, float], schema: StudySchema, outcome: Outcome, with_cohort: bool) -> str:
    for criterion in schema.inclusion:
        value = row.get(criterion.column, math.nan)
        if math.isnan(value):
            return say("unknown whether: {criterion}", criterion=criterion.label)
        if not _inside(value, criterion):
            return say("not: {criterion}", criterion=criterion.label)
    values = [row.get(name, math.nan) for name in outcome.columns]
    if any(map(math.isnan, values)):
        return say("without a value of {outcome}", outcome=outcome.label)
    if isinstance(outcome, Classes) and values[0] >= len(outcome.levels):
        return say("{outcome} that this outcome leaves out", outcome=outcome.label)
    if with_cohort and math.isnan(row.get(schema.cohort_column, math.nan)):
        return say("without a cohort")
    return ""


def _inside(value: float, criterion: Criterion) -> bool:
    if criterion.one_of:
        return value < len(criterion.one_of)
    low = -math.inf if criterion.low is None else criterion.low
    high = math.inf if criterion.high is None else criterion.high
    return low <= value <= high


def counted(names: Sequence[str], values: Sequence[float]) -> tuple[Step, ...]:
    """Return how many patients each level has."""
    found = Counter(int(value) for value in values)
    return tuple(Step(reason=name, patients=found.get(place, 0)) for place, name in enumerate(names))
