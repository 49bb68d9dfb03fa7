from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from privacy.dp.mechanism import CountRelease, HistogramRelease, LossRelease
from privacy.dp.randomness import Randomness
from privacy.dp.releases import BINS, auroc, counts, loss_sums, score_histograms
from privacy.errors import InvalidInput

LOSSES = LossRelease(every_rounds=1, bound=2.0, noise_multiplier=0.0, terms=2)


def stream(label: str = "a") -> Randomness:
    return Randomness(b"s" * 32, study="s", round=1, plan_hash=label, dataset_fingerprint="f")


def test_losses_are_clipped_summed_and_named() -> None:
    sums = loss_sums(
        [[0.5, 9.0], [1.0, -3.0]], [[float("nan"), 0.25]], terms=("fused", "mrna"), release=LOSSES, randomness=stream()
    )
    assert sums == {
        "loss.training.fused": 1.5,
        "loss.training.mrna": 2.0,
        "loss.validation.fused": 2.0,
        "loss.validation.mrna": 0.25,
    }


def test_one_record_moves_the_loss_release_by_at_most_its_sensitivity() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        training, validation = rng.normal(0, 5, (6, 2)), rng.normal(0, 5, (3, 2))
        whole = loss_sums(training, validation, terms=("a", "b"), release=LOSSES, randomness=stream())
        fewer = loss_sums(training[1:], validation, terms=("a", "b"), release=LOSSES, randomness=stream())
        assert math.dist(whole.values(), fewer.values()) <= LOSSES.sensitivity + 1e-12


def test_loss_noise_has_the_charged_size() -> None:
    release = LossRelease(every_rounds=1, bound=2.0, noise_multiplier=3.0, terms=4)
    draws = [
        list(loss_sums([], [], terms="abcd", release=release, randomness=stream(str(i))).values()) for i in range(200)
    ]
    assert np.std(draws) == pytest.approx(3.0 * 2.0 * 2.0, rel=0.08)


def test_more_loss_terms_than_are_charged_are_refused() -> None:
    with pytest.raises(InvalidInput, match="terms"):
        loss_sums([[1.0] * 3], [[1.0] * 3], terms="abc", release=LOSSES, randomness=stream())


def test_counts_are_whole_never_negative_and_carry_noise_of_the_right_size() -> None:
    labels = np.repeat([0, 1, 2], [30, 50, 0])
    exact = counts(labels, classes=3, release=CountRelease(noise_multiplier=0.0), randomness=stream())
    assert exact.tolist() == [30, 50, 0]
    release = CountRelease(noise_multiplier=5.0)
    draws = np.array([counts(labels, classes=3, release=release, randomness=stream(str(i))) for i in range(300)])
    assert draws.min() >= 0
    assert np.std(draws[:, 1]) == pytest.approx(5.0, rel=0.15)


def test_histograms_count_every_record_once_per_output() -> None:
    release = HistogramRelease(every_rounds=1, noise_multiplier=0.0, outputs=2)
    scores = np.array([[0.0, 1.0], [0.5, float("nan")], [2.0, -1.0]])
    found = score_histograms(scores, [0, 1, 1], classes=2, release=release, randomness=stream())
    assert found.shape == (2, 2, BINS)
    assert found.sum() == 6
    assert found[0, 0, 0] == 1 and found[0, 1, BINS // 2] == 1 and found[0, 1, BINS - 1] == 1
    assert found[1, 0, BINS - 1] == 1 and found[1, 1, 0] == 2


def test_one_record_moves_the_histograms_by_at_most_the_sensitivity() -> None:
    release = HistogramRelease(every_rounds=1, noise_multiplier=0.0, outputs=3)
    scores, labels = np.random.default_rng(1).random((20, 3)), np.zeros(20, dtype=int)
    whole = score_histograms(scores, labels, classes=2, release=release, randomness=stream())
    fewer = score_histograms(scores[1:], labels[1:], classes=2, release=release, randomness=stream())
    assert np.linalg.norm(whole - fewer) <= release.sensitivity + 1e-12


def test_auroc_from_histograms_is_that_of_the_scores_up_to_the_bins() -> None:
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 2, 4000)
    scores = np.clip(rng.normal(0.4 + 0.15 * labels, 0.2), 0, 1)
    release = HistogramRelease(every_rounds=1, noise_multiplier=4.0)
    found = score_histograms(scores[:, None], labels, classes=2, release=release, randomness=stream())
    assert auroc(found[0, 0], found[0, 1]) == pytest.approx(roc_auc_score(labels, scores), abs=0.02)
    assert auroc(np.zeros(BINS), found[0, 1]) == 0.5


def test_labels_and_scores_of_the_wrong_kind_are_refused() -> None:
    with pytest.raises(InvalidInput):
        counts([0, 5], classes=2, release=CountRelease(noise_multiplier=1.0), randomness=stream())
    with pytest.raises(InvalidInput):
        score_histograms(
            [[0.1, 0.2]],
            [0],
            classes=2,
            release=HistogramRelease(every_rounds=1, noise_multiplier=1.0),
            randomness=stream(),
        )
