"""From what was measured to a model's inputs, by the schema's public constants only.

A missing value of many alike columns is 0, the centre; a variable of its own says in an input that it is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datasites.data.dataset import MOCK_MISSING
from datasites.data.reading.measured import Measured
from datasites.study.schema.document import Modality
from datasites.study.schema.variables import TRANSFORMS, Number

Floats = NDArray[np.floating]
_PIECE = 4096
_WIDEST = 100.0
"""A scale is taken for what it says if the range is at most so many times as wide."""


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """A model's inputs of one modality, float32 [patients, inputs], all finite; they are made as they are read."""

    modality: Modality
    measured: Measured

    @property
    def shape(self) -> tuple[int, int]:
        """How many patients and inputs."""
        return len(self.measured.patients), len(self.modality.inputs)

    def __getitem__(self, rows: slice) -> NDArray[np.float32]:
        values = self.measured.values[rows]
        if self.modality.measure is not None:
            return _alike(self.modality, self.modality.measure, values)
        parts: list[Floats] = []
        for place, variable in enumerate(self.modality.variables):
            if isinstance(variable, Number):
                parts.append(_number(variable, values[:, place]))
            else:
                levels = self.measured.combinations.get(place, ())
                parts.append(_levels(len(variable.levels), values[:, place], levels))
        return np.concatenate(parts, axis=1).astype(np.float32)


def encode(modality: Modality, measured: Measured) -> NDArray[np.float32]:
    """Return the model's inputs of everybody at once, float32 [patients, inputs of the modality], all finite."""
    encoded = Encoded(modality=modality, measured=measured)
    found = np.empty(encoded.shape, dtype=np.float32)
    for start in range(0, len(found), _PIECE):  # float64 of everything at once would take twice the memory
        found[start : start + _PIECE] = encoded[start : start + _PIECE]
    return found


def _alike(modality: Modality, measure: Number, values: Floats) -> NDArray[np.float32]:
    centres, scales = (np.array(given) if given else None for given in (modality.centres, modality.scales))
    scaled = measure.encoded(values.astype(np.float64), centres, scales)
    return np.where(np.isnan(scaled), 0.0, scaled).astype(np.float32)


def _number(variable: Number, column: Floats) -> Floats:
    missing = np.isnan(column)
    scaled = variable.encoded(np.where(missing, variable.low, column))
    return np.stack([np.where(missing, 0.0, scaled), missing.astype(np.float64)], axis=1)


def _levels(count: int, column: Floats, combinations: Sequence[tuple[int, ...]]) -> Floats:
    rows_of = np.zeros((len(combinations) + 1, count + 1))
    rows_of[-1, -1] = 1.0  # of a missing value
    for code, places in enumerate(combinations):
        rows_of[code, list(places)] = 1.0
    found: Floats = rows_of[np.where(np.isnan(column), len(combinations), column).astype(np.int64)]
    return found


def mock_inputs(modality: Modality, generator: np.random.Generator, rows: int) -> NDArray[np.float32]:
    """Return made-up inputs, float32 [rows, inputs]: numbers of the schema's ranges, one level of each category.

    A number lies around the schema's centre, or around the middle of its range where the centre says nothing; a whole
    number is whole. Now and then a number is missing. Nothing is known of anybody: only ``modality``, which is
    public, and the generator's seed decide.
    """
    if modality.measure is not None:
        constants = [modality.centre_and_scale(place) for place in range(len(modality.names))]
        columns = [_drawn(modality.measure, centre, scale, generator, rows) for centre, scale in constants]
        return np.stack(columns, axis=1).astype(np.float32)
    parts: list[Floats] = []
    for variable in modality.variables:
        if isinstance(variable, Number):
            missing = generator.uniform(size=rows) < MOCK_MISSING
            drawn = _drawn(variable, variable.centre, variable.scale, generator, rows)
            parts.append(np.stack([np.where(missing, 0.0, drawn), missing], axis=1))
        else:
            chosen = generator.integers(0, len(variable.levels), size=rows)
            parts.append(np.eye(len(variable.levels) + 1)[chosen])
    return np.concatenate(parts, axis=1).astype(np.float32)


def _drawn(variable: Number, centre: float, scale: float, generator: np.random.Generator, rows: int) -> Floats:
    """Return made-up inputs of one number, float64 [rows], as values within its range give them."""
    low, high = (float(TRANSFORMS[variable.transform](end)) for end in (variable.low, variable.high))
    told = low <= centre <= high and (high - low) / _WIDEST < scale < high - low
    middle, spread = (centre, scale) if told else ((low + high) / 2, (high - low) / 6)
    values = np.clip(middle + spread * generator.normal(size=rows), low, high)
    if variable.whole and variable.transform == "none":
        values = np.clip(np.round(values), np.ceil(low), np.floor(high))
    drawn: Floats = np.clip((values - centre) / scale, -variable.clip, variable.clip)
    return drawn
