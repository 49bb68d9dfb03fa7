"""Scores against scikit-learn and against cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from orchestrator.studies.evaluation import auroc, balanced_accuracy, calibration_error, cross_entropy, evaluate
from privacy.errors import InvalidInput


def predictions(n=200, classes=2, seed=0):
    g = np.random.default_rng(seed)
    label = g.integers(0, classes, n)
    logits = np.round(g.normal(size=(n, classes)) + np.eye(classes)[label], 1)  # rounded: ties occur
    p = np.exp(logits)
    return p / p.sum(axis=1, keepdims=True), label, g.integers(0, 3, n)


def test_auroc_and_balanced_accuracy_agree_with_scikit_learn():
    p, label, _ = predictions()
    assert auroc(p, label) == pytest.approx(roc_auc_score(label, p[:, 1]))
    decided = (p / p.mean(axis=0)).argmax(axis=1)
    assert balanced_accuracy(p, label) == pytest.approx(balanced_accuracy_score(label, decided))


def test_a_rare_class_is_decided_for_where_it_stands_out():
    risk = np.r_[np.full(90, 0.05), np.full(10, 0.30)]  # the late stage is never the more probable one
    p = np.stack([1 - risk, risk], axis=1)
    assert balanced_accuracy(p, np.repeat([0, 1], [90, 10])) == pytest.approx(1.0)


def test_ordinal_auroc_is_the_mean_over_thresholds():
    p, label, _ = predictions(classes=3)
    by_hand = [roc_auc_score(label > 0, p[:, 1:].sum(axis=1)), roc_auc_score(label > 1, p[:, 2])]
    assert auroc(p, label) == pytest.approx(np.mean(by_hand))


def test_the_mean_over_cohorts_does_not_reward_guessing_by_cohort():
    cohort = np.repeat([0, 1], 100)
    label = np.concatenate([np.repeat([0, 1], [90, 10]), np.repeat([0, 1], [10, 90])])
    score = np.where(cohort == 1, 0.9, 0.1)
    p = np.stack([1 - score, score], axis=1)
    assert auroc(p, label) == pytest.approx(0.9)
    assert evaluate(p, label, cohort, ("A", "B")).auroc == pytest.approx(0.5)


def test_cross_entropy_and_calibration_by_hand():
    p = np.array([[0.8, 0.2], [0.8, 0.2]])
    assert cross_entropy(p, np.array([0, 1])) == pytest.approx(-(np.log(0.8) + np.log(0.2)) / 2)
    assert calibration_error(p, np.array([0, 1])) == pytest.approx(0.3)
    assert calibration_error(p, np.array([0, 0])) == pytest.approx(0.2)


def test_a_cohort_with_one_class_is_left_out():
    p, label, cohort = predictions()
    label[cohort == 2] = 1
    assert set(evaluate(p, label, cohort, ("A", "B", "C")).auroc_by_cohort) == {"A", "B"}


def test_diverged_or_misshapen_predictions_are_refused():
    p, label, cohort = predictions()
    with pytest.raises(InvalidInput):
        evaluate(p * np.nan, label, cohort, ("A", "B", "C"))
    with pytest.raises(InvalidInput):
        evaluate(p[:-1], label, cohort, ("A", "B", "C"))
