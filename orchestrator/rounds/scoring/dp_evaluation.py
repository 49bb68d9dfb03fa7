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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasites.data.publishing import COUNT_NOISE_MULTIPLIER
from datasites.language import mark
from datasites.study.proposal import Proposal
from datasites.study.recomputed.released_numbers import VALIDATION, histograms_of
from orchestrator.rounds.scoring.dp_outcomes import Counted, OutcomeEvaluation, outcome_figures
from orchestrator.rounds.scoring.score_model import ScoreFit, fit, occupied, on_simplex
from privacy.dp.randomness import covering_deviation
from privacy.dp.releases import BINS

LABEL = mark("differentially private estimate, on the hospitals' validation records, inside the protocol")
PAIRS_ERROR = 0.03
"""Standard error of the mean AUROC up to which pairs are counted; beyond it the model's bias is the smaller evil."""
_DRAWS = 400
_REFITS = 200
_NORMAL_90 = 1.645
_SMALLEST_SHARE = 0.1  # of the rarer side, so that noise never divides by nothing
_CENTRES = (np.arange(BINS) + 0.5) / BINS

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class DpEvaluation:
    """One evaluation of the global model that went into ``round``; errors are standard errors.

    ``auroc`` is the mean over cohorts and thresholds, ``cross_entropy`` (nats) the mean over thresholds, which for two
    classes is the usual one. ``records`` is the public estimate of how many records were scored. ``estimator`` says how
    the area was estimated: "pairs" or "monotone model". ``auroc_low`` to ``auroc_high`` and its like are intervals of
    90 %. The calibration slope is that of the true log-odds over the predicted ones (1 is calibrated, below 1 too sure
    of itself), ``calibration_error`` the mean distance of predicted and true rate; both come from the model.
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
    size = proposal.model.scores * proposal.model.cells * BINS
    deviation = covering_deviation(release.noise_multiplier, release.sensitivity, size)
    pools: dict[str, list[str]] = {}
    for site in sorted(releases):
        pools.setdefault(proposal.participant(site).cohort, []).append(site)
    pooled = {cohort: _Pool.of(proposal, sites, releases, deviation) for cohort, sites in pools.items()}
    target = proposal.model.predicts
    if target is not None and target.kind != "categorical":
        everybody = _Pool.of(proposal, list(releases), releases, deviation)
        return OutcomeEvaluation(
            round=number,
            label=LABEL,
            sites=len(releases),
            records=round(everybody.records),
            noise_multiplier=release.noise_multiplier,
            kind=target.kind,
            unit=target.unit,
            figures=outcome_figures(target, everybody.counted(), [pool.counted() for pool in pooled.values()]),
        )
    return _of_classes(proposal, number, releases, pooled, deviation)


def _of_classes(
    proposal: Proposal,
    number: int,
    releases: Mapping[str, Mapping[str, float]],
    pooled: Mapping[str, _Pool],
    deviation: float,
) -> DpEvaluation:
    areas = {cohort: pool.auroc() for cohort, pool in pooled.items()}
    everybody = _Pool.of(proposal, list(releases), releases, deviation)
    error = float(np.sqrt(np.sum([spread**2 for _, spread in areas.values()])) / len(areas))
    mean = float(np.mean([area for area, _ in areas.values()]))
    modelled = _Modelled.of(everybody, list(pooled.values()))
    entropy, entropy_error = everybody.cross_entropy()
    half = _NORMAL_90 * error
    figures: dict[str, Any] = {
        "estimator": "pairs",
        "auroc": _rounded(mean),
        "auroc_error": _rounded(error),
        "auroc_low": _rounded(max(0.0, mean - half)),
        "auroc_high": _rounded(min(1.0, mean + half)),
        "auroc_by_cohort": {cohort: _rounded(area) for cohort, (area, _) in areas.items()},
        "auroc_error_by_cohort": {cohort: _rounded(spread) for cohort, (_, spread) in areas.items()},
        "cross_entropy": _rounded(entropy),
        "cross_entropy_error": _rounded(entropy_error),
    }
    return DpEvaluation(
        round=number,
        label=LABEL,
        sites=len(releases),
        records=round(everybody.records),
        noise_multiplier=_noise_multiplier(proposal),
        **{**figures, **modelled.calibration(), **(modelled.areas(list(pooled)) if error > PAIRS_ERROR else {})},
    )


def _noise_multiplier(proposal: Proposal) -> float:
    return proposal.mechanism.evaluation.noise_multiplier if proposal.mechanism.evaluation else 0.0


@dataclass(frozen=True, kw_only=True)
class _Modelled:
    """The monotone model of every threshold, and the same fits to made-up records and noise (parametric bootstrap)."""

    found: Sequence[ScoreFit]
    drawn: Sequence[ScoreFit]

    @classmethod
    def of(cls, everybody: _Pool, cohorts: Sequence[_Pool]) -> _Modelled:
        stream = np.random.default_rng(0)  # public: the estimate of a round is always the same
        found, drawn = [], []
        for k, (early, late, deviation) in enumerate(everybody.thresholds()):
            bins = occupied(early + late, deviation * float(np.sqrt(0.5)))
            sides = [pool.thresholds()[k] for pool in cohorts]
            one = fit(
                np.stack([side[0][bins] for side in sides])[None],
                np.stack([side[1][bins] for side in sides])[None],
                _CENTRES[bins],
            )
            spread = np.array([side[2] for side in sides])[None, :, None]
            made = [
                stream.poisson(fitted, size=(_REFITS, *fitted.shape[1:]))
                + spread * stream.normal(size=(_REFITS, *fitted.shape[1:]))
                for fitted in (one.early, one.late)
            ]
            found.append(one)
            drawn.append(fit(made[0], made[1], _CENTRES[bins]))
        return cls(found=found, drawn=drawn)

    def areas(self, cohorts: Sequence[str]) -> dict[str, Any]:
        """Return the area and cross-entropy with their errors, by the model."""
        areas, spread = self._mean("areas")
        means = spread.mean(axis=1)
        low, high = _interval(float(areas.mean()), means)
        entropy, entropies = self._mean("cross_entropy")
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


@dataclass(frozen=True, kw_only=True)
class _Pool:
    """Histograms float64 [outputs, classes, 32] of some sites together.

    ``listed`` is how many validation records the released counts lead to expect, ``listed_error`` how far that may be
    off; ``deviation`` is the noise of one bin; ``ordered`` says whether classes have an order.
    """

    histograms: Floats
    listed: float
    listed_error: float
    deviation: float
    ordered: bool = True

    @classmethod
    def of(
        cls, proposal: Proposal, sites: Sequence[str], releases: Mapping[str, Mapping[str, float]], deviation: float
    ) -> _Pool:
        patients = sum(proposal.participant(site).dataset.patients for site in sites)
        dealt = VALIDATION * (1 - VALIDATION) * patients + len(sites) * (VALIDATION * COUNT_NOISE_MULTIPLIER) ** 2
        return cls(
            histograms=np.sum([histograms_of(releases[site], proposal.model) for site in sites], axis=0),
            listed=max(1.0, VALIDATION * patients),
            listed_error=float(np.sqrt(dealt)),
            deviation=deviation * float(np.sqrt(len(sites))),
            ordered=proposal.model.predicts is None,
        )

    def counted(self) -> Counted:
        """Return the same counts for figures of numbers and survival."""
        return Counted(histograms=self.histograms, records=self.records, deviation=self.deviation)

    @property
    def records(self) -> float:
        """The number of records scored, by the released counts and the noised bins together."""
        return float(self._records(np.array([self.histograms[0].sum()]), np.array([self.listed]))[0])

    def auroc(self) -> tuple[float, float]:
        """Return the area, averaged over the thresholds, and its standard error."""
        results = [self._area(early, late, deviation) for early, late, deviation in self.thresholds()]
        return float(np.mean([area for area, _ in results])), float(np.mean([error for _, error in results]))

    def cross_entropy(self) -> tuple[float, float]:
        """Return the mean negative log-likelihood at the bins' centres, and its standard error."""
        costs, records, results = np.concatenate([-np.log1p(-_CENTRES), -np.log(_CENTRES)]), self.records, []
        for early, late, deviation in self.thresholds():
            mean = float(costs @ np.concatenate([early, late])) / records
            cells = on_simplex(np.concatenate([early, late]), records) / records
            sampling = float(cells @ costs**2 - (cells @ costs) ** 2) / records
            noise = float(deviation**2 * (costs @ costs)) / records**2
            results.append((mean, float(np.sqrt(max(0.0, sampling) + noise))))
        return float(np.mean([mean for mean, _ in results])), float(np.mean([error for _, error in results]))

    def thresholds(self) -> list[tuple[Floats, Floats, float]]:
        """Return, for every threshold, the histograms of the earlier and the later side and one bin's deviation.

        Of classes without an order: for every class, those of all others and of itself.
        """
        found = []
        for k, by_class in enumerate(self.histograms):
            if not self.ordered:
                others = by_class.sum(axis=0) - by_class[k]
                found.append((others, by_class[k], self.deviation * float(np.sqrt(max(1, len(by_class) - 1)))))
                continue
            sides = by_class[: k + 1].sum(axis=0), by_class[k + 1 :].sum(axis=0)
            found.append((*sides, self.deviation * float(np.sqrt(max(k + 1, len(by_class) - k - 1)))))
        return found

    def _area(self, early: Floats, late: Floats, deviation: float) -> tuple[float, float]:
        """Return the area and its spread over made-up records and noise like these (parametric bootstrap)."""
        stream = np.random.default_rng(0)  # public: the estimate of a round is always the same
        cells = on_simplex(np.concatenate([early, late]), self.records)
        drawn = stream.poisson(cells, size=(_DRAWS, cells.size)) + stream.normal(0.0, deviation, (_DRAWS, cells.size))
        listed = self.records + stream.normal(0.0, self.listed_error, _DRAWS)
        spread = np.std(_areas(drawn[:, :BINS], drawn[:, BINS:], self._records(drawn.sum(axis=1), listed)))
        records = self._records(np.array([early.sum() + late.sum()]), np.array([self.listed]))
        return float(_areas(early[None], late[None], records)[0]), float(spread)

    def _records(self, counted: Floats, listed: Floats) -> Floats:
        """Weigh the noised total of all bins and the listed number by their precision."""
        noise = self.deviation**2 * self.histograms[0].size
        return np.asarray(
            np.maximum(1.0, (self.listed_error**2 * counted + noise * listed) / (self.listed_error**2 + noise))
        )


def _areas(early: Floats, late: Floats, records: Floats) -> Floats:
    """Return the area under the ROC curve of histograms [n, 32] of both sides, cut to [0, 1], float64 [n].

    The number of pairs won is unbiased, since the noise of the two sides is independent; the sizes of the sides come
    from their noised totals and the number of records [n] together.
    """
    below = np.cumsum(early, axis=1) - early / 2
    won = (late * below).sum(axis=1)
    least = _SMALLEST_SHARE * records
    size = np.clip((late.sum(axis=1) - early.sum(axis=1) + records) / 2, least, records - least)
    return np.asarray(np.clip(won / (size * (records - size)), 0.0, 1.0), np.float64)


def _rounded(value: float | np.floating | Floats) -> float:
    return round(float(value), 4)
