"""One hospital's tables become its patients, by the study's schema: nothing is split, held out or guessed.

A table that does not join, a column of which too many cells are refused, an outcome that is not understood: each is a
problem of the reading report, and while there is one no dataset is written.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasites.data.reading.cells import CategoryColumn
from datasites.data.reading.finding import Sources, find_modality, open_sources
from datasites.data.reading.groups import Group, ids_problem, table_facts, unread_columns
from datasites.data.reading.mapping import LocalMapping
from datasites.data.reading.measured import Floats, HospitalData, Measured
from datasites.data.reading.patients import one_row_each
from datasites.data.reading.records import Records, counted, read_records, select, spelled_twice
from datasites.data.reading.report import ModalityFacts, ReadingReport, Step, TableFacts
from datasites.study.schema.document import Modality, StudySchema
from datasites.study.schema.outcomes import Classes, Outcome, Survival
from privacy.errors import InvalidInput
from privacy.sentences import say

__all__ = ["HospitalData", "Measured", "read_hospital"]


def read_hospital(
    paths: Sequence[Path], schema: StudySchema, outcome: str, *, mapping: LocalMapping | None = None, cohort: str = ""
) -> tuple[HospitalData, ReadingReport]:
    """Read this hospital's tables.

    Args:
        paths: tables, or folders of them.
        schema: the study's.
        outcome: which outcome of the schema.
        mapping: where columns are and how they are written; by default everything has the schema's names.
        cohort: of every patient, where no column tells it.

    Raises:
        InvalidInput: a table cannot be read, or a column that must be there is not.
    """
    mapping, asked = mapping or LocalMapping(), schema.outcome(outcome)
    names = [level.name for level in schema.cohorts]
    if cohort and cohort not in names:
        raise InvalidInput(f"expected a cohort out of {', '.join(names)}, got {cohort[:40]!r}")
    with_cohort = bool(schema.cohort_column) and not cohort
    sources = open_sources(paths, schema, mapping)
    records = read_records(sources, schema, asked, mapping, with_cohort=with_cohort)
    kept, left_out = select(records, schema, asked, with_cohort=with_cohort)
    parts = [
        _modality(sources, schema, modality, mapping, set(kept), set(records.rows)) for modality in schema.modalities
    ]
    held = [part for part in parts if part.measured.patients]
    with_any = {patient for part in held for patient in part.measured.patients}
    patients = tuple(patient for patient in kept if patient in with_any)
    if len(kept) > len(patients):
        left_out.append(Step(reason=say("without any modality"), patients=len(kept) - len(patients)))
    rows = [records.rows[patient] for patient in patients]
    places = [0 if not with_cohort else int(row[schema.cohort_column]) for row in rows]
    own = [names.index(cohort)] * len(rows) if cohort else places
    data = HospitalData(
        patients=patients,
        cohorts=tuple(names[place] for place in own),
        outcome=np.array([[row[c] for c in asked.columns] for row in rows]).reshape(len(rows), len(asked.columns)),
        modalities={part.facts.name: part.measured for part in held},
    )
    unread_columns(sources, [records.group, *(part.group for part in parts)])
    report = _report(schema, asked, data, records, left_out, parts, sources, mapping)
    return data, report


@dataclass(frozen=True, kw_only=True)
class _Part:
    measured: Measured
    facts: ModalityFacts
    group: Group
    tables: tuple[TableFacts, ...]
    problems: tuple[str, ...]


def _modality(
    sources: Sources, schema: StudySchema, modality: Modality, mapping: LocalMapping, kept: set[str], known: set[str]
) -> _Part:
    group, wide = Group(name=modality.name, sources=sources), not modality.variables
    places = find_modality(sources, modality, mapping)
    variables = {variable.name: variable for variable in modality.variables}
    for name, place in places.items():
        variable = variables.get(name) or modality.measure
        if variable is not None:
            group.add(variable, place, name=name)
    number = {name: place for place, name in enumerate(modality.names)}
    tables, problems = [], []
    found: dict[str, list[tuple[list[int], Floats]]] = {}
    for table in group.tables():
        names, rows, wanted = group.read(
            table, schema.patient, rows=modality.rows, order_by=modality.order_by, wide=wide
        )
        patients, values = one_row_each(rows, wanted)
        facts = table_facts(modality.name, wanted.table.name, len(rows.patients), rows.without_id, patients, known)
        tables.append(facts)
        if not facts.joined or facts.hint:
            problems.append(ids_problem(facts))
        at = [number[name] for name in names]
        for patient, row in zip(patients, values, strict=True):
            if patient in kept:
                found.setdefault(patient, []).append((at, row))
    order = sorted(found)
    values = np.full((len(order), len(modality.names)), np.nan, dtype=np.float32 if wide else np.float64)
    for line, patient in enumerate(order):
        for at, row in found[patient]:
            values[line, at] = row
    filled = ~np.isnan(values).all(axis=1) if len(order) else np.zeros(0, dtype=bool)
    readers = {number[name]: reader for name, reader in group.readers.items()}
    combinations = {c: reader.combinations for c, reader in readers.items() if isinstance(reader, CategoryColumn)}
    with_values = tuple(patient for patient, has in zip(order, filled, strict=True) if has)
    measured = Measured(patients=with_values, values=values[filled], combinations=combinations)
    facts_of = ModalityFacts(name=modality.name, patients=len(with_values), empty=int((~filled).sum()))
    return _Part(measured=measured, facts=facts_of, group=group, tables=tuple(tables), problems=tuple(problems))


def _report(
    schema: StudySchema,
    outcome: Outcome,
    data: HospitalData,
    records: Records,
    left_out: Sequence[Step],
    parts: Sequence[_Part],
    sources: Sources,
    mapping: LocalMapping,
) -> ReadingReport:
    groups = [records.group, *(part.group for part in parts)]
    problems = [*records.problems, *(problem for part in parts for problem in part.problems)]
    problems += [
        say("{where}: {why}", where=part.facts.name, why=p)
        for part in parts
        for p in spelled_twice(part.measured.patients)
    ]
    problems += [problem for group in groups for problem in group.problems(mapping.refuse_above)]
    if not data.patients:
        problems.append(say("no patient is left; the list of who was left out says why"))
    outcomes = _outcomes(outcome, data)
    if outcomes and sum(step.patients > 0 for step in outcomes) < 2 and data.patients:
        problems.append(
            say(
                "every patient has the same {outcome}: nothing can be learned from this table alone",
                outcome=outcome.label,
            )
        )
    names = [level.name for level in schema.cohorts]
    return ReadingReport(
        schema=schema.name,
        schema_version=schema.version,
        schema_hash=schema.schema_hash,
        outcome=outcome.name,
        read_at=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        seen=len(records.rows),
        left_out=tuple(left_out),
        patients=len(data.patients),
        outcomes=outcomes,
        cohorts=counted(names, [names.index(cohort) for cohort in data.cohorts]),
        modalities=tuple(part.facts for part in parts),
        tables=(*records.tables, *(facts for part in parts for facts in part.tables)),
        columns=tuple(facts for group in groups for facts in group.column_facts()),
        notes=tuple(sources.notes),
        problems=tuple(problems),
    )


def _outcomes(outcome: Outcome, data: HospitalData) -> tuple[Step, ...]:
    if isinstance(outcome, Classes):
        return counted([level.name for level in outcome.levels], data.outcome[:, 0].tolist())
    if isinstance(outcome, Survival):
        return counted([outcome.censored.name, outcome.happened.name], data.outcome[:, 1].tolist())
    return ()
