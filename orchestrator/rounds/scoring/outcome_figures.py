"""How well numbers and survival are predicted: concordance, absolute error, deviance, Brier scores; of single records.

Survival is in discrete time (:class:`models.targets.Target`), censoring is weighed away by its own Kaplan-Meier curve
(Graf et al. 1999). Every figure but the absolute error and the Brier score is averaged over cohorts, so that telling
cancers apart earns nothing.

>>> concordance(np.array([3.0, 1.0, 2.0]), np.array([[0, 1, 1], [0, 0, 0], [0, 1, 0]], dtype=bool))
1.0
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from models.targets import Target
from privacy.errors import InvalidInput

Floats = NDArray[np.float64]
LEAST_SEEN = 0.05
"""Who is less likely than this to be still followed is weighed as if by this."""


@dataclass(frozen=True, kw_only=True)
class OutcomeMetrics:
    """Figures of predictions of numbers or survival; ``concordance`` is the mean of ``concordance_by_cohort``.

    Concordance is the share of pairs, of those whose order is known, that the model puts in order (Harrell's C; .5 is
    guessing). ``mean_absolute_error`` and ``guess_absolute_error`` (of each cohort's own median) are in ``unit``;
    ``deviance`` is the mean deviance of a record, ``guess_deviance`` that of each cohort's own mean. ``brier`` holds
    the Brier score by horizon in ``unit``, ``guess_brier`` that of the Kaplan-Meier curve of all.
    """

    cases: int
    kind: str
    unit: str
    concordance: float
    concordance_by_cohort: Mapping[str, float]
    mean_absolute_error: float | None = None
    guess_absolute_error: float | None = None
    deviance: float | None = None
    guess_deviance: float | None = None
    brier: Mapping[str, float] = field(default_factory=dict)
    guess_brier: Mapping[str, float] = field(default_factory=dict)


def outcome_metrics(
    predicted: Floats, label: Floats, cohort: NDArray[np.integer], target: Target, cohorts: Sequence[str]
) -> OutcomeMetrics:
    """Score predictions of numbers or survival.

    Args:
        predicted: float64 [n, 1] numbers in their unit, or [n, edges] probabilities of no event until each edge.
        label: [n], see :class:`models.targets.Target`.
        cohort: int [n].
        target: the outcome, no class.
        cohorts: names of the cohorts.

    Raises:
        InvalidInput: shapes disagree, nothing to score, or predictions are not finite.
    """
    if predicted.ndim != 2 or not len(predicted) == len(label) == len(cohort) or not len(label):
        raise InvalidInput(f"expected predictions [n, outputs] and n labels, got {predicted.shape}, {label.shape}")
    if not np.isfinite(predicted).all():
        raise InvalidInput("expected finite predictions; the model has diverged, lower the learning rate")
    groups = {name: cohort == index for index, name in enumerate(cohorts)}
    score = predicted[:, 0] if target.is_quantity else lost_share(predicted, target)
    found = {
        name: concordance(score[rows], comparable(label[rows], target))
        for name, rows in groups.items()
        if comparable(label[rows], target).any()
    }
    mean = float(np.mean(list(found.values()))) if found else float("nan")
    head = OutcomeMetrics(
        cases=len(label), kind=target.kind, unit=target.unit, concordance=mean, concordance_by_cohort=found
    )
    if not target.is_quantity:
        return _with_brier(head, predicted, label.astype(np.int64), target)
    held = [rows for rows in groups.values() if rows.any()]
    medians, means = np.empty(len(label)), np.empty(len(label))
    for rows in held:
        medians[rows], means[rows] = np.median(label[rows]), np.mean(label[rows])
    return replace(
        head,
        mean_absolute_error=float(np.abs(predicted[:, 0] - label).mean()),
        guess_absolute_error=float(np.abs(medians - label).mean()),
        deviance=float(deviances(predicted[:, 0], label, target).mean()),
        guess_deviance=float(deviances(means, label, target).mean()),
    )


def deviances(predicted: Floats, label: Floats, target: Target) -> Floats:
    """Return every record's deviance: of counts of a negative binomial of dispersion 1, else the squared error in
    spreads."""
    if target.kind == "continuous":
        return np.asarray(((label - predicted) / target.spread) ** 2, np.float64)
    mean = np.maximum(predicted, 1e-6)
    counted = np.where(label > 0, label * np.log(np.maximum(label, 1e-6) / mean), 0.0)
    return np.asarray(2 * (counted - (label + 1) * np.log((1 + label) / (1 + mean))), np.float64)


def lost_share(survival: Floats, target: Target) -> Floats:
    """Return which share of the follow-up each patient is expected to lose, float64 [n]."""
    edges = np.array((0.0, *target.edges))
    return np.asarray(1.0 - survival @ (np.diff(edges) / edges[-1]), np.float64)


def comparable(label: Floats, target: Target) -> NDArray[np.bool_]:
    """Return whose outcome is known to be worse (larger, or earlier) than whose, bool [n, n]."""
    if target.is_quantity:
        return np.asarray(label[:, None] > label[None, :])
    whole, event = label // 2, label % 2 == 1
    return np.asarray(event[:, None] & (whole[None, :] > whole[:, None]))


def concordance(score: Floats, worse: NDArray[np.bool_]) -> float:
    """Return the share of pairs (i, j), i worse than j, in which i has the larger score; ties count half.

    Args:
        score: float64 [n].
        worse: bool [n, n], at least one pair.
    """
    one, other = np.nonzero(worse)
    ahead = np.sign(score[one] - score[other])
    return float(0.5 + 0.5 * ahead.mean())


def censoring(events: Floats, censored: Floats, outlived: Floats) -> Floats:
    """Return the probability of being followed through the first k intervals, float64 [..., intervals + 1].

    Args:
        events: patients with an event in each interval, [..., intervals].
        censored: patients who left in each interval, after its events, [..., intervals].
        outlived: patients who were followed through all of them, [...].
    """
    gone = events + censored
    entered = outlived[..., None] + np.flip(np.cumsum(np.flip(gone, -1), -1), -1)
    stayed = 1.0 - np.clip(censored / np.maximum(entered - events, 1e-9), 0.0, 1.0)
    first = np.ones_like(stayed[..., :1])
    return np.asarray(np.maximum(np.concatenate([first, np.cumprod(stayed, -1)], -1), LEAST_SEEN), np.float64)


def _with_brier(head: OutcomeMetrics, survival: Floats, label: NDArray[np.int64], target: Target) -> OutcomeMetrics:
    count = len(target.edges)
    counts = np.bincount(label, minlength=2 * count + 1).astype(np.float64)
    followed = censoring(counts[1::2], counts[0 : 2 * count : 2], counts[2 * count])
    whole, event = label // 2, label % 2 == 1
    found: dict[str, float] = {}
    guesses: dict[str, float] = {}
    usual = _kaplan_meier(counts)
    for horizon in target.horizons:
        before = event & (whole < horizon)
        weight = np.where(before, 1 / followed[np.minimum(whole, count)], 1 / followed[horizon])
        weight = np.where(before | (whole >= horizon), weight, 0.0)
        name = f"{target.edges[horizon - 1]:g}"
        for kept, chance in ((found, survival[:, horizon - 1]), (guesses, np.full(len(label), usual[horizon]))):
            kept[name] = float((weight * ((whole >= horizon) - chance) ** 2).mean())
    return replace(head, brier=found, guess_brier=guesses)


def _kaplan_meier(counts: Floats) -> Floats:
    events, censored = counts[1::2], counts[0:-1:2]
    entered = counts[-1] + np.flip(np.cumsum(np.flip(events + censored)))
    return np.asarray(np.concatenate([[1.0], np.cumprod(1 - events / np.maximum(entered, 1.0))]), np.float64)
