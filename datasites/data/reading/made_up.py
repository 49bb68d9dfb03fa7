"""Made-up hospital tables of any schema, with a known signal, to see a schema at work before anybody brings patients.

The tables are text in the schema's own words and are read like a hospital's own. A patient has one hidden severity: it
decides the outcome, and every variable follows it a little. Nothing is learned from real patients.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasites.study.schema.document import Modality, StudySchema
from datasites.study.schema.outcomes import Classes
from datasites.study.schema.variables import TRANSFORMS, Category, Number, Transform
from privacy.errors import InvalidInput

Floats = NDArray[np.float64]
_BACK: Mapping[Transform, Callable[[float], float]] = {
    "none": lambda x: x,
    "log1p": math.expm1,
    "log2p1": lambda x: 2.0**x - 1.0,
    "signed-log1p": lambda x: math.copysign(math.expm1(abs(x)), x),
    "arcsinh": math.sinh,
    "square-root": lambda x: max(x, 0.0) ** 2,
}
_SIGNAL = 0.5
_MISSING = 0.03


def write_tables(
    folder: Path, schema: StudySchema, outcome: str, *, patients: int, seed: int, site: int, modalities: Sequence[str]
) -> Path:
    """Write one hospital's tables: ``patients.csv`` and one table a modality; return the folder.

    Args:
        folder: a new one.
        schema: whose words and units they use.
        outcome: binary, ordinal or categorical.
        patients: how many.
        seed: of the signal, the same for all hospitals.
        site: number of the hospital; its patients are its own.
        modalities: which tables are written.

    Raises:
        InvalidInput: the outcome is of another kind.
    """
    asked = schema.outcome(outcome)
    if not isinstance(asked, Classes):
        raise InvalidInput(f"made-up patients have binary, ordinal or categorical outcomes, {outcome} is {asked.kind}")
    folder.mkdir(parents=True)
    draw = np.random.default_rng([seed, site])
    severity = draw.normal(size=patients)
    ids = [f"{schema.name}-{site}-{number:05d}" for number in range(patients)]
    prevalence = asked.prevalence or (1.0 / len(asked.levels),) * len(asked.levels)
    edges = np.cumsum(prevalence)[:-1]
    ranks = 0.5 * (1.0 + np.vectorize(math.erf)(severity / math.sqrt(2.0)))
    classes = np.searchsorted(edges, ranks)
    records = {asked.column: [asked.levels[place].name for place in classes]}
    if schema.cohort_column:
        records[schema.cohort_column] = [schema.cohorts[site % len(schema.cohorts)].name] * patients
    for criterion in schema.inclusion:
        low = criterion.low if criterion.low is not None else criterion.high
        records[criterion.column] = [criterion.one_of[0] if criterion.one_of else f"{low:g}"] * patients
    _write(folder / "patients.csv", schema.patient.column, ids, records)
    weights = np.random.default_rng([seed, 1 << 20])
    for modality in schema.modalities:
        columns = _columns(modality, severity, weights, draw)
        if modality.name in modalities:
            _write(folder / f"{modality.name}.csv", schema.patient.column, ids, columns)
    return folder


def _columns(
    modality: Modality, severity: Floats, weights: np.random.Generator, draw: np.random.Generator
) -> dict[str, list[str]]:
    if modality.measure is None:
        return {v.name: _variable(v, severity, float(weights.normal()), draw) for v in modality.variables}
    strength = _SIGNAL * weights.normal(size=len(modality.names))
    found = {}
    for place, name in enumerate(modality.names):
        centre, scale = modality.centre_and_scale(place)
        scaled = strength[place] * severity + draw.normal(size=len(severity))
        found[name] = [_text(modality.measure, value, centre, scale) for value in scaled]
    return found


def _variable(variable: Number | Category, severity: Floats, weight: float, draw: np.random.Generator) -> list[str]:
    scaled = _SIGNAL * weight * severity + draw.normal(size=len(severity))
    absent = draw.random(len(severity)) < _MISSING
    if isinstance(variable, Number):
        texts = [_text(variable, value, variable.centre, variable.scale) for value in scaled]
    else:
        cuts = np.linspace(-1.2, 1.2, len(variable.levels) + 1)[1:-1]
        texts = [variable.levels[int(place)].name for place in np.searchsorted(cuts, scaled)]
    return ["" if gone else text for text, gone in zip(texts, absent, strict=True)]


def _text(variable: Number, scaled: float, centre: float, scale: float) -> str:
    low, high = TRANSFORMS[variable.transform](variable.low), TRANSFORMS[variable.transform](variable.high)
    value = _BACK[variable.transform](min(max(centre + scale * scaled, low), high))
    value = min(max(value, variable.low), variable.high)
    return (
        f"{round(value)}"
        if variable.whole
        else f"{value:.6g}"
        if variable.low <= float(f"{value:.6g}") <= variable.high
        else repr(value)
    )


def _write(path: Path, patient: str, ids: Sequence[str], columns: Mapping[str, Sequence[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([patient, *columns])
        writer.writerows(zip(ids, *columns.values(), strict=True))
