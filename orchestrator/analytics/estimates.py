"""From noised tables to estimates with intervals that hold both parts of the error: the noise, and the few patients.

Every function is post-processing of released numbers. Tables drawn anew (parametric bootstrap) come from a stream of a
fixed public seed: the same answer has the same interval.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.rounds.scoring.score_model import on_simplex

LEVEL = 0.95
"""Of all intervals."""
Z = 1.959964
_DRAWS = 400
_STANDS_OUT = 3.0
Floats = NDArray[np.float64]
Statistic = Callable[[Floats], Floats]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Values with the ends of their intervals, all of one shape."""

    value: Floats
    low: Floats
    high: Floats


def total(table: Floats, deviation: float) -> float:
    """Return how many records a noised table holds, at least one or as many as its noise hides."""
    return max(1.0, float(table.sum()), 0.1 * deviation)


def projected(table: Floats, deviation: float) -> Floats:
    """Return the nearest table without negative counts and with the same sum (at least one record), its shape kept."""
    flat = table.ravel()
    return on_simplex(flat, total(flat, deviation)).reshape(table.shape)


def estimated(table: Floats, deviation: float, statistic: Statistic, *, seed: int = 0) -> Estimate:
    """Return a statistic of a noised table of counts with its interval.

    Args:
        table: float64 [cells], noised.
        deviation: of the noise of one cell.
        statistic: from tables [n, cells] without negative counts to values [n, ...].
        seed: public.
    """
    stream = np.random.default_rng(seed)
    likely = projected(table, deviation)
    value = statistic(likely[None])[0]
    size = (_DRAWS, likely.size)
    made = stream.poisson(likely, size=size) + stream.normal(0.0, deviation, size)
    drawn = statistic(np.stack([projected(one, deviation) for one in made]))
    return _basic(value, drawn)


def stands_out(table: Floats, deviation: float) -> bool:
    """Return whether a table holds more records than its noise alone would show."""
    return bool(table.sum() > _STANDS_OUT * deviation * np.sqrt(table.size))


def bounded(table: Floats, deviation: float, statistic: Statistic, low: float, high: float) -> Estimate:
    """Return a statistic that lies between ``low`` and ``high``; of a table that is all noise the interval is all.

    Arguments as in :func:`estimated`.
    """
    found = estimated(table, deviation, statistic)
    if not stands_out(table, deviation):
        return Estimate(value=found.value, low=np.full_like(found.value, low), high=np.full_like(found.value, high))
    return Estimate(value=found.value, low=np.clip(found.low, low, high), high=np.clip(found.high, low, high))


def noised(values: Floats, deviation: float) -> Estimate:
    """Return counts with the interval of their noise alone: they are of the patients who are there."""
    half = np.full(values.shape, Z * deviation)
    return Estimate(value=values, low=values - half, high=values + half)


def normal(value: Floats, error: Floats) -> Estimate:
    """Return values with the normal interval of their standard errors."""
    return Estimate(value=value, low=value - Z * error, high=value + Z * error)


def _basic(value: Floats, drawn: Floats) -> Estimate:
    """Return the drawn spread around the value: its quantiles, moved by what the drawn median is off."""
    low, middle, high = np.quantile(drawn, ((1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2), axis=0)
    return Estimate(value=value, low=value - (high - middle), high=value + (middle - low))
