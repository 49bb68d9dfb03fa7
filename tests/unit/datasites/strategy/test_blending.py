"""Gradient blending: the formulas by hand, the bounds, and what the published rule does."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasites.strategy.blending import BlendingState, Evaluation, GradientBlending, observe, ratios, scales
from privacy.errors import InvalidInput

MODALITIES = ("mrna", "image", "clinical")
losses = st.fixed_dictionaries(dict.fromkeys(MODALITIES, st.floats(0.0, 5.0)))
evaluations = st.builds(Evaluation, train=losses, validation=losses)


def run(evaluations, rule):
    state = BlendingState()
    for evaluation in evaluations:
        state = observe(state, evaluation, rule)
    return state


def test_scales_are_one_until_two_evaluations_exist():
    rule = GradientBlending()
    flat = dict.fromkeys(MODALITIES, 0.7)
    first = run([Evaluation(train=flat, validation=flat)], rule)
    assert scales(first, MODALITIES, rule) == dict.fromkeys(MODALITIES, 1.0)


def test_the_published_ratio_is_the_papers():
    before = Evaluation(train={"mrna": 0.7}, validation={"mrna": 0.7})
    now = Evaluation(train={"mrna": 0.4}, validation={"mrna": 0.6})
    # O = (0.6 - 0.4) - 0 = 0.2; G = 0.1; q = 0.1 / 0.04
    assert ratios(before, now, GradientBlending(published=True))["mrna"] == pytest.approx(2.5)


def test_published_shares_of_a_site_and_its_fused_term_sum_to_one():
    rule = GradientBlending(published=True)
    names = ("mrna", "image", "mrna+image")
    before = Evaluation(train=dict.fromkeys(names, 0.7), validation=dict.fromkeys(names, 0.7))
    now = Evaluation(
        train={"mrna": 0.5, "image": 0.6, "mrna+image": 0.4}, validation={"mrna": 0.6, "image": 0.65, "mrna+image": 0.6}
    )
    q = ratios(before, now, rule)
    shares = scales(run([before, now], rule), ("mrna", "image"), rule)
    assert shares["mrna"] == pytest.approx(q["mrna"] / sum(q.values()))
    assert sum(shares.values()) + q["mrna+image"] / sum(q.values()) == pytest.approx(1.0)


def test_getting_worse_is_rewarded_by_the_published_rule_and_not_by_ours():
    before = Evaluation(train={"mrna": 0.7, "image": 0.7}, validation={"mrna": 0.7, "image": 0.7})
    now = Evaluation(train={"mrna": 0.65, "image": 1.05}, validation={"mrna": 0.6, "image": 1.0})
    published = ratios(before, now, GradientBlending(published=True))
    assert published["image"] > published["mrna"]
    robust = ratios(before, now, GradientBlending())
    assert robust["mrna"] > robust["image"]


def test_a_modality_that_overfits_steps_less():
    before = Evaluation(train={"mrna": 0.7, "image": 0.7}, validation={"mrna": 0.7, "image": 0.7})
    now = Evaluation(train={"mrna": 0.3, "image": 0.6}, validation={"mrna": 0.65, "image": 0.6})
    rule = GradientBlending()
    found = scales(run([before, now], rule), ("mrna", "image"), rule)
    assert found["mrna"] < 1.0 < found["image"]


@given(st.lists(evaluations, min_size=2, max_size=6))
def test_robust_scales_are_finite_have_mean_one_and_stay_within_the_bound(history):
    rule = GradientBlending()
    found = scales(run(history, rule), MODALITIES, rule)
    assert sum(found.values()) / 3 == pytest.approx(1.0)
    assert max(found.values()) / min(found.values()) <= rule.bound**2 * (1 + 1e-9)


@given(st.lists(evaluations, min_size=2, max_size=4))
def test_published_shares_are_finite_and_at_most_one(history):
    rule = GradientBlending(published=True)
    assert all(0 <= s <= 1 and math.isfinite(s) for s in scales(run(history, rule), MODALITIES, rule).values())


def test_impossible_rules_are_refused():
    with pytest.raises(InvalidInput):
        GradientBlending(bound=0.5)
    with pytest.raises(InvalidInput):
        GradientBlending(smoothing=1.0)
