"""What is known of a patient besides the inputs: outcome, cohort, and whether she belongs to the study."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datasites.data.part_files import blocks
from datasites.data.patient_rows import plain_id
from datasites.data.reading.cells.words import CategoryColumn
from datasites.data.reading.finding import RECORDS, Sources, find
from datasites.data.reading.groups import CHECK_IDS, NOTHING, Group, table_facts
from datasites.data.reading.mapping import LocalMapping
from datasites.data.reading.patients import Rows
from datasites.data.reading.report import Step, TableFacts
from datasites.study.schema.document import Criterion, StudySchema
from datasites.study.schema.outcomes import Classes, Outcome, Quantity
from datasites.study.schema.variables import Category, Level, Number
from privacy.errors import InvalidInput
from privacy.sentences import say, say_plural

Floats = NDArray[np.float64]
_LONGEST_TIME = 1e6


@dataclass(frozen=True, kw_only=True)
class Records:
    """Every patient that some table of records names, and by the schema's names her columns, float64 [patients].

    A category is the place of its level; NaN is unknown.
    """

    patients: Sequence[str]
    values: Mapping[str, Floats]
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
    merged = _Merged()
    named: dict[str, set[str]] = {}
    counted_rows: list[tuple[str, int, int]] = []
    tables: list[TableFacts] = []
    problems: list[str] = []
    for table in group.tables():
        names, rows, wanted = group.read(table, schema.patient)
        conflicts = merged.add(names, rows)
        if conflicts:
            problems.append(_contradiction(wanted.table.name, names, conflicts))
        named[wanted.table.name] = set(filter(None, rows.patients))
        without = sum(not patient for patient in rows.patients)
        counted_rows.append((wanted.table.name, len(rows.patients), without))
    for name, total, without in counted_rows:
        elsewhere = {patient for other, own in named.items() if other != name for patient in own}
        facts = table_facts(RECORDS, name, total, without, sorted(named[name]), elsewhere or named[name])
        tables.append(facts)
        if not facts.joined or facts.hint:
            problems.append(_apart(facts))
    patients = list(merged.places)
    problems += spelled_twice(patients)
    readers = {name: reader for name, reader in group.readers.items() if isinstance(reader, CategoryColumn)}
    placed = {
        name: _placed(merged.column(name), readers[name]) if name in readers else merged.column(name)
        for name in group.readers
    }
    return Records(patients=patients, values=placed, group=group, tables=tuple(tables), problems=tuple(problems))


class _Merged:
    """The rows of several tables as columns: of a cell that several rows fill, the first value counts."""

    def __init__(self) -> None:
        self.places: dict[str, int] = {}
        self._columns: dict[str, Floats] = {}

    def column(self, name: str) -> Floats:
        """Return a column for every patient seen so far, NaN where she has no value."""
        return self._grown(self._columns.get(name, np.zeros(0)))

    def add(self, names: Sequence[str], rows: Rows) -> int:
        """Take a table's rows in; return how many patients have rows that contradict each other."""
        at = np.array([self.places.setdefault(p, len(self.places)) if p else -1 for p in rows.patients], np.int64)
        conflicts: set[int] = set()
        for place, name in enumerate(names):
            known = self.column(name)
            for start, piece in blocks(rows.values):
                own, values = at[start : start + len(piece)], piece[:, place].astype(np.float64)
                told = (own >= 0) & ~np.isnan(values)
                own, values = own[told], values[told]
                patients, first = np.unique(own, return_index=True)
                empty = np.isnan(known[patients])
                known[patients[empty]] = values[first[empty]]
                conflicts.update(own[values != known[own]].tolist())
            self._columns[name] = known
        return len(conflicts)

    def _grown(self, column: Floats) -> Floats:
        return np.concatenate([column, np.full(len(self.places) - len(column), np.nan)])


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
) -> tuple[dict[str, int], list[Step]]:
    """Return the patients that belong to the study, in order of their ids, each with her place among the records.

    Beside them: how many were left out, and for which first reason.
    """
    reasons = _reasons(records, schema, outcome, with_cohort)
    counted_reasons = Counter(reason for reason in reasons if reason)
    kept = sorted((records.patients[row], row) for row, reason in enumerate(reasons) if not reason)
    return dict(kept), [Step(reason=reason, patients=count) for reason, count in counted_reasons.most_common()]


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


def _placed(codes: Floats, reader: CategoryColumn) -> Floats:
    """Return places of levels for codes of a category."""
    places = np.array([float(combination[0]) for combination in reader.combinations] or [math.nan])
    return np.where(np.isnan(codes), math.nan, places[np.nan_to_num(codes).astype(np.int64)])


def _reasons(records: Records, schema: StudySchema, outcome: Outcome, with_cohort: bool) -> list[str]:
    """Return for each patient the first reason to leave her out, empty for none."""
    found = np.zeros(len(records.patients), dtype=np.int64)
    reasons = [""]

    def leave_out(which: NDArray[np.bool_], reason: str) -> None:
        found[which & (found == 0)] = len(reasons)
        reasons.append(reason)

    for criterion in schema.inclusion:
        values = records.values[criterion.column]
        leave_out(np.isnan(values), say("unknown whether: {criterion}", criterion=criterion.label))
        leave_out(~_inside(values, criterion), say("not: {criterion}", criterion=criterion.label))
    for column in outcome.columns:
        leave_out(np.isnan(records.values[column]), say("without a value of {outcome}", outcome=outcome.label))
    if isinstance(outcome, Classes):
        beyond = records.values[outcome.column] >= len(outcome.levels)
        leave_out(beyond, say("{outcome} that this outcome leaves out", outcome=outcome.label))
    if with_cohort:
        leave_out(np.isnan(records.values[schema.cohort_column]), say("without a cohort"))
    return [reasons[place] for place in found]


def _inside(values: Floats, criterion: Criterion) -> NDArray[np.bool_]:
    if criterion.one_of:
        return np.asarray(values < len(criterion.one_of))
    low = -math.inf if criterion.low is None else criterion.low
    high = math.inf if criterion.high is None else criterion.high
    return np.asarray((values >= low) & (values <= high))


def counted(names: Sequence[str], values: Sequence[float]) -> tuple[Step, ...]:
    """Return how many patients each level has."""
    found = Counter(int(value) for value in values)
    return tuple(Step(reason=name, patients=found.get(place, 0)) for place, name in enumerate(names))
