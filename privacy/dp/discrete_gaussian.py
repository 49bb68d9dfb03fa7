"""A discrete Gaussian on the integers, exact to 2**-100, from 32-bit uniform words.

A float Box-Muller sample has holes that tell the true value from its neighbours (Mironov, "On significance of the
least significant bits for differential privacy", CCS 2012). Here a sample is an integer, and noise is added to a sum
that was rounded on the same grid, so that every grid point is reachable from every neighbour.

Two draws from one table (deviation 700, cut at 8192) are combined as ``350 x + y``: the sum is a discrete Gaussian of
deviation ``DEVIATION`` (Micciancio and Walter, CRYPTO 2017, theorem 3). The table is Vose's alias method with exact
rational thresholds: a word's low 18 bits decide, and in a tie, once in 2**18 draws, 192 more bits do.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, localcontext
from functools import lru_cache

import numpy as np
import numpy.typing as npt

_BASE_DEVIATION = 700
_COLUMN_BITS = 14
_HALF = 1 << (_COLUMN_BITS - 1)
_FRACTION_BITS = 32 - _COLUMN_BITS
_REFINEMENT_BITS = 192
_MULTIPLIER = 350
DEVIATION: float = _BASE_DEVIATION * math.sqrt(_MULTIPLIER**2 + 1)

Words = npt.NDArray[np.uint32]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class AliasTable:
    """Columns of Vose's alias method: keep the column below its threshold, else take its alias.

    ``threshold`` holds the first 18 bits of the exact threshold, ``refinement`` the next 192.
    """

    threshold: npt.NDArray[np.uint32]
    refinement: tuple[int, ...]
    alias: npt.NDArray[np.int32]


def sample(words: Words, refine: Callable[[], int]) -> Integers:
    """Turn uniform words into samples of the discrete Gaussian of deviation ``DEVIATION``.

    Args:
        words: uint32[2 n], uniform and never used elsewhere.
        refine: returns a further uniform integer of 192 bits, asked for once in about 2**18 draws.

    Returns:
        int64[n].
    """
    columns = draw(base_table(), words, refine)
    half = columns.size // 2
    samples = columns[:half] * np.int32(_MULTIPLIER) + columns[half:] - np.int32(_HALF * (_MULTIPLIER + 1))
    return samples.astype(np.int64)


def draw(table: AliasTable, words: Words, refine: Callable[[], int]) -> npt.NDArray[np.int32]:
    """Return one column of ``table`` per word, int32[n] in 0..2**14 - 1."""
    columns = (words >> np.uint32(_FRACTION_BITS)).view(np.int32)
    fractions = words & np.uint32((1 << _FRACTION_BITS) - 1)
    thresholds = table.threshold.take(columns)
    keep = fractions < thresholds
    for tie in np.flatnonzero(fractions == thresholds):
        keep[tie] = refine() < table.refinement[columns[tie]]
    return np.where(keep, columns, table.alias.take(columns))


@lru_cache(maxsize=1)
def base_table() -> AliasTable:
    """Return the alias table of the discrete Gaussian of deviation 700 on -8192..8191."""
    return alias_table(_weights())


def alias_table(weights: list[int]) -> AliasTable:
    """Build the alias table of integer weights, with exact arithmetic.

    Args:
        weights: 2**14 non-negative integers; column i has probability ``weights[i] / sum(weights)``.
    """
    size, total = len(weights), sum(weights)
    scaled = [weight * size for weight in weights]
    threshold, refinement, alias = [0] * size, [0] * size, list(range(size))
    small = [i for i in range(size) if scaled[i] < total]
    large = [i for i in range(size) if scaled[i] >= total]
    while small and large:
        low, high = small.pop(), large[-1]
        bits = (scaled[low] << (_FRACTION_BITS + _REFINEMENT_BITS)) // total
        threshold[low], refinement[low] = bits >> _REFINEMENT_BITS, bits & (2**_REFINEMENT_BITS - 1)
        alias[low] = high
        scaled[high] -= total - scaled[low]
        if scaled[high] < total:
            small.append(large.pop())
    return AliasTable(
        threshold=np.array(threshold, dtype=np.uint32),
        refinement=tuple(refinement),
        alias=np.array(alias, dtype=np.int32),
    )


def _weights() -> list[int]:
    """Return exp(-i**2 / (2 * 700**2)) for i in -8192..8191 as integers of 300 bits."""
    with localcontext() as context:
        context.prec = 100
        half = Decimal(-1) / (2 * _BASE_DEVIATION**2)
        step, ratio, value = half.exp(), (2 * half).exp(), Decimal(1)
        positive = []
        for _ in range(_HALF + 1):
            positive.append(int(value * 2**300))
            value, step = value * step, step * ratio
    return [positive[abs(i)] for i in range(-_HALF, _HALF)]
