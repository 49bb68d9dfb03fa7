"""From data frames in raw units to a model's inputs: columns in any order, modalities may lack, strangers are refused.

The transforms are those of training: of cohort tables (:mod:`datasites.data.tcga.preprocessing`) or of the study's
schema (:mod:`datasites.data.reading`).
"""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from datasites.data.ingest import spread_out
from datasites.data.reading.cells.counting import Reading
from datasites.data.reading.cells.numbers import NumberColumn
from datasites.data.reading.cells.words import CategoryColumn
from datasites.data.reading.encoding import encode
from datasites.data.reading.measured import Measured
from datasites.data.tcga.preprocessing import clinical_inputs, image_inputs, mrna_inputs
from datasites.study.schema.document import Modality
from datasites.study.schema.variables import MISSING, Number, plain
from models.config import in_order
from privacy.errors import InvalidInput
from tessera.facts import ModelFacts

Frames = pd.DataFrame | Mapping[str, pd.DataFrame]
"""One table with all columns, or a table for each modality."""
Cohort = str | Mapping[Any, str] | pd.Series | None
Matrix = NDArray[np.float32]

ID, COHORT = "case_id", "cohort"
_SHOWN = 5


def read_frames(frames: Frames, facts: ModelFacts, cohort: Cohort = None) -> tuple[pd.Index, dict[str, NDArray[Any]]]:
    """Return the patients' ids in the order in which they first appear, and the batch (:mod:`models.batch`).

    Args:
        frames: indexed by patient, or with a column of ids (``case_id``, or the one of the study's schema).
        facts: of the model.
        cohort: of everybody, or by id; else a column ``cohort`` says it, or the model knows one cohort only.

    Raises:
        InvalidInput: unknown columns or modalities, missing columns, a patient twice, a patient without any modality,
            or a cell that the schema does not understand; no cell of a patient is shown.
    """
    tables = {m: _indexed(table, facts, m) for m, table in _by_modality(frames, facts).items()}
    ids = _ids(tables)
    cohorts = _cohorts(tables, ids, facts, cohort)
    order, places = in_order(facts.features), {case: row for row, case in enumerate(ids)}
    presence = np.zeros((len(ids), len(order)), dtype=np.float32)
    batch: dict[str, NDArray[Any]] = {}
    for modality, names in facts.features.items():
        values = np.zeros((len(ids), len(names)), dtype=np.float32)
        if modality in tables:
            table = _known(tables[modality], facts, modality).dropna(how="all")
            rows = [places[case] for case in table.index]
            values[rows] = _inputs(table, modality, facts, cohorts[rows])
            presence[rows, order.index(modality)] = 1.0
        batch[modality] = values
    without = int((presence.sum(axis=1) == 0).sum())
    if without:
        raise InvalidInput(
            f"expected at least one of {', '.join(order)} for every patient, {without} have none; leave them out"
        )
    return ids, {**batch, "presence": presence, "cohort": cohorts, "label": np.zeros(len(ids), dtype=np.int64)}


def columns_of(facts: ModelFacts) -> dict[str, tuple[str, ...]]:
    """Return the raw columns that the model reads, by modality."""
    return {modality: _columns(facts, modality) for modality in facts.features}


def _columns(facts: ModelFacts, modality: str) -> tuple[str, ...]:
    if facts.schema is not None and facts.reading == "schema":
        return facts.schema.modality(modality).names
    if facts.reading == "tables" and modality == "clinical":
        return tuple(dict.fromkeys(name.split(":")[0] for name in facts.features[modality]))
    return tuple(facts.features[modality])


def _by_modality(frames: Frames, facts: ModelFacts) -> dict[str, pd.DataFrame]:
    columns = columns_of(facts)
    if isinstance(frames, Mapping):
        unknown = [name for name in frames if name not in columns]
        if unknown or not frames:
            raise InvalidInput(
                f"expected tables of {', '.join(columns)}, got {', '.join(map(repr, map(str, unknown))) or 'none'}"
            )
        return {name: _frame(table, f"{name}: ") for name, table in frames.items()}
    frames = _frame(frames, "")
    owners: dict[str, list[str]] = {}
    for modality, names in columns.items():
        for name in names:
            owners.setdefault(name, []).append(modality)
    shared = [name for name in frames.columns if len(owners.get(name, ())) > 1]
    if shared:
        raise InvalidInput(
            f"the column {shared[0]!r} belongs to {' and '.join(owners[shared[0]])}: give a table for each modality"
        )
    aside = _aside(frames, facts)
    _refuse_strangers([name for name in frames.columns if name not in owners and name not in aside], "the table")
    given = {m: [n for n in frames.columns if owners.get(n) == [m]] for m in columns}
    found = {m: frames[[*aside, *names]] for m, names in given.items() if names}
    if not found:
        raise InvalidInput(f"expected columns of {', '.join(columns)}, found none; Model.columns lists them")
    return found


def _frame(given: object, where: str) -> pd.DataFrame:
    """Return a data frame as it is, and refuse anything else."""
    if not isinstance(given, pd.DataFrame):
        raise InvalidInput(f"{where}expected a pandas data frame, a row for each patient, got a {type(given).__name__}")
    return given


def _aside(table: pd.DataFrame, facts: ModelFacts) -> list[str]:
    patient = facts.schema.patient.column if facts.schema is not None else ID
    cohort = (facts.schema.cohort_column or COHORT) if facts.schema is not None else COHORT
    return [name for name in dict.fromkeys((patient, ID, cohort, COHORT)) if name in table.columns]


def _indexed(table: pd.DataFrame, facts: ModelFacts, modality: str) -> pd.DataFrame:
    names = [name for name in _aside(table, facts) if name not in (COHORT, _cohort_column(facts))]
    found = table.set_index(names[0]) if names else table
    if isinstance(found.index, pd.MultiIndex):
        raise InvalidInput(
            f"{modality}: expected one id for each patient, got an index of {found.index.nlevels} levels"
        )
    empty = found.index.isna() | (found.index.astype(str).str.strip() == "")
    repeated = int(np.sum(found.index.duplicated() | empty))
    if repeated:
        raise InvalidInput(f"{modality}: expected every patient once, with an id; {repeated} rows are not so")
    if not found.columns.is_unique:
        raise InvalidInput(f"{modality}: expected every column once; drop the copies")
    return found


def _cohort_column(facts: ModelFacts) -> str:
    return (facts.schema.cohort_column if facts.schema is not None else "") or COHORT


def _ids(tables: Mapping[str, pd.DataFrame]) -> pd.Index:
    found: dict[Hashable, None] = {}
    for table in tables.values():
        found |= dict.fromkeys(table.index)
    if not found:
        raise InvalidInput("expected at least one patient, got empty tables")
    kinds = {"text" if isinstance(case, str) else "numbers or others" for case in found}
    if len(kinds) > 1:
        raise InvalidInput("expected ids of one kind in all tables, got text and numbers: 7 and '7' are two patients")
    return pd.Index(list(found), name=next(iter(tables.values())).index.name)


def _cohorts(tables: Mapping[str, pd.DataFrame], ids: pd.Index, facts: ModelFacts, given: Cohort) -> NDArray[np.int64]:
    known = facts.cohorts
    if isinstance(given, str):
        said: dict[Hashable, str] = dict.fromkeys(ids, given)
    elif given is not None:
        if not isinstance(given, (Mapping, pd.Series)):
            raise InvalidInput(f"expected a cohort's name, or names by id, got a {type(given).__name__}")
        said = {case: str(given[case]) for case in ids if case in given}
    else:
        said = {}
        for table in tables.values():
            column = next((n for n in (COHORT, _cohort_column(facts)) if n in table.columns), None)
            for case, name in [] if column is None else table[column].dropna().items():
                if said.setdefault(case, str(name)) != str(name):
                    raise InvalidInput("two tables give one patient different cohorts; correct them")
        if not said and len(known) == 1:
            said = dict.fromkeys(ids, known[0])
    missing, unknown = sum(case not in said for case in ids), sorted(set(said.values()) - set(known))
    if missing or unknown:
        got = f"{unknown[0][:40]!r}" if unknown else f"none for {missing} patients"
        raise InvalidInput(
            f"expected a cohort out of {', '.join(known)} for every patient, got {got}; add a column `cohort` or give "
            "`cohort=`"
        )
    return np.array([known.index(said[case]) for case in ids], dtype=np.int64)


def _known(table: pd.DataFrame, facts: ModelFacts, modality: str) -> pd.DataFrame:
    """Return a table's inputs alone; a column that the model does not know is refused."""
    names = _columns(facts, modality)
    aside = {COHORT, _cohort_column(facts)} - set(names)
    _refuse_strangers([c for c in table.columns if c not in set(names) | aside], modality)
    return table[[c for c in table.columns if c in set(names)]]


def _refuse_strangers(names: Sequence[Any], where: str) -> None:
    if names:
        shown = ", ".join(repr(str(name)[:40]) for name in names[:_SHOWN])
        raise InvalidInput(
            f"{where}: {len(names)} columns are none of the model's inputs: {shown}; drop them (Model.columns lists "
            "those it reads)"
        )


def _inputs(table: pd.DataFrame, modality: str, facts: ModelFacts, cohorts: NDArray[np.int64]) -> Matrix:
    if facts.schema is not None and facts.reading == "schema":
        return _by_schema(table, facts.schema.modality(modality))
    if facts.reading == "tables" and modality == "clinical":
        return _clinical(table, facts.features[modality])
    found = np.zeros((len(table), len(facts.features[modality])), dtype=np.float32)
    for place in sorted(set(cohorts.tolist())):
        rows = cohorts == place
        own = facts.partly.get(facts.cohorts[place], {}).get(modality, facts.features[modality])
        found[rows] = _columnwise(table[rows], modality, facts, own)
    return found


def _columnwise(table: pd.DataFrame, modality: str, facts: ModelFacts, own: Sequence[str]) -> Matrix:
    _refuse_missing(table, own, modality)
    every = facts.features[modality]
    if facts.reading == "tables":
        inputs = mrna_inputs if modality == "mrna" else image_inputs
        values = inputs(table, own, where=modality)
    else:
        strange = [n for n in own if not pd.api.types.is_numeric_dtype(table[n].dtype)]
        if strange:
            raise InvalidInput(f"{modality}: column {strange[0]!r} holds {table[strange[0]].dtype} values, not numbers")
        values = table[list(own)].to_numpy(dtype=np.float32)
        if not np.isfinite(values).all():
            raise InvalidInput(f"{modality}: expected finite numbers; this model knows no rule for missing values")
    return values if len(own) == len(every) else spread_out(values, own, every)


def _clinical(table: pd.DataFrame, features: Sequence[str]) -> Matrix:
    names = list(dict.fromkeys(name.split(":")[0] for name in features))
    values = clinical_inputs(table, names)
    for name in table.columns:
        written = np.array(
            [plain("" if pd.isna(cell) else str(cell)) not in MISSING for cell in table[name]], dtype=bool
        )
        strange = int((written & (values[:, features.index(f"{name}:missing")] == 1.0)).sum())
        if strange:
            warnings.warn(
                f"clinical: {strange} cells of {name!r} are outside what the model knows and count as missing",
                stacklevel=6,
            )
    return values


def _by_schema(table: pd.DataFrame, modality: Modality) -> Matrix:
    _refuse_missing(table, modality.names, modality.name)
    variables = {variable.name: variable for variable in modality.variables}
    values = np.full((len(table), len(modality.names)), np.nan)
    combinations: dict[int, Sequence[tuple[int, ...]]] = {}
    for place, name in enumerate(modality.names):
        variable = variables.get(name) or modality.measure
        if variable is None:
            raise InvalidInput(f"the schema says nothing of {name!r}")
        reading = Reading(column=name, variable=variable.name)
        reader = NumberColumn(variable, reading) if isinstance(variable, Number) else CategoryColumn(variable, reading)
        values[:, place] = reader.feed(_cells(table[name]))
        for row, value in reader.finish():
            values[row, place] = value
        if reading.refusals:
            reasons = "; ".join(sorted(reading.refused))
            raise InvalidInput(f"{modality.name}: {reading.refusals} cells of {name!r} are not understood: {reasons}")
        if isinstance(reader, CategoryColumn):
            combinations[place] = reader.combinations
    measured = Measured(patients=tuple(map(str, table.index)), values=values, combinations=combinations)
    return encode(modality, measured)


def _cells(cells: pd.Series) -> pd.Series:
    """Return cells as the readers want them: numbers, or text with nothing for what is missing."""
    if pd.api.types.is_numeric_dtype(cells.dtype) and not pd.api.types.is_bool_dtype(cells.dtype):
        return cells.astype(np.float64)
    return cells.map(lambda cell: "" if pd.isna(cell) else str(cell)).astype(object)


def _refuse_missing(table: pd.DataFrame, names: Sequence[str], where: str) -> None:
    absent = [name for name in names if name not in table.columns]
    if absent:
        shown = ", ".join(repr(name) for name in absent[:_SHOWN])
        raise InvalidInput(
            f"{where}: {len(absent)} of the model's {len(names)} columns are missing: {shown}; leave the modality out, "
            "or add the columns, empty where a value is not known"
        )
