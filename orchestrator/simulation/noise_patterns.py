"""Is it fresh noise? Tests of vectors that should be independent normals, each with its chance of a false alarm.

A chi-square sees how much noise there is. It does not see noise that is drawn once and used twice, that is missing at a
few values, or that has another shape: whoever knows that takes it off again.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]
_LAGS = (1, 2)
_LEAST = 16
_GRID = 1e-4


def most_alike(groups: Sequence[Sequence[Floats]]) -> float:
    """Return how probable it is that any two vectors of a group, or two parts of one, agree or oppose so much.

    The cosine between a spherical vector and any independent one follows Student's law; all pairs share the chance.

    Args:
        groups: of vectors float64 [n]; of two lengths the shorter counts. Those of fewer than 16 numbers are left out.
    """
    found = [_chance(a, b) for group in groups for a, b in _pairs([v for v in group if v.size >= _LEAST])]
    return min(1.0, min(found, default=1.0) * max(1, len(found)))


def _pairs(group: Sequence[Floats]) -> Iterator[tuple[Floats, Floats]]:
    yield from itertools.combinations(group, 2)
    for vector in group:
        half = vector.size // 2
        if half >= _LEAST:
            yield from ((vector[:half], part) for part in (vector[half:], vector[::-1]))
        yield from ((vector[:-lag], vector[lag:]) for lag in _LAGS)


def _chance(a: Floats, b: Floats) -> float:
    size = min(a.size, b.size)
    one, other = a[:size], b[:size]
    lengths = float(np.linalg.norm(one) * np.linalg.norm(other))
    if lengths == 0:
        return 0.0
    cosine = min(1.0, abs(float(one @ other)) / lengths)
    return float(2 * stats.t.sf(cosine * math.sqrt((size - 1) / max(1e-300, 1 - cosine**2)), size - 1))


def silent(rounds: Sequence[Floats]) -> float:
    """Return how probable it is that the quietest value over all rounds is so quiet, by chi-square.

    Args:
        rounds: of each round, its noise over the claimed deviation, float64 [values].
    """
    quietest = float(np.square(np.stack(rounds)).sum(axis=0).min())
    return min(1.0, float(stats.chi2.cdf(quietest, len(rounds))) * rounds[0].size)


def odd_shape(noise: Floats, *, jitter: np.random.Generator) -> float:
    """Return how probable noise so far from a normal shape is, by Kolmogorov and Smirnov, at its own deviation.

    Values on a grid are spread over their cells first.
    """
    gaps = np.diff(np.unique(noise))
    gaps = gaps[gaps > _GRID * noise.std()]  # smaller ones are rounding errors of the same number
    if gaps.size == 0:
        return 0.0
    spread = noise + gaps.min() * (jitter.random(noise.size) - 0.5)
    return float(stats.kstest(spread / spread.std(), "norm").pvalue)


def odd_batches(counts: Sequence[float], *, records: int, rate: float, steps: int, deviation: float) -> float:
    """Return how probable Poisson batches of so many records are, or of numbers that differ so little between rounds.

    The normal approximation; both chances together. Batches of a fixed size, or the same ones again, differ too little.

    Args:
        counts: of each round, the noised number of records in its batches.
        records: that could be in a batch.
        rate: probability of each.
        steps: batches in a round.
        deviation: of the noise in one batch, in records.
    """
    found = np.asarray(counts, dtype=np.float64)
    variance = steps * (records * rate * (1 - rate) + deviation**2)
    many = stats.norm.sf((found.sum() - found.size * steps * records * rate) / math.sqrt(found.size * variance))
    alike = stats.chi2.cdf(np.square(found - found.mean()).sum() / variance, found.size - 1)
    return float(min(1.0, 2 * min(many, alike)))
