"""Made-up hospital tables of any schema, with a known signal, to see a schema at work before anybody brings patients.

The tables are text in the schema's own words and are read like a hospital's own. A patient has one hidden severity: it
decides the outcome, and every variable follows it a little. Nothing is learned from real patients.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasites.study.schema.document import Modality, StudySchema
from datasites.study.schema.outcomes import Classes, Outcome, Survival
from datasites.study.schema.variables import TRANSFORMS, UNTRANSFORMED, Category, Number

Floats = NDArray[np.float64]
_SIGNAL = 0.5
_MISSING = 0.03


def write_tables(
    folder: Path, schema: StudySchema, outcome: str, *, patients: int, seed: int, site: int, modalities: Sequence[str]
) -> Path:
    """Write one hospital's tables: ``patients.csv`` and one table a modality; return the folder.

    Args:
        folder: a new one.
        schema: whose words and units they use.
        outcome: of the schema.
        patients: how many.
        seed: of the signal, the same for all hospitals.
        site: number of the hospital; its patients are its own and of one cohort. 0 has patients of every cohort, who
            are held out to score a model.
        modalities: which tables are written.

    Raises:
        InvalidInput: the schema has no such outcome.
    """
    asked = schema.outcome(outcome)
    folder.mkdir(parents=True)
    draw = np.random.default_rng([seed, site])
    severity = draw.normal(size=patients)
    ids = [f"{schema.name}-{site}-{number:05d}" for number in range(patients)]
    if schema.patient.parts:  # whose first parts alone would name everybody
        ids = [name.replace(schema.patient.separator, "x") for name in ids]
    records = _outcome(asked, severity, draw)
    if schema.cohort_column:
        spread = range(patients) if site == 0 else [site] * patients
        records[schema.cohort_column] = [schema.cohorts[place % len(schema.cohorts)].name for place in spread]
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


def _outcome(asked: Outcome, severity: Floats, draw: np.random.Generator) -> dict[str, list[str]]:
    """Return the outcome's columns: the severer a patient, the later the class, the larger the number, the sooner."""
    ranks = 0.5 * (1.0 + np.vectorize(math.erf)(severity / math.sqrt(2.0)))
    if isinstance(asked, Classes):
        prevalence = asked.prevalence or (1.0 / len(asked.levels),) * len(asked.levels)
        places = np.searchsorted(np.cumsum(prevalence)[:-1], ranks)
        return {asked.column: [asked.levels[place].name for place in places]}
    if isinstance(asked, Survival):
        happens = asked.edges[-1] * draw.exponential(1.44, len(severity)) * np.exp(-severity)
        leaves = asked.edges[-1] * draw.uniform(0.3, 1.3, len(severity))
        seen = happens <= leaves
        words = [(asked.happened if event else asked.censored).name for event in seen]
        return {asked.time: [f"{t:.6g}" for t in np.minimum(happens, leaves)], asked.event: words}
    target = asked.target
    if asked.kind == "count":
        means = np.clip(target.typical * np.exp(0.7 * severity), target.low, target.high)
        counts = np.clip(draw.poisson(means), math.ceil(target.low), math.floor(target.high))
        return {asked.column: [f"{count:d}" for count in counts]}
    numbers = target.typical + 0.7 * target.spread * (severity + 0.5 * draw.normal(size=len(severity)))
    return {asked.column: [_between(value, asked.low, asked.high) for value in numbers]}


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
        found[name] = _texts(modality.measure, scaled, centre, scale)
    return found


def _variable(variable: Number | Category, severity: Floats, weight: float, draw: np.random.Generator) -> list[str]:
    scaled = _SIGNAL * weight * severity + draw.normal(size=len(severity))
    absent = draw.random(len(severity)) < _MISSING
    if isinstance(variable, Number):
        texts = _texts(variable, scaled, variable.centre, variable.scale)
    else:
        cuts = np.linspace(-1.2, 1.2, len(variable.levels) + 1)[1:-1]
        texts = [variable.levels[int(place)].name for place in np.searchsorted(cuts, scaled)]
    return ["" if gone else text for text, gone in zip(texts, absent, strict=True)]


def _texts(variable: Number, scaled: Floats, centre: float, scale: float) -> list[str]:
    low, high = TRANSFORMS[variable.transform](variable.low), TRANSFORMS[variable.transform](variable.high)
    values = map(UNTRANSFORMED[variable.transform], np.clip(centre + scale * scaled, low, high).tolist())
    if variable.whole:
        return [f"{round(min(max(value, variable.low), variable.high))}" for value in values]
    return [_between(value, variable.low, variable.high) for value in values]


def _between(value: float, low: float, high: float) -> str:
    value = float(min(max(value, low), high))
    short = f"{value:.6g}"
    return short if low <= float(short) <= high else repr(value)


def _write(path: Path, patient: str, ids: Sequence[str], columns: Mapping[str, Sequence[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([patient, *columns])
        writer.writerows(zip(ids, *columns.values(), strict=True))
