"""From raw tables to model inputs by public constants only; no statistic of a private record enters.

Human-interpretable image features (HIFs) are centred and scaled after a signed log1p. The constants go by the kind of
the feature, which is read off its *name*; they are rounded, so they say what such a quantity looks like on any
whole-slide image (areas of tens of square millimetres, tens of thousands of cells, ratios around one) and nothing about
a hospital.

Features of an unknown kind have no such constants, and none are made up. A second signed log1p brings them near each
other, whatever their unit, and leaves nothing to clip; a study then releases their means and spreads with noise and
divides by them (``standardised`` in :class:`models.config.ModelConfig`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from datasites.data.tcga.clinical import read_cells
from datasites.data.tcga.leakage import refuse_leakage
from datasites.data.tcga.tables import MAP_FEATURE
from datasites.data.tcga.variables import VARIABLES
from datasites.study.schema.variables import Category, Number
from privacy.errors import InvalidInput

IMAGE_CLIP = 5.0

Matrix = NDArray[np.float32]


def mrna_inputs(table: pd.DataFrame, genes: Sequence[str], *, where: str) -> Matrix:
    """Return arcsinh of the expression z-scores, float32 [cases, genes]; a missing value is 0 (the average)."""
    return np.arcsinh(numbers(table, genes, where=where, genes=True))


def image_inputs(table: pd.DataFrame, features: Sequence[str], *, where: str) -> Matrix:
    """Return slide features on a common scale, float32 [cases, features]; a missing value is 0."""
    if features and all(name.startswith(MAP_FEATURE) for name in features):
        return table[list(features)].to_numpy(dtype=np.float32)  # tissue maps are on 0..1 already
    raw = numbers(table, features, where=where)
    constants = np.array([constants_of(f) or (0.0, 1.0) for f in features], dtype=np.float32).reshape(-1, 2)
    once = _signed_log1p(raw)
    known = np.clip((once - constants[:, 0]) / constants[:, 1], -IMAGE_CLIP, IMAGE_CLIP)
    unknown = np.array([constants_of(f) is None for f in features], dtype=bool)
    missing = table[list(features)].isna().to_numpy()
    return np.where(missing, 0.0, np.where(unknown, _signed_log1p(once), known)).astype(np.float32)


def unscaled(features: Iterable[str]) -> bool:
    """Return whether some slide feature has no public centre and scale; tissue maps need none."""
    return any(constants_of(name) is None for name in features if not name.startswith(MAP_FEATURE))


def _signed_log1p(values: Matrix) -> Matrix:
    return np.asarray(np.sign(values) * np.log1p(np.abs(values)), np.float32)


def clinical_inputs(table: pd.DataFrame, columns: Iterable[str]) -> Matrix:
    """Return the encoded clinical variables, float32 [cases, features], in the order of :func:`clinical_features`.

    Args:
        table: one row per case; columns that it lacks give zeros.
        columns: which variables to use; see :data:`datasites.data.tcga.variables.VARIABLES`.

    Raises:
        InvalidInput: a requested column leaks the stage, or has no public encoding.
    """
    parts = [_encode(table, variable) for variable in chosen(columns)]
    return np.concatenate(parts, axis=1).astype(np.float32)


def clinical_features(columns: Iterable[str]) -> list[str]:
    """Return the names of the encoded clinical features."""
    return [name for variable in chosen(columns) for name in variable.inputs()]


def chosen(columns: Iterable[str]) -> list[Number | Category]:
    """Return the variables called ``columns``, in the public order; leaking and unknown ones are refused."""
    wanted = list(columns)
    refuse_leakage(wanted, where="clinical inputs")
    known = {v.name for v in VARIABLES}
    for column in wanted:
        if column not in known:
            raise InvalidInput(
                f"clinical inputs: column {column!r} has no public encoding; "
                f"expected some of {', '.join(sorted(known))}"
            )
    return [v for v in VARIABLES if v.name in wanted]


def numbers(table: pd.DataFrame, columns: Sequence[str], *, where: str, genes: bool = False) -> Matrix:
    """Return ``columns`` of ``table`` as float32; missing is 0.

    Raises:
        InvalidInput: a column is missing, holds something that is not a number, or leaks the stage.
    """
    refuse_leakage(columns, where=where, genes=genes)
    absent = [c for c in columns if c not in table.columns]
    if absent:
        raise InvalidInput(f"{where}: expected column {absent[0]!r} ({len(absent)} columns missing in all)")
    chosen_columns = table[list(columns)]
    for column, kind in chosen_columns.dtypes.items():
        if not pd.api.types.is_numeric_dtype(kind) or pd.api.types.is_complex_dtype(kind):
            raise InvalidInput(
                f"{where}: column {str(column)!r} holds {kind} values, expected numbers; "
                "correct or leave out the column"
            )
    values = chosen_columns.to_numpy(dtype=np.float32)
    if np.isinf(values).any():
        raise InvalidInput(f"{where}: expected finite numbers, found an infinity")
    filled: Matrix = np.where(np.isnan(values), np.float32(0.0), values)
    return filled


def _encode(table: pd.DataFrame, variable: Number | Category) -> NDArray[np.float64]:
    if variable.name not in table.columns:
        return np.zeros((len(table), len(variable.inputs())))
    read = read_cells(variable, table[variable.name])
    if isinstance(variable, Number):
        missing = np.isnan(read.values)
        scaled = np.where(missing, 0.0, variable.encoded(np.where(missing, variable.low, read.values)))
        return np.stack([scaled, missing.astype(np.float64)], axis=1)
    rows = np.zeros((len(table), len(variable.levels) + 1))
    for row, places in zip(rows, read.levels, strict=True):
        row[list(places) or [-1]] = 1.0  # a word that is none of the levels is the last one, as a missing one is
    return rows


IMAGE_CONSTANTS: tuple[tuple[str, float, float], ...] = (
    ("AREA.PROP", 0.4, 0.1),
    ("AREA", 3.5, 0.9),
    ("CELL.CLUSTERING.PROPERTIES..BALL.HALL.INDEX", 8.6, 0.2),
    ("CELL.CLUSTERING.PROPERTIES..CALINSKI.HARABASZ.INDEX", 10.5, 1.1),
    ("CELL.CLUSTERING.PROPERTIES..CLUSTER.EXTENT.MEAN", 4.9, 0.2),
    ("CELL.CLUSTERING.PROPERTIES..CLUSTER.EXTENT.STANDARD.DEVIATION", 3.9, 0.2),
    ("CELL.CLUSTERING.PROPERTIES..CLUSTER.SIZE", 3.5, 0.6),
    ("CELL.CLUSTERING.PROPERTIES..NUMBER", 6.0, 0.8),
    ("CELL.CLUSTERING.PROPERTIES..WITHIN.CLUSTER.DISPERSION", 12.5, 0.8),
    ("COUNT.PROP", 0.7, 0.2),
    ("DENSITY.RATIO", 0.7, 0.2),
    ("DENSITY", 6.0, 0.8),
    ("REGION.PROPERTIES..AREA..MM2.", 2.6, 1.2),
    ("REGION.PROPERTIES..AVERAGE.ECCENTRICITY", 0.6, 0.07),
    ("REGION.PROPERTIES..AVERAGE.EXTENT", 0.3, 0.05),
    ("REGION.PROPERTIES..AVERAGE.SOLIDITY", 0.4, 0.06),
    ("REGION.PROPERTIES..CONVEX.AREA", 3.5, 1.3),
    ("REGION.PROPERTIES..ECCENTRICITY", 0.6, 0.09),
    ("REGION.PROPERTIES..EULER.NUMBER", -7.5, 1.5),
    ("REGION.PROPERTIES..EXTENT", 0.3, 0.07),
    ("REGION.PROPERTIES..FILLED.AREA", 3.0, 1.3),
    ("REGION.PROPERTIES..FRACTAL.DIMENSION", 0.9, 0.05),
    ("REGION.PROPERTIES..LACUNARITY", 0.8, 0.1),
    ("REGION.PROPERTIES..MAJOR.AXIS", 2.3, 0.6),
    ("REGION.PROPERTIES..MINOR.AXIS", 1.8, 0.6),
    ("REGION.PROPERTIES..NUMBER", 4.5, 0.9),
    ("REGION.PROPERTIES..PERIMETER..MM.", 6.0, 1.3),
    ("REGION.PROPERTIES..PERIMETER.2", 10.0, 1.2),
    ("REGION.PROPERTIES..SOLIDITY", 0.4, 0.08),
    ("REGION.PROPERTIES..STANDARD.DEVIATION", 0.06, 0.04),
    ("REGION.PROPERTIES..TOTAL.CONVEX.AREA", 4.4, 1.0),
    ("REGION.PROPERTIES..TOTAL.EULER.NUMBER", 0.0, 6.5),
    ("REGION.PROPERTIES..TOTAL.FILLED.AREA", 3.8, 0.9),
    ("REGION.PROPERTIES..TOTAL.MAJOR.AXIS", 5.0, 0.8),
    ("REGION.PROPERTIES..TOTAL.MINOR.AXIS", 4.4, 0.8),
    ("REGION.PROPERTIES..TOTAL.PERIMETER", 7.5, 0.8),
    ("TOTAL", 10.0, 1.2),
)
"""(prefix of the name, centre, scale); the first prefix that fits counts."""


def constants_of(feature: str) -> tuple[float, float] | None:
    """Return centre and scale of one feature: ``constants_of("AREA..MM2..OF...TISSUE..")`` is ``(3.5, 0.9)``.

    None: no constants are known for features of that name.
    """
    for prefix, centre, scale in IMAGE_CONSTANTS:
        if feature.startswith(prefix):
            return centre, scale
    return None
