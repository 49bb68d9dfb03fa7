"""The released numbers beside updates: loss sums, counts, score histograms, each with its noise.

A number leaves a hospital only through a function here, in ``sgd`` or in ``shared_noise``. Fingerprints and
train/validation membership are keyed hashes and belong to the data (``datasites.data.dataset``).

    >>> from privacy.dp.mechanism import CountRelease
    >>> stream = Randomness(b"s" * 32, study="s", round=1, plan_hash="p", dataset_fingerprint="f")
    >>> counts(np.array([0, 1, 1]), classes=2, release=CountRelease(noise_multiplier=0.0), randomness=stream).tolist()
    [1, 2]
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from privacy.dp.mechanism import CountRelease, HistogramRelease, LossRelease
from privacy.dp.randomness import Floats, Randomness, covering_deviation
from privacy.errors import InvalidInput

# Score bins: equal widths on [0, 1]. Public and fixed, so that sites can be added.
BINS = 32


def loss_sums(
    training: npt.ArrayLike,
    validation: npt.ArrayLike,
    *,
    terms: Sequence[str],
    release: LossRelease,
    randomness: Randomness,
) -> dict[str, float]:
    """Return noised sums of clipped losses, ready for ``UpdateHeader.releases``.

    Each record is on one side only, so that both sides together are one Gaussian release. Divide by the public count
    (:func:`mean_losses`) for means.

    Args:
        training: float[n, terms], losses of the training records; NaN counts as the bound.
        validation: float[m, terms], losses of the validation records.
        terms: name of each column, at most ``release.terms``.
        release: bound and noise.
        randomness: keyed stream of this round.

    Returns:
        ``{"loss.training.fused": ..., "loss.validation.fused": ..., ...}``.
    """
    if not 1 <= len(terms) <= release.terms:
        raise InvalidInput(f"expected 1 to {release.terms} loss terms, got {len(terms)}")
    sides = {"training": _clipped(training, terms, release), "validation": _clipped(validation, terms, release)}
    exact = np.concatenate([values.sum(axis=0) for values in sides.values()])
    deviation = covering_deviation(release.noise_multiplier, release.sensitivity, exact.size)
    noised = randomness.child("losses").add_gaussian(exact, deviation)
    names = [f"loss.{side}.{term}" for side in sides for term in terms]
    return {name: float(value) for name, value in zip(names, noised, strict=True)}


def counts(
    labels: npt.ArrayLike, *, classes: int, release: CountRelease, randomness: Randomness
) -> npt.NDArray[np.int64]:
    """Return the noised number of patients of each class; their sum is the public number of patients.

    Released once per dataset version and used wherever a count is needed: weights, sampling rates, class weights.

    Args:
        labels: int[n] in 0..classes - 1.
        classes: number of classes, public.
        release: the noise, sensitivity 1.
        randomness: keyed stream of this dataset version.

    Returns:
        int64[classes], at least 0.
    """
    exact = np.bincount(_labels(labels, classes), minlength=classes).astype(np.float64)
    return np.maximum(np.rint(_noised(exact, release.noise_multiplier, 1.0, randomness.child("count"))), 0).astype(
        np.int64
    )


def score_histograms(
    scores: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    classes: int,
    release: HistogramRelease,
    randomness: Randomness,
) -> Floats:
    """Return noised histograms of scores by class: all that evaluation sees of private records.

    Args:
        scores: float[n, outputs] in [0, 1]; outside is cut, NaN counts as 0.
        labels: int[n] in 0..classes - 1.
        classes: number of classes, public.
        release: noise and number of outputs.
        randomness: keyed stream of this round.

    Returns:
        float64[outputs, classes, 32]; may be negative, sums over sites are meaningful.
    """
    values = np.nan_to_num(np.asarray(scores, dtype=np.float64), nan=0.0)
    if values.ndim != 2 or values.shape[1] > release.outputs:
        raise InvalidInput(f"expected scores with at most {release.outputs} columns")
    bins = np.clip((values * BINS).astype(np.int64), 0, BINS - 1)
    exact = np.zeros((values.shape[1], classes, BINS))
    for output in range(values.shape[1]):
        np.add.at(exact[output], (_labels(labels, classes), bins[:, output]), 1.0)
    return _noised(exact, release.noise_multiplier, release.sensitivity, randomness.child("evaluation"))


def auroc(negative: npt.ArrayLike, positive: npt.ArrayLike) -> float:
    """Return the area under the ROC curve from two (noised) score histograms; post-processing.

    Negative bins count as zero; ties within a bin count half. 0.5 when a class is empty.

    Args:
        negative: float[32], scores of the negative class.
        positive: float[32], scores of the positive class.
    """
    low, high = (np.maximum(np.asarray(h, dtype=np.float64), 0) for h in (negative, positive))
    if low.sum() == 0 or high.sum() == 0:
        return 0.5
    below = np.cumsum(low) - low / 2
    return float((high * below).sum() / (low.sum() * high.sum()))


def _clipped(losses: npt.ArrayLike, terms: Sequence[str], release: LossRelease) -> Floats:
    values = np.asarray(losses, dtype=np.float64).reshape(-1, len(terms))
    return np.clip(np.nan_to_num(values, nan=release.bound), 0.0, release.bound)


def _labels(labels: npt.ArrayLike, classes: int) -> npt.NDArray[np.int64]:
    values = np.asarray(labels, dtype=np.int64)
    if values.ndim != 1 or (values.size and not (values.min() >= 0 and values.max() < classes)):
        raise InvalidInput(f"expected labels in 0..{classes - 1}")
    return values


def _noised(exact: Floats, noise_multiplier: float, sensitivity: float, randomness: Randomness) -> Floats:
    return randomness.add_gaussian(exact, covering_deviation(noise_multiplier, sensitivity, exact.size))
