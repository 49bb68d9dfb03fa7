"""Made-up rows that follow released tables: a mock by charged synthesis, for hospitals that want one.

A counting study releases, for each variable of its own, how many patients fall into each group of it, by outcome where
that is a class (``tessera analytics synthesis``). It is approved, summed under encryption, noised and charged like any
other. A made-up patient then gets an outcome, and each variable by her outcome; given the outcome, variables do not
depend on each other. Columns that are measured alike are drawn from the public schema. Drawing more rows costs nothing.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasites.study.schema.document import Modality, StudySchema
from datasites.study.schema.outcomes import Classes, Outcome
from datasites.study.schema.variables import Category, Number
from datasites.study.signing import Message, parse
from privacy.errors import InvalidInput

_MOST_BYTES = 16 << 20
_SEVERAL, _MISSING = "several", "missing"
Floats = NDArray[np.floating]


@dataclass(frozen=True, kw_only=True)
class ReleasedTable(Message):
    """Noised counts of one variable: a row for each class of the outcome, or one row; a column for each of ``groups``.

    ``edges`` part a number, in its unit, and are empty of a category. The last groups may be ``several`` and
    ``missing``.
    """

    groups: tuple[str, ...]
    counts: tuple[tuple[float, ...], ...]
    edges: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        rows = [np.array(row, dtype=np.float64) for row in self.counts]
        if not rows or any(row.shape != (len(self.groups),) or not np.isfinite(row).all() for row in rows):
            raise InvalidInput("expected a table of finite counts with a number for every group")
        if self.edges and not (
            len(self.edges) - 1 <= len(self.groups) <= len(self.edges)
            and all(a < b and math.isfinite(b - a) for a, b in itertools.pairwise(self.edges))
        ):
            raise InvalidInput("expected rising edges, a group between two of them, and one for what is missing")

    def chances(self, row: int) -> NDArray[np.float64]:
        """Return how likely each group is; noise below zero counts as nobody, and ``several`` as missing."""
        counts = np.maximum(np.array(self.counts[row], dtype=np.float64), 0.0)
        if _SEVERAL in self.groups:
            counts[self.groups.index(_SEVERAL)] = 0.0
        total = counts.sum()
        found: NDArray[np.float64] = counts / total if total > 0 else np.full(len(counts), 1.0 / len(counts))
        return found


@dataclass(frozen=True, kw_only=True)
class ReleasedTables(Message):
    """What a study released to make mocks by: the tables by ``MODALITY.NAME``, and where they come from.

    ``outcome`` holds the noised counts of its classes, and is empty where the outcome is no class.
    """

    format: int = 1
    schema_hash: str
    outcome_name: str
    source: str
    outcome: tuple[float, ...] = ()
    tables: Mapping[str, ReleasedTable]

    def check(self, schema: StudySchema, outcome: Outcome) -> None:
        """Refuse tables of another schema or outcome, and those that do not fit its variables.

        Raises:
            InvalidInput: so they are.
        """
        if self.format != 1 or (self.schema_hash, self.outcome_name) != (schema.schema_hash, outcome.name):
            raise InvalidInput(
                f"the released tables are of another schema, version or outcome than {schema.name} version "
                f"{schema.version} and {outcome.name}"
            )
        rows = len(outcome.levels) if isinstance(outcome, Classes) else 1
        if len(self.outcome) != (rows if isinstance(outcome, Classes) else 0):
            raise InvalidInput(f"expected {rows} counts of the outcome {outcome.name}")
        variables = {f"{m.name}.{v.name}": v for m in schema.modalities for v in m.variables}
        for name, table in self.tables.items():
            variable = variables.get(name)
            if variable is None or len(table.counts) != rows or isinstance(variable, Number) != bool(table.edges):
                raise InvalidInput(f"the released table of {name[:60]!r} does not fit the schema")
            if isinstance(variable, Category):
                levels = tuple(level.name for level in variable.levels)
                if table.groups[: len(levels)] != levels or not set(table.groups[len(levels) :]) <= {
                    _SEVERAL,
                    _MISSING,
                }:
                    raise InvalidInput(f"the released table of {name[:60]!r} has other levels than the schema")


def read_tables(path: Path) -> ReleasedTables:
    """Read what ``tessera analytics marginals`` wrote.

    Raises:
        InvalidInput: it cannot be read, is too long, or holds something else.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InvalidInput(f"expected at most {_MOST_BYTES >> 20} MiB of released tables at {path.name}")
        return parse(ReleasedTables, json.loads(path.read_bytes()))
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidInput(f"expected released tables (JSON) at {path.name}, could not read them") from error


def drawn_classes(released: ReleasedTables, generator: np.random.Generator, rows: int) -> NDArray[np.int64]:
    """Return made-up classes of the outcome, int64 [rows]; 0 everywhere where it is no class."""
    if not released.outcome:
        return np.zeros(rows, dtype=np.int64)
    table = ReleasedTable(groups=tuple(map(str, range(len(released.outcome)))), counts=(released.outcome,))
    return generator.choice(len(released.outcome), size=rows, p=table.chances(0))


def drawn_inputs(
    modality: Modality,
    released: ReleasedTables,
    classes: NDArray[np.int64],
    drawn: Floats,
    generator: np.random.Generator,
) -> NDArray[np.float32]:
    """Return made-up inputs of a modality, float32 [rows, inputs]: released variables by their tables.

    Args:
        modality: of the schema.
        released: its tables.
        classes: of the made-up patients, see :func:`drawn_classes`.
        drawn: inputs by the public schema, for the variables that no table is of.
        generator: public randomness.
    """
    found, place = np.array(drawn, dtype=np.float64), 0
    for variable in modality.variables:
        width = len(variable.inputs())
        table = released.tables.get(f"{modality.name}.{variable.name}")
        if table is not None:
            found[:, place : place + width] = _variable(variable, table, classes, generator)
        place += width
    return found.astype(np.float32)


def _variable(
    variable: Number | Category, table: ReleasedTable, classes: NDArray[np.int64], generator: np.random.Generator
) -> NDArray[np.float64]:
    rows = [table.chances(row) for row in range(len(table.counts))]
    groups = np.array([generator.choice(len(table.groups), p=rows[own]) for own in classes])
    inner = len(table.edges) - 1 if table.edges else len(variable.inputs()) - 1
    missing = groups >= inner
    if isinstance(variable, Category):
        found: NDArray[np.float64] = np.eye(inner + 1)[np.where(missing, inner, groups)]
        return found
    kept = np.where(missing, 0, groups)
    low, high = np.array(table.edges)[kept], np.array(table.edges)[kept + 1]
    values = np.clip(low + (high - low) * generator.uniform(size=len(groups)), variable.low, variable.high)
    if variable.whole:
        values = np.clip(np.round(values), math.ceil(variable.low), math.floor(variable.high))
    return np.stack([np.where(missing, 0.0, variable.encoded(values)), missing.astype(np.float64)], axis=1)
