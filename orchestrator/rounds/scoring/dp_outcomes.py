"""How well numbers and survival are predicted on private validation records: estimates with errors, from histograms.

Every site counts its validation records by score and by group of outcomes (:func:`models.outcomes.scores`) and releases
the counts with noise. From the same counts come the concordance over the groups, the mean absolute error of a number,
and the Brier score of survival at public horizons. Errors and intervals have both parts, the noise that was added and
the few records there are (parametric bootstrap). Everything is post-processing of released numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from models.targets import Target
from orchestrator.rounds.scoring.outcome_figures import censoring
from orchestrator.rounds.scoring.score_model import on_simplex
from privacy.dp.releases import BINS

_DRAWS = 200
_CENTRES = (np.arange(BINS) + 0.5) / BINS
_LEAST_PAIRS = 0.02
Floats = NDArray[np.float64]
Statistic = Callable[[Floats], Floats]


FigureName = Literal[
    "concordance",
    "mean_absolute_error",
    "brier",
    "auroc",
    "cross_entropy",
    "calibration_slope",
    "calibration_error",
]
GroupKind = Literal["cohort", "site", "pattern"]


@dataclass(frozen=True, kw_only=True)
class OutcomeFigure:
    """One figure, its standard error and its interval of 90 %. ``at`` is the horizon of a survival's Brier score.

    Concordance is over the groups of outcomes that were counted; the absolute error is in the outcome's unit.
    """

    name: FigureName
    value: float
    error: float
    low: float
    high: float
    at: float | None = None


@dataclass(frozen=True, kw_only=True)
class GroupEvaluation:
    """The figures of some of the records: of one cohort, one hospital that allows it, or one pattern of modalities."""

    by: GroupKind
    name: str
    records: int
    figures: tuple[OutcomeFigure, ...]


@dataclass(frozen=True, kw_only=True)
class OutcomeEvaluation:
    """One evaluation of the global model that went into ``round``; ``records`` is the public estimate of how many.

    ``groups`` has the same figures by cohort, and by site and pattern where the study asks for them.
    """

    round: int
    label: str
    sites: int
    records: int
    noise_multiplier: float
    kind: str
    unit: str
    figures: tuple[OutcomeFigure, ...]
    groups: tuple[GroupEvaluation, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Counted:
    """Noised counts float64 [scores, cells, 32] of some sites; ``deviation`` is the noise of one bin."""

    histograms: Floats
    records: float
    deviation: float

    def drawn(self, score: int) -> Floats:
        """Return made-up counts like these with records and noise drawn anew, float64 [draws, cells, 32]."""
        stream = np.random.default_rng(score)  # public: the estimate of a round is always the same
        likely = on_simplex(self.histograms[score].ravel(), max(1.0, self.records))
        made = stream.poisson(likely, size=(_DRAWS, likely.size)) + stream.normal(
            0.0, self.deviation, (_DRAWS, likely.size)
        )
        return np.asarray(made.reshape(_DRAWS, *self.histograms[score].shape), np.float64)


def outcome_figures(target: Target, everybody: Counted, cohorts: Sequence[Counted]) -> tuple[OutcomeFigure, ...]:
    """Return the figures of numbers or survival.

    Args:
        target: the outcome.
        everybody: all sites' counts.
        cohorts: the counts of the sites of each cohort.
    """
    worse = _worse(target)
    parts = [_estimate(one, 0, partial(_concordance, worse=worse, records=one.records)) for one in cohorts]
    areas, spread = np.mean([value for value, _ in parts]), np.mean([drawn for _, drawn in parts], axis=0)
    found = [_figure("concordance", float(areas), spread, most=1.0)]
    if target.is_quantity:
        value, drawn = _estimate(everybody, 1, partial(_mean_score, records=everybody.records))
        span = target.error_span
        found.append(_figure("mean_absolute_error", value * span, drawn * span, most=span))
        return tuple(found)
    for place, horizon in enumerate(target.horizons):
        value, drawn = _estimate(everybody, 1 + place, partial(_brier, place=place, records=everybody.records))
        found.append(_figure("brier", value, drawn, most=1.0, at=float(target.edges[horizon - 1])))
    return tuple(found)


def _estimate(counted: Counted, score: int, statistic: Statistic) -> tuple[float, Floats]:
    return float(statistic(counted.histograms[score][None])[0]), statistic(counted.drawn(score))


def _figure(
    name: Literal["concordance", "mean_absolute_error", "brier"],
    value: float,
    drawn: Floats,
    *,
    most: float,
    at: float | None = None,
) -> OutcomeFigure:
    error = float(np.std(drawn))
    low, high = (float(np.clip(value + side * 1.645 * error, 0.0, most)) for side in (-1, 1))
    return OutcomeFigure(
        name=name, value=round(value, 4), error=round(error, 4), low=round(low, 4), high=round(high, 4), at=at
    )


def _worse(target: Target) -> Floats:
    """Return which group of outcomes is known to be worse than which: 1 or 0, float64 [cells, cells]."""
    if target.is_quantity:
        return np.tril(np.ones((len(target.cuts) + 1,) * 2), -1)
    places = np.arange(2 * len(target.horizons) + 1)
    whole, event = places // 2, places % 2 == 1
    return np.asarray(event[:, None] & (whole[None, :] > whole[:, None]), np.float64)


def _concordance(histograms: Floats, worse: Floats, records: float) -> Floats:
    below = np.cumsum(histograms, axis=2) - histograms / 2
    won = np.einsum("nab,ncb,ac->n", histograms, below, worse)
    sizes = np.maximum(histograms.sum(axis=2), 0.0)
    pairs = np.einsum("na,nc,ac->n", sizes, sizes, worse)
    return np.asarray(np.clip(won / np.maximum(pairs, _LEAST_PAIRS * records**2 + 1e-9), 0.0, 1.0), np.float64)


def _mean_score(histograms: Floats, records: float) -> Floats:
    return np.asarray(np.clip(histograms.sum(axis=1) @ _CENTRES / max(1.0, records), 0.0, 1.0), np.float64)


def _brier(histograms: Floats, place: int, records: float) -> Floats:
    """Return the Brier score at one horizon from counts [n, cells, 32] of the probability of no event until then."""
    sizes = np.maximum(histograms.sum(axis=2), 0.0)
    followed = censoring(sizes[:, 1::2], sizes[:, 0:-1:2], sizes[:, -1])
    total = np.zeros(len(histograms))
    for cell in range(histograms.shape[1]):
        whole, event = divmod(cell, 2)
        if event and whole <= place:
            total += histograms[:, cell] @ _CENTRES**2 / followed[:, whole]
        elif whole > place:
            total += histograms[:, cell] @ (1 - _CENTRES) ** 2 / followed[:, place + 1]
    return np.asarray(np.clip(total / max(1.0, records), 0.0, 1.0), np.float64)
