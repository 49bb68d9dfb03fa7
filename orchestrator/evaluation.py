"""How good are predictions: discrimination, thresholded decisions, likelihood, calibration.

Discrimination is averaged over cohorts, never pooled: guessing the stage from the cohort alone already gives an
AUROC of .71 on the pooled TCGA cohorts. These are exact numbers on public or synthetic held-out cases, printed
outside the protocol; a study on private records releases noised histograms instead (``privacy.releases``).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from scipy.stats import t as student

from privacy.errors import InvalidInput

Floats = NDArray[np.floating]
Integers = NDArray[np.integer]
CALIBRATION_BINS = 10
_TINY = 1e-7


def interval(values: Sequence[float]) -> dict[str, float]:
    """Return the mean and the half-width of its 95 % interval (Student's t): 0 for one value, NaN mean for none."""
    array = np.array(values, dtype=float)
    if len(array) < 2:
        return {"mean": float(array.mean()) if len(array) else math.nan, "half_width": 0.0}
    half = student.ppf(0.975, len(array) - 1) * array.std(ddof=1) / math.sqrt(len(array))
    return {"mean": float(array.mean()), "half_width": float(half)}


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """Scores of one set of predictions; ``auroc`` is the mean of ``auroc_by_cohort``.

    ``balanced_accuracy`` is also averaged over cohorts, decided by what stands out in the cohort (label-free);
    ``cross_entropy`` is in nats; ``calibration_error`` is the expected calibration error in 10 equal-width bins.
    """

    cases: int
    auroc: float
    auroc_by_cohort: dict[str, float]
    balanced_accuracy: float
    balanced_accuracy_by_cohort: dict[str, float]
    cross_entropy: float
    calibration_error: float


def evaluate(probability: Floats, label: Integers, cohort: Integers, cohorts: Sequence[str]) -> Metrics:
    """Score class probabilities [n, classes] against labels [n], cohort by cohort.

    A cohort without two classes among its cases is left out of the means.

    Raises:
        InvalidInput: shapes disagree, nothing to score, or probabilities are not finite.
    """
    if probability.ndim != 2 or not len(probability) == len(label) == len(cohort) or not len(label):
        raise InvalidInput(f"expected probabilities [n, classes] and n labels, got {probability.shape}, {label.shape}")
    if not np.isfinite(probability).all():
        raise InvalidInput("expected finite probabilities; the model has diverged, lower the learning rate")
    areas, accuracies = {}, {}
    for index, name in enumerate(cohorts):
        rows = cohort == index
        if len(set(label[rows].tolist())) > 1:
            areas[name] = auroc(probability[rows], label[rows])
            accuracies[name] = balanced_accuracy(probability[rows], label[rows])
    return Metrics(
        cases=len(label),
        auroc=_mean(areas.values()),
        auroc_by_cohort=areas,
        balanced_accuracy=_mean(accuracies.values()),
        balanced_accuracy_by_cohort=accuracies,
        cross_entropy=cross_entropy(probability, label),
        calibration_error=calibration_error(probability, label),
    )


def auroc(probability: Floats, label: Integers) -> float:
    """Return the area under the ROC curve of "later than class k", averaged over the thresholds k with both sides.

    Ties count half: a constant score gives 0.5.
    """
    areas = []
    for threshold in range(probability.shape[1] - 1):
        later = label > threshold
        if 0 < later.sum() < len(later):
            areas.append(binary_auroc(probability[:, threshold + 1 :].sum(axis=1), later))
    return _mean(areas)


def binary_auroc(score: Floats, positive: NDArray[np.bool_]) -> float:
    """Return the probability that a positive case scores above a negative one (Mann-Whitney), ties half."""
    positives = int(positive.sum())
    negatives = len(positive) - positives
    ranks = rankdata(score)
    return float((ranks[positive].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def balanced_accuracy(probability: Floats, label: Integers) -> float:
    """Return the recall averaged over the classes that occur, deciding as if they were equally common.

    The decision is the class whose probability stands out most against its mean over these cases: no label is used,
    and a rare late stage is not lost to the commoner early one.
    """
    usual = probability.mean(axis=0)
    hits = (probability / np.maximum(usual, _TINY)).argmax(axis=1) == label
    return _mean([float(hits[label == value].mean()) for value in sorted(set(label.tolist()))])


def cross_entropy(probability: Floats, label: Integers) -> float:
    """Return the mean negative log-likelihood of the labels, in nats."""
    chosen = probability[np.arange(len(label)), label]
    return float(-np.log(np.maximum(chosen, _TINY)).mean())


def calibration_error(probability: Floats, label: Integers, *, bins: int = CALIBRATION_BINS) -> float:
    """Return the expected calibration error: |accuracy - confidence| per equal-width bin, weighted by its cases."""
    confidence = probability.max(axis=1)
    hits = probability.argmax(axis=1) == label
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [
        abs(hits[place == b].mean() - confidence[place == b].mean()) * (place == b).mean() for b in set(place.tolist())
    ]
    return float(sum(gaps))


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return float(np.mean(found)) if found else float("nan")
