"""Area, calibration and cross-entropy from noised score histograms of few patients, by a monotone model.

With a hundred patients in 64 noised bins, most bins hold noise only, and counting the pairs that were won adds all of
it up. Two facts about scores take most of that noise away:

* the scores of a cohort lie in few bins, which its histogram of both sides shows (:func:`occupied`): cohorts differ in
  how common late stages are, so each has its own;
* the odds of the later side rise with the score. In bin x of cohort c they are ``exp(a_c + b logit(x))``: one slope b
  for all cohorts (Cox 1958, "Two further applications of a model for binary classification": 1 is calibrated).

The slope comes from estimating equations that are linear in the bins, so noise does not bias them (:func:`fit`).
Everything is post-processing of released numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_STEPS = 40
_STEEPEST, _FARTHEST = 6.0, 8.0
_COST = 0.4
_LEAST = 1.0  # records of a side, for a start that exists


@dataclass(frozen=True, kw_only=True)
class ScoreFit:
    """Fits of n sets of histograms; the mean over cohorts of the area has the interval that a bootstrap gives it.

    ``areas`` float64 [n, cohorts]; ``slope``, ``calibration_error`` (mean distance of predicted and true rate, weighted
    by records), ``cross_entropy`` (nats) and ``brier`` float64 [n]; ``early`` and ``late`` the fitted bins [n, cohorts,
    bins].
    """

    areas: Floats
    slope: Floats
    calibration_error: Floats
    cross_entropy: Floats
    brier: Floats
    early: Floats
    late: Floats


def occupied(pooled: Floats, deviation: float) -> slice:
    """Return the run of bins whose counts stand out: the one with the largest sum of count minus a cost of each bin.

    The cost is :data:`_COST` of the noise. More would cut off sparse ends with the farthest scores, which pulls
    the area to .5; less would let noise in.

    Args:
        pooled: float64 [bins], noised counts of both sides together.
        deviation: of the noise in one of them.
    """
    cost = _COST * deviation
    sums = np.concatenate([[0.0], np.cumsum(pooled - cost)])
    first, last = np.triu_indices(len(sums), 1)
    best = int(np.argmax(sums[last] - sums[first]))
    return slice(int(first[best]), int(last[best]))


def fit(early: Floats, late: Floats, centres: Floats, inside: Sequence[slice] = ()) -> ScoreFit:
    """Fit the monotone model to n sets of histograms.

    Args:
        early, late: float64 [n, cohorts, bins], noised counts; bins may be negative.
        centres: float64 [bins], the score at each bin's centre, in (0, 1).
        inside: of every cohort, the bins to look at; all without.

    Returns:
        the fits; Newton steps are bounded, so that there is one for any noise.
    """
    seen = inside or [slice(0, centres.size)] * early.shape[1]
    early, late = (_only(side, seen) for side in (early, late))
    total, held = early + late, np.zeros(early.shape)
    for draw, cohort in np.ndindex(*total.shape[:2]):
        row = total[draw, cohort, seen[cohort]]
        held[draw, cohort, seen[cohort]] = on_simplex(row, max(2 * _LEAST, row.sum()))
    logit = np.log(centres / (1 - centres))
    weight = held.sum(axis=(1, 2))
    middle = (held.sum(axis=1) @ logit) / weight  # [n]; centred, the intercepts and the slope are nearly independent
    z = logit[None, :] - middle[:, None]
    intercept, slope = _solved(late, total, held, z)
    rate = _rate(intercept, slope, z)
    fitted_early, fitted_late = held * (1 - rate), held * rate
    off = np.abs(rate - centres)
    costs = -(fitted_late @ np.log(centres) + fitted_early @ np.log1p(-centres)).sum(axis=1)
    squares = (fitted_late @ (1 - centres) ** 2 + fitted_early @ centres**2).sum(axis=1)
    return ScoreFit(
        areas=_areas(fitted_early, fitted_late),
        slope=slope,
        calibration_error=(held * off).sum(axis=(1, 2)) / weight,
        cross_entropy=costs / weight,
        brier=squares / weight,
        early=fitted_early,
        late=fitted_late,
    )


def _only(counts: Floats, inside: Sequence[slice]) -> Floats:
    """Return counts [n, cohorts, bins] with nothing outside of each cohort's bins."""
    kept = np.zeros(counts.shape)
    for cohort, bins in enumerate(inside):
        kept[:, cohort, bins] = counts[:, cohort, bins]
    return kept


def _solved(late: Floats, total: Floats, held: Floats, z: Floats) -> tuple[Floats, Floats]:
    """Return intercepts [n, cohorts] and slopes [n] that solve ``sum (late - total rate) (1, z) = 0``."""
    draws, cohorts, _ = late.shape
    many, few = (np.maximum(side.sum(axis=2), _LEAST) for side in (late, total - late))
    intercept, slope = np.log(many / few), np.full(draws, 0.5)
    diagonal = np.arange(cohorts)
    for _ in range(_STEPS):
        rate = _rate(intercept, slope, z)
        short = late - total * rate
        curve = held * rate * (1 - rate)
        left = np.zeros((draws, cohorts + 1, cohorts + 1))
        left[:, diagonal, diagonal] = curve.sum(axis=2)
        left[:, :cohorts, cohorts] = left[:, cohorts, :cohorts] = (curve * z[:, None, :]).sum(axis=2)
        left[:, cohorts, cohorts] = (curve * z[:, None, :] ** 2).sum(axis=(1, 2))
        left += 1e-6 * np.eye(cohorts + 1)
        right = np.concatenate([short.sum(axis=2), (short * z[:, None, :]).sum(axis=(1, 2))[:, None]], axis=1)
        step = np.clip(np.linalg.solve(left, right[:, :, None])[:, :, 0], -1.0, 1.0)
        intercept = np.clip(intercept + step[:, :cohorts], -_FARTHEST, _FARTHEST)
        slope = np.clip(slope + step[:, cohorts], -_STEEPEST, _STEEPEST)
        if np.abs(step).max() < 1e-7:
            break
    return intercept, slope


def _rate(intercept: Floats, slope: Floats, z: Floats) -> Floats:
    """Return the modelled rate of the later side, float64 [n, cohorts, bins]."""
    logits = np.clip(intercept[:, :, None] + slope[:, None, None] * z[:, None, :], -50.0, 50.0)
    return np.asarray(1 / (1 + np.exp(-logits)), np.float64)


def _areas(early: Floats, late: Floats) -> Floats:
    """Return the area of non-negative histograms [n, cohorts, bins]; pairs within a bin count half."""
    below = np.cumsum(early, axis=2) - early / 2
    pairs = np.maximum(early.sum(axis=2) * late.sum(axis=2), 1e-12)
    return np.asarray((late * below).sum(axis=2) / pairs, np.float64)


def on_simplex(values: Floats, total: float) -> Floats:
    """Return the nearest non-negative vector of sum ``total`` (Duchi et al. 2008, figure 1)."""
    falling = np.sort(values)[::-1]
    excess = np.cumsum(falling) - total
    kept = np.flatnonzero(falling * np.arange(1, values.size + 1) > excess)[-1]
    return np.asarray(np.maximum(values - excess[kept] / (kept + 1), 0.0), np.float64)
