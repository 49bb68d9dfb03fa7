"""One hospital's tables become its patients, by the study's schema: nothing is split, held out or guessed.

A table that does not join, a column of which too many cells are refused, an outcome that is not understood: each is a
problem of the reading report, and while there is one no dataset is written.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from datasites.data.reading.cells.words import CategoryColumn
from datasites.data.reading.finding import Sources, find_modality, open_sources
from datasites.data.reading.groups import Group, ids_problem, table_facts, unread_columns
from datasites.data.reading.mapping import LocalMapping
from datasites.data.reading.measured import HospitalData, Measured, Stored
from datasites.data.reading.patients import OneRowEach, Rows, one_row_each
from datasites.data.reading.records import Records, counted, read_records, select, spelled_twice
from datasites.data.reading.report import ModalityFacts, ReadingReport, Step, TableFacts
from datasites.study.schema.document import Modality, StudySchema
from datasites.study.schema.outcomes import Classes, Outcome, Survival
from privacy.errors import InvalidInput
from privacy.sentences import say

__all__ = ["HospitalData", "Measured", "read_hospital"]
_BLOCK_CELLS = 2_000_000


def read_hospital(
    paths: Sequence[Path],
    schema: StudySchema,
    outcome: str,
    *,
    mapping: LocalMapping | None = None,
    cohort: str = "",
    scratch: Path | None = None,
) -> tuple[HospitalData, ReadingReport]:
    """Read this hospital's tables.

    Args:
        paths: tables, or folders of them.
        schema: the study's.
        outcome: which outcome of the schema.
        mapping: where columns are and how they are written; by default everything has the schema's names.
        cohort: of every patient, where no column tells it.
        scratch: a private folder; values of large tables lie on its disk, without a name, while this process needs
            them. By default everything is held in memory.

    Raises:
        InvalidInput: a table cannot be read, or a column that must be there is not.
    """
    mapping, asked = mapping or LocalMapping(), schema.outcome(outcome)
    mapping.check(schema)
    names = [level.name for level in schema.cohorts]
    if cohort and cohort not in names:
        raise InvalidInput(f"expected a cohort out of {', '.join(names)}, got {cohort[:40]!r}")
    with_cohort = bool(schema.cohort_column) and not cohort
    sources = open_sources(paths, schema, mapping)
    records = read_records(sources, schema, asked, mapping, with_cohort=with_cohort)
    kept, left_out = select(records, schema, asked, with_cohort=with_cohort)
    known = set(records.patients)
    parts = [_modality(sources, schema, modality, mapping, kept, known, scratch) for modality in schema.modalities]
    held = [part for part in parts if part.measured.patients]
    with_any = {patient for part in held for patient in part.measured.patients}
    rows = np.array([row for patient, row in kept.items() if patient in with_any], dtype=np.int64)
    patients = tuple(records.patients[row] for row in rows)
    if len(kept) > len(patients):
        left_out.append(Step(reason=say("without any modality"), patients=len(kept) - len(patients)))
    told = records.values[schema.cohort_column][rows] if with_cohort else np.zeros(len(rows))
    own = [names.index(cohort)] * len(rows) if cohort else [int(place) for place in told]
    data = HospitalData(
        patients=patients,
        cohorts=tuple(names[place] for place in own),
        outcome=np.stack([records.values[column][rows] for column in asked.columns], axis=1),
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
    sources: Sources,
    schema: StudySchema,
    modality: Modality,
    mapping: LocalMapping,
    kept: Collection[str],
    known: set[str],
    scratch: Path | None,
) -> _Part:
    group, wide = _columns(sources, modality, mapping), not modality.variables
    number = {name: place for place, name in enumerate(modality.names)}
    tables, problems = [], []
    found: list[tuple[OneRowEach, Rows, list[int]]] = []
    for table in group.tables():
        names, rows, wanted = group.read(
            table, schema.patient, rows=modality.rows, order_by=modality.order_by, wide=wide, scratch=scratch
        )
        each = one_row_each(rows, wanted)
        facts = table_facts(modality.name, wanted.table.name, len(rows.patients), rows.without_id, each.patients, known)
        tables.append(facts)
        if not facts.joined or facts.hint:
            problems.append(ids_problem(facts))
        found.append((each, rows, [number[name] for name in names]))
    joined = Stored(len(modality.names), np.dtype(np.float32 if wide else np.float64), scratch)
    with_values, empty = _joined(found, kept, joined)
    readers = {number[name]: reader for name, reader in group.readers.items()}
    combinations = {c: reader.combinations for c, reader in readers.items() if isinstance(reader, CategoryColumn)}
    measured = Measured(patients=with_values, values=joined, combinations=combinations)
    facts_of = ModalityFacts(name=modality.name, patients=len(with_values), empty=empty)
    return _Part(measured=measured, facts=facts_of, group=group, tables=tuple(tables), problems=tuple(problems))


def _columns(sources: Sources, modality: Modality, mapping: LocalMapping) -> Group:
    group, variables = Group(name=modality.name, sources=sources), {v.name: v for v in modality.variables}
    for name, place in find_modality(sources, modality, mapping).items():
        variable = variables.get(name) or modality.measure
        if variable is not None:
            group.add(variable, place, name=name)
    return group


def _joined(
    found: Sequence[tuple[OneRowEach, Rows, list[int]]], kept: Collection[str], into: Stored
) -> tuple[tuple[str, ...], int]:
    """Write every kept patient's values behind each other, in order of the ids, block by block.

    Returns:
        The patients who have a value, and how many have a row without any.
    """
    order = sorted({patient for each, _, _ in found for patient in each.patients if patient in kept})
    places = [_places(each.patients, order) for each, _, _ in found]
    step, names = max(1, _BLOCK_CELLS // max(1, into.shape[1])), np.array(order, dtype=object)
    with_values: list[str] = []
    for start in range(0, len(order), step):
        block = np.full((min(step, len(order) - start), into.shape[1]), np.nan, dtype=into.dtype)
        for (each, rows, at), own in zip(found, places, strict=True):
            lines = np.flatnonzero(own[start : start + step] >= 0)
            block[lines[:, None], np.array(at, dtype=np.int64)] = each.values(
                rows.values, own[start : start + step][lines]
            )
        filled = ~np.isnan(block).all(axis=1)
        into.append(block[filled])
        with_values += names[start : start + step][filled].tolist()
    return tuple(with_values), len(order) - len(with_values)


def _places(patients: Sequence[str], order: Sequence[str]) -> NDArray[np.int64]:
    """Return for each of ``order`` which of ``patients`` it is, -1 for none."""
    index = pd.Index(np.array(patients, dtype=object), dtype=object)
    found: NDArray[np.int64] = index.get_indexer(pd.Index(np.array(order, dtype=object), dtype=object)).astype(np.int64)
    return found


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
        seen=len(records.patients),
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
