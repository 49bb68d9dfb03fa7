"""What a counting study has to release so that mocks can follow it, and the file that hospitals make them by."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from datasites.data.synthesis import ReleasedTable, ReleasedTables
from datasites.study.schema.document import StudySchema
from datasites.study.schema.outcomes import Classes
from datasites.study.schema.variables import Number
from models.counting import Axis, Count, Question, QuestionKind
from orchestrator.analytics.answers import Answer
from orchestrator.analytics.columns import MISSING, Columns, number_axis, scale_edges
from privacy.errors import InvalidInput

_BINS = 12


def questions(columns: Columns) -> tuple[Question, ...]:
    """Return one question for the outcome's classes and one for each variable of its own, by class where there are any.

    Raises:
        InvalidInput: hospitals read their tables by no schema, or it has no variables of their own.
    """
    document, by = _document(columns), _outcome(columns)
    names = [f"{m.name}.{v.name}" for m in document.modalities for v in m.variables]
    if not names:
        raise InvalidInput(f"the schema {document.name} has no variables of their own: mocks follow the public schema")
    found = [Question(kind="counts", title="patients by outcome", counts=(Count(axes=by),), names=())] if by else []
    kind: QuestionKind = "cross_table" if by else "histogram"
    held = [m.name for m in document.modalities if m.variables]
    for name in (*held, *names):  # who lacks a modality lacks its variables too, which is no missing value
        axis = columns.axis(name) if name in held else _axis(columns, name)
        count = Count(axes=(*by, axis))
        found.append(Question(kind=kind, title=f"{name} for mocks", counts=(count,), names=(name,)))
    return tuple(found)


def released_tables(columns: Columns, answers: Sequence[Answer], *, source: str) -> ReleasedTables:
    """Return what hospitals make mocks by.

    Args:
        columns: what was asked of.
        answers: of :func:`questions`.
        source: the study that released them and what it cost.

    Raises:
        InvalidInput: the answers are of other questions.
    """
    document, by = _document(columns), _outcome(columns)
    expected = questions(columns)
    if [(a.kind, a.title) for a in answers] != [(q.kind, q.title) for q in expected]:
        raise InvalidInput("expected the answers of `tessera analytics synthesis`, got those of another question")
    outcome: tuple[float, ...] = ()
    tables: dict[str, ReleasedTable] = {}
    without: dict[str, NDArray[np.float64]] = {}
    for question, answer in zip(expected, answers, strict=True):
        values = np.array(answer.table["patients"], dtype=np.float64)
        if question.kind == "counts":
            outcome = tuple(values.round(2).tolist())
            continue
        axis, name = question.counts[0].axes[-1], question.names[0]
        rows = values.reshape(len(by[0].groups) if by else 1, len(axis.groups))
        if axis.kind == "modality":
            without[name] = rows[:, 0]
            continue
        if axis.groups[-1] == MISSING:
            rows[:, -1] = np.maximum(rows[:, -1] - without[name.partition(".")[0]], 0.0)
        counts = tuple(map(tuple, rows.round(2).tolist()))
        tables[name] = ReleasedTable(groups=axis.groups, counts=counts, edges=axis.marks)
    return ReleasedTables(
        schema_hash=document.schema_hash, outcome_name=columns.task, source=source, outcome=outcome, tables=tables
    )


def _document(columns: Columns) -> StudySchema:
    if columns.document is None:
        raise InvalidInput(
            "expected datasets that hospitals read by a study's schema; these were dealt of public tables"
        )
    return columns.document


def _outcome(columns: Columns) -> tuple[Axis, ...]:
    classes = isinstance(_document(columns).outcome(columns.task), Classes)
    return (columns.axis("outcome"),) if classes else ()


def _axis(columns: Columns, name: str) -> Axis:
    column = columns.column(name)
    if isinstance(column.variable, Number):
        return number_axis(column, scale_edges(column, _BINS))
    return columns.axis(name)
