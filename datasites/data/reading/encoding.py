"""From what was measured to a model's inputs, by the schema's public constants only.

A missing value of many alike columns is 0, the centre; a variable of its own says in an input that it is missing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from datasites.data.reading.measured import Measured
from datasites.study.schema.document import Modality
from datasites.study.schema.variables import Number

Floats = NDArray[np.floating]
_PIECE = 4096


def encode(modality: Modality, measured: Measured) -> NDArray[np.float32]:
    """Return the model's inputs, float32 [patients, inputs of the modality], all finite."""
    if modality.measure is not None:
        return _alike(modality, modality.measure, measured.values)
    parts: list[Floats] = []
    for place, variable in enumerate(modality.variables):
        column = measured.values[:, place]
        if isinstance(variable, Number):
            parts.append(_number(variable, column))
        else:
            parts.append(_levels(len(variable.levels), column, measured.combinations.get(place, ())))
    return np.concatenate(parts, axis=1).astype(np.float32)


def _alike(modality: Modality, measure: Number, values: Floats) -> NDArray[np.float32]:
    centres, scales = (np.array(given) if given else None for given in (modality.centres, modality.scales))
    found = np.empty(values.shape, dtype=np.float32)
    for start in range(0, len(values), _PIECE):  # float64 of everything at once would take twice the memory
        scaled = measure.encoded(values[start : start + _PIECE].astype(np.float64), centres, scales)
        found[start : start + _PIECE] = np.where(np.isnan(scaled), 0.0, scaled)
    return found


def _number(variable: Number, column: Floats) -> Floats:
    missing = np.isnan(column)
    scaled = variable.encoded(np.where(missing, variable.low, column))
    return np.stack([np.where(missing, 0.0, scaled), missing.astype(np.float64)], axis=1)


def _levels(count: int, column: Floats, combinations: Sequence[tuple[int, ...]]) -> Floats:
    found = np.zeros((len(column), count + 1))
    for row, code in enumerate(column):
        if np.isnan(code):
            found[row, -1] = 1.0
        else:
            found[row, list(combinations[int(code)])] = 1.0
    return found


def mock_inputs(modality: Modality, generator: np.random.Generator, rows: int) -> NDArray[np.float32]:
    """Return made-up inputs, float32 [rows, inputs]: numbers around the schema's centres, one level of each category.

    Nothing is known of anybody: only ``modality``, which is public, and the generator's seed decide.
    """
    if modality.measure is not None:
        values = generator.normal(size=(rows, len(modality.names)))
        return np.clip(values, -modality.measure.clip, modality.measure.clip).astype(np.float32)
    parts: list[Floats] = []
    for variable in modality.variables:
        if isinstance(variable, Number):
            low, high = sorted((variable.encoded(variable.low), variable.encoded(variable.high)))
            drawn = np.clip(generator.normal(size=rows), low, high)
            parts.append(np.stack([drawn, np.zeros(rows)], axis=1))
        else:
            chosen = generator.integers(0, len(variable.levels), size=rows)
            parts.append(np.eye(len(variable.levels) + 1)[chosen])
    return np.concatenate(parts, axis=1).astype(np.float32)
