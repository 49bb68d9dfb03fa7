"""What was read of one hospital: its patients, their outcome, and each modality's values in the schema's units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One modality: its patients in order of their ids, and ``values`` [patients, columns of the schema].

    A number is in the schema's unit, a category an index into ``combinations`` of its column, which hold places of
    levels; NaN is missing. Columns that are measured alike are float32, others float64.
    """

    patients: tuple[str, ...]
    values: Floats
    combinations: Mapping[int, Sequence[tuple[int, ...]]]


@dataclass(frozen=True, kw_only=True)
class HospitalData:
    """The patients of one hospital that belong to the study, in order of their ids.

    ``outcome`` is float64 [patients, columns of the outcome]: the place of a class, a number, or time and event (0, 1).
    """

    patients: tuple[str, ...]
    cohorts: tuple[str, ...]
    outcome: NDArray[np.float64]
    modalities: Mapping[str, Measured]
