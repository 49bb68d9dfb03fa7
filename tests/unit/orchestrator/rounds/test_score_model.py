"""The monotone model of noised histograms: right on average, steadier than counting pairs, and monotone."""

from __future__ import annotations

import numpy as np
import pytest

from orchestrator.rounds.scoring.score_model import fit, occupied, on_simplex

BINS = 32
CENTRES = (np.arange(BINS) + 0.5) / BINS


def histograms(records: int, slope: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the early and late bins of scores around .3 whose true log-odds are ``slope`` times the predicted ones."""
    stream = np.random.default_rng(seed)
    logit = stream.normal(-0.8, 0.8, size=records)
    late = stream.random(records) < 1 / (1 + np.exp(-(-0.8 + slope * (logit + 0.8))))
    bins = np.minimum((BINS / (1 + np.exp(-logit))).astype(int), BINS - 1)
    return np.bincount(bins[~late], minlength=BINS) * 1.0, np.bincount(bins[late], minlength=BINS) * 1.0


def counted(early: np.ndarray, late: np.ndarray) -> float:
    return float((late * (np.cumsum(early) - early / 2)).sum() / (early.sum() * late.sum()))


def noised(records: int, slope: float, deviation: float, draws: int) -> tuple[np.ndarray, np.ndarray]:
    stream, drawn = np.random.default_rng(1), [histograms(records, slope, seed) for seed in range(draws)]
    early, late = (np.stack([pair[side] for pair in drawn])[:, None, :] for side in (0, 1))
    return early + deviation * stream.normal(size=early.shape), late + deviation * stream.normal(size=late.shape)


def areas(early: np.ndarray, late: np.ndarray, deviation: float) -> np.ndarray:
    """Return the mean area of every draw, each cohort on its own occupied bins."""
    found = []
    for one, other in zip(early, late, strict=True):
        bins = [occupied(row, np.sqrt(2) * deviation) for row in one + other]
        found.append(fit(one[None], other[None], CENTRES, bins).areas.mean())
    return np.array(found)


@pytest.mark.parametrize("slope", [0.0, 0.6, 1.2])
def test_without_noise_the_area_and_the_slope_are_the_true_ones(slope: float) -> None:
    early, late = histograms(200_000, slope, 0)
    found = fit(early[None, None], late[None, None], CENTRES)
    assert found.areas[0, 0] == pytest.approx(counted(early, late), abs=0.005)
    assert found.slope[0] == pytest.approx(slope, abs=0.05)


@pytest.mark.parametrize("slope", [0.0, 1.0])
def test_noise_hardly_biases_the_mean_area_of_small_cohorts_and_counting_pairs_varies_more(slope: float) -> None:
    truth, deviation = counted(*histograms(400_000, slope, 99)), 0.94  # three hospitals a cohort, at epsilon 8
    drawn = [noised(records, slope, deviation, 300) for records in (160, 75, 50)]
    early, late = (np.concatenate([pair[side] for pair in drawn], axis=1) for side in (0, 1))
    found = areas(early, late, deviation)
    pairs = np.array(
        [np.mean([counted(*sides) for sides in zip(*pair, strict=True)]) for pair in zip(early, late, strict=True)]
    )
    assert abs(found.mean() - truth) < 0.03  # bins with high noise are kept more often, which pulls to .5
    assert found.std() < 0.8 * pairs.std()


def test_cohorts_whose_scores_lie_apart_are_each_fitted_where_they_lie() -> None:
    """One run of bins for all would hold all 32, and let in the noise of the bins where a cohort has nobody."""
    deviation, truth = 0.94, counted(*histograms(400_000, 1.0, 99))
    drawn = [noised(records, 1.0, deviation, 100) for records in (120, 60, 40)]
    early, late = (np.concatenate([pair[side] for pair in drawn], axis=1) for side in (0, 1))
    mirrored = early.copy(), late.copy()  # the last cohort from the other end, sides swapped: the same area
    mirrored[0][:, 2], mirrored[1][:, 2] = late[:, 2, ::-1], early[:, 2, ::-1]
    apart, together = areas(*mirrored, deviation), fit(*mirrored, CENTRES).areas.mean(axis=1)
    assert abs(apart.mean() - truth) < 0.04
    assert apart.std() < 0.75 * together.std()


def test_the_modelled_rate_rises_or_falls_with_the_score_in_every_cohort() -> None:
    early, late = noised(120, 0.7, 2.0, 40)
    found = fit(early.reshape(20, 2, BINS), late.reshape(20, 2, BINS), CENTRES)
    total = found.early + found.late
    for draw in range(20):
        for cohort in range(2):
            held = total[draw, cohort] > 1e-9
            steps = np.diff(found.late[draw, cohort][held] / total[draw, cohort][held])
            assert (steps >= -1e-12).all() or (steps <= 1e-12).all()


@pytest.mark.parametrize("size", [0.0, 1e-3, 1e3])
def test_noise_alone_gives_finite_figures(size: float) -> None:
    stream = np.random.default_rng(0)
    early, late = size * stream.normal(size=(2, 5, 3, BINS))
    found = fit(early, late, CENTRES)
    for figure in (found.areas, found.slope, found.calibration_error, found.cross_entropy):
        assert np.isfinite(figure).all()
    assert ((found.areas >= 0) & (found.areas <= 1)).all()


def test_the_occupied_bins_hold_almost_everybody() -> None:
    early, late = histograms(300, 1.0, 3)
    pooled = early + late + np.random.default_rng(0).normal(size=BINS)
    bins = occupied(pooled, 1.4)
    assert (early + late)[bins].sum() >= 0.97 * 300
    assert bins.stop - bins.start < 26
    assert occupied(np.zeros(BINS), 1.0).stop > occupied(np.zeros(BINS), 1.0).start


def test_the_nearest_vector_of_a_sum_is_not_negative() -> None:
    found = on_simplex(np.array([3.0, -1.0, 0.5]), 3.0)
    assert found.sum() == pytest.approx(3.0)
    assert (found >= 0).all()
