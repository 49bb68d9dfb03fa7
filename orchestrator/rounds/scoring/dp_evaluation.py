"""How good the model is on private validation records: an estimate from noised score histograms, with its error.

Every site releases its own noised histograms (:mod:`datasites.training.statistics`); here they are added by cohort. The
AUROC is the mean over cohorts, as everywhere in Tessera. Where there are many records, pairs are counted: an estimator
that is unbiased up to its denominator, so noise does not pull it to 0.5. Where its error would pass
:data:`PAIRS_ERROR`, a monotone model is fitted instead (:mod:`orchestrator.rounds.scoring.score_model`). The standard
error and the interval have both parts, the noise that was added and the few records there are.

    >>> found = dp_evaluation(proposal, 5, {site: header.releases for site, header in headers.items()})
    >>> f"{found.auroc:.2f} +- {found.auroc_error:.2f}"
    '0.71 +- 0.06'

Everything here is post-processing of released numbers and costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from datasites.language import mark
from datasites.study.proposal import Proposal
from models.targets import Target
from orchestrator.rounds.scoring.dp_outcomes import (
    FigureName,
    GroupEvaluation,
    GroupKind,
    OutcomeEvaluation,
    OutcomeFigure,
    outcome_figures,
)
from orchestrator.rounds.scoring.pools import CENTRES, Floats, Part, Pool, parts_of
from orchestrator.rounds.scoring.score_model import ScoreFit, fit, occupied
from privacy.errors import InvalidInput

LABEL = mark("differentially private estimate, on the hospitals' validation records, inside the protocol")
PAIRS_ERROR = 0.03
"""Standard error of the mean AUROC up to which pairs are counted; beyond it the model's bias is the smaller evil."""
_REFITS = 200
_NORMAL_90 = 1.645


@dataclass(frozen=True, kw_only=True)
class DpEvaluation:
    """One evaluation of the global model that went into ``round``; errors are standard errors.

    ``auroc`` is the mean over cohorts and thresholds, ``cross_entropy`` (nats) the mean over thresholds, which for two
    classes is the usual one. ``records`` is the public estimate of how many records were scored. ``estimator`` says how
    the area was estimated: "pairs" or "monotone model". ``auroc_low`` to ``auroc_high`` and its like are intervals of
    90 %. The calibration slope is that of the true log-odds over the predicted ones (1 is calibrated, below 1 too sure
    of itself), ``calibration_error`` the mean distance of predicted and true rate; both come from the model. ``brier``
    is the mean over thresholds. ``groups`` has the same figures by cohort, and by site and pattern of modalities where
    the study asks for them.
    """

    round: int
    label: str
    sites: int
    records: int
    noise_multiplier: float
    auroc: float
    auroc_error: float
    auroc_by_cohort: Mapping[str, float]
    auroc_error_by_cohort: Mapping[str, float]
    cross_entropy: float
    cross_entropy_error: float
    estimator: str = "pairs"
    auroc_low: float | None = None
    auroc_high: float | None = None
    calibration_slope: float | None = None
    calibration_slope_low: float | None = None
    calibration_slope_high: float | None = None
    calibration_error: float | None = None
    calibration_error_low: float | None = None
    calibration_error_high: float | None = None
    brier: float | None = None
    brier_low: float | None = None
    brier_high: float | None = None
    groups: tuple[GroupEvaluation, ...] = ()


def dp_evaluation(
    proposal: Proposal, number: int, releases: Mapping[str, Mapping[str, float]]
) -> DpEvaluation | OutcomeEvaluation | None:
    """Return the estimate of one round, or None when the round releases no histograms.

    Args:
        proposal: the study.
        number: the round.
        releases: of every site in the round's sum, as checked at the door
            (:func:`datasites.study.recomputed.released_numbers.checked_numbers`).
    """
    release = proposal.mechanism.evaluation
    if release is None or not proposal.mechanism.releases_evaluation(number) or not releases:
        return None
    parts = [part for site in sorted(releases) for part in parts_of(proposal, site, releases[site])]
    pools = _by_cohort(proposal, parts)
    found: dict[str, Any] = {
        "round": number,
        "label": LABEL,
        "sites": len(releases),
        "records": round(Pool.of(proposal, parts).records),
        "noise_multiplier": release.noise_multiplier,
        "groups": tuple(_groups(proposal, parts)),
    }
    target = proposal.model.predicts
    if target is None or target.kind == "categorical":
        return DpEvaluation(**found, **_of_classes(Pool.of(proposal, parts), pools))
    figures = _of_outcome(target, Pool.of(proposal, parts), pools)
    return OutcomeEvaluation(**found, kind=target.kind, unit=target.unit, figures=figures)


def _by_cohort(proposal: Proposal, parts: Sequence[Part]) -> dict[str, Pool]:
    found: dict[str, list[Part]] = {}
    for part in parts:
        found.setdefault(proposal.participant(part.site).cohort, []).append(part)
    return {cohort: Pool.of(proposal, own) for cohort, own in found.items()}


def _groups(proposal: Proposal, parts: Sequence[Part]) -> Iterator[GroupEvaluation]:
    """Yield the figures of every cohort, of hospitals that are shown alone, and of patterns that count apart."""
    groups: dict[tuple[GroupKind, str], list[Part]] = {}
    for part in parts:
        participant = proposal.participant(part.site)
        groups.setdefault(("cohort", participant.cohort), []).append(part)
        if participant.evaluated_alone:
            groups.setdefault(("site", part.site), []).append(part)
        if part.pattern:
            groups.setdefault(("pattern", part.pattern), []).append(part)
    target = proposal.model.predicts
    for (kind, name), own in sorted(groups.items()):
        whole, pools = Pool.of(proposal, own), _by_cohort(proposal, own)
        classes = target is None or target.kind == "categorical"
        figures = _listed(_of_classes(whole, pools)) if classes else _of_outcome(target, whole, pools)
        yield GroupEvaluation(by=kind, name=name, records=round(whole.records), figures=figures)


def _of_outcome(target: Target | None, everybody: Pool, pools: Mapping[str, Pool]) -> tuple[OutcomeFigure, ...]:
    if target is None:
        raise InvalidInput("expected an outcome that is a number or survival")
    return outcome_figures(target, everybody.counted(), [pool.counted() for pool in pools.values()])


def _of_classes(everybody: Pool, pooled: Mapping[str, Pool]) -> dict[str, Any]:
    """Return the figures of :class:`DpEvaluation` of some records, pooled by cohort."""
    areas = {cohort: pool.auroc() for cohort, pool in pooled.items()}
    error = float(np.sqrt(np.sum([spread**2 for _, spread in areas.values()])) / len(areas))
    mean = float(np.mean([area for area, _ in areas.values()]))
    modelled = _Modelled.of(list(pooled.values()))
    entropy, entropy_error = everybody.mean_cost(-np.log1p(-CENTRES), -np.log(CENTRES))
    brier, brier_error = everybody.mean_cost(CENTRES**2, (1 - CENTRES) ** 2)
    figures: dict[str, Any] = {
        "estimator": "pairs",
        **_bounded("auroc", mean, error),
        "auroc_error": _rounded(error),
        "auroc_by_cohort": {cohort: _rounded(area) for cohort, (area, _) in areas.items()},
        "auroc_error_by_cohort": {cohort: _rounded(spread) for cohort, (_, spread) in areas.items()},
        "cross_entropy": _rounded(entropy),
        "cross_entropy_error": _rounded(entropy_error),
        **_bounded("brier", brier, brier_error),
    }
    return {**figures, **modelled.calibration(), **(modelled.areas(list(pooled)) if error > PAIRS_ERROR else {})}


def _bounded(name: str, value: float, error: float) -> dict[str, float]:
    """Return a figure between 0 and 1 with its interval of 90 %."""
    low, high = (min(1.0, max(0.0, value + side * _NORMAL_90 * error)) for side in (-1, 1))
    return {name: _rounded(min(1.0, max(0.0, value))), f"{name}_low": _rounded(low), f"{name}_high": _rounded(high)}


_FIGURES: tuple[FigureName, ...] = ("auroc", "cross_entropy", "brier", "calibration_slope", "calibration_error")


def _listed(found: Mapping[str, Any]) -> tuple[OutcomeFigure, ...]:
    """Return the figures of classes one by one, each with its interval."""
    figures = []
    for name in _FIGURES:
        value, error = found[name], found.get(f"{name}_error")
        half = _NORMAL_90 * float(error or 0.0)
        low, high = found.get(f"{name}_low", value - half), found.get(f"{name}_high", value + half)
        error = _rounded((high - low) / (2 * _NORMAL_90)) if error is None else error
        figures.append(OutcomeFigure(name=name, value=value, error=error, low=_rounded(low), high=_rounded(high)))
    return tuple(figures)


@dataclass(frozen=True, kw_only=True)
class _Modelled:
    """The monotone model of every threshold, and the same fits to made-up records and noise (parametric bootstrap)."""

    found: Sequence[ScoreFit]
    drawn: Sequence[ScoreFit]

    @classmethod
    def of(cls, cohorts: Sequence[Pool]) -> _Modelled:
        stream = np.random.default_rng(0)  # public: the estimate of a round is always the same
        found, drawn = [], []
        by_cohort = [pool.thresholds() for pool in cohorts]
        for sides in zip(*by_cohort, strict=True):
            bins = [occupied(early + late, deviation * math.sqrt(2)) for early, late, deviation in sides]
            early, late = (np.stack([side[place] for side in sides])[None] for place in (0, 1))
            spread = np.array([deviation for _, _, deviation in sides])[None, :, None]
            one = fit(early, late, CENTRES, bins)
            made = [
                stream.poisson(fitted, size=(_REFITS, *fitted.shape[1:]))
                + spread * stream.normal(size=(_REFITS, *fitted.shape[1:]))
                for fitted in (one.early, one.late)
            ]
            found.append(one)
            drawn.append(fit(made[0], made[1], CENTRES, bins))
        return cls(found=found, drawn=drawn)

    def areas(self, cohorts: Sequence[str]) -> dict[str, Any]:
        """Return the area and cross-entropy with their errors, by the model."""
        areas, spread = self._mean("areas")
        means = spread.mean(axis=1)
        low, high = _interval(float(areas.mean()), means)
        entropy, entropies = self._mean("cross_entropy")
        brier, briers = self._mean("brier")
        brier_low, brier_high = _interval(float(brier), briers)
        return {
            "estimator": "monotone model",
            "auroc": _rounded(areas.mean()),
            "auroc_error": _rounded(np.std(means)),
            "auroc_low": _rounded(max(0.0, low)),
            "auroc_high": _rounded(min(1.0, high)),
            "auroc_by_cohort": {name: _rounded(area) for name, area in zip(cohorts, areas, strict=True)},
            "auroc_error_by_cohort": {n: _rounded(e) for n, e in zip(cohorts, np.std(spread, axis=0), strict=True)},
            "cross_entropy": _rounded(entropy),
            "cross_entropy_error": _rounded(np.std(entropies)),
            "brier": _rounded(brier),
            "brier_low": _rounded(max(0.0, brier_low)),
            "brier_high": _rounded(min(1.0, brier_high)),
        }

    def calibration(self) -> dict[str, float]:
        """Return slope and error of the calibration, each with its interval."""
        shown: dict[str, float] = {}
        for name, field in (("calibration_slope", "slope"), ("calibration_error", "calibration_error")):
            value, spread = self._mean(field)
            low, high = _interval(float(value), spread)
            if field == "calibration_error":
                low, high = max(0.0, low), max(float(value), high)
            shown |= {name: _rounded(value), f"{name}_low": _rounded(low), f"{name}_high": _rounded(high)}
        return shown

    def _mean(self, field: str) -> tuple[Floats, Floats]:
        """Return a figure's mean over the thresholds: of the histograms, and of every refit."""
        found = np.mean([getattr(one, field)[0] for one in self.found], axis=0)
        return found, np.mean([getattr(one, field) for one in self.drawn], axis=0)


def _interval(value: float, refits: Floats) -> tuple[float, float]:
    """Return the basic bootstrap interval of 90 %: the refits' spread, turned around the estimate."""
    low, high = np.quantile(refits, (0.05, 0.95))
    middle = float(np.median(refits))
    return value - (float(high) - middle), value + (middle - float(low))


def _rounded(value: float | np.floating | Floats) -> float:
    return round(float(value), 4)
