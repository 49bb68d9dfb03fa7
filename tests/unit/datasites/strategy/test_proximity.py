"""Proximity weights: leave-one-out against the published rule, and attempts to game them."""

from __future__ import annotations

import numpy as np
import pytest

from datasites.strategy.proximity import (
    ProximityWeights,
    accumulate,
    proximity,
    site_proximity,
    weighted,
    weighted_as_published,
)
from datasites.strategy.registry import noise_named, strategy_named
from datasites.strategy.weights import bounded
from privacy.errors import InvalidInput, Refused

OURS, PUBLISHED = ProximityWeights(), ProximityWeights(published=True)


def updates(seed=0, sites=5, n=400, agreement=0.5):
    g = np.random.default_rng(seed)
    common = g.normal(size=n)
    return {f"s{i}": (agreement * common + g.normal(size=n)).astype(np.float32) for i in range(sites)}


def proximities(vectors, weights, rule):
    total = sum(weights.values())
    mean = np.sum([weights[s] / total * v for s, v in vectors.items()], axis=0)
    return {s: proximity(v, mean, weights[s] / total, rule) for s, v in vectors.items()}


def test_leave_one_out_is_the_cosine_with_the_other_sites_mean():
    v = updates(sites=3)
    found = proximities(v, {"s0": 3.0, "s1": 1.0, "s2": 2.0}, OURS)["s0"]
    others = (1 * v["s1"] + 2 * v["s2"]) / 3
    assert found == pytest.approx(v["s0"] @ others / np.linalg.norm(v["s0"]) / np.linalg.norm(others), rel=1e-5)


def test_the_published_rule_rewards_the_dominant_site_and_leave_one_out_does_not():
    v = updates(agreement=0.0, sites=4)  # nobody agrees with anybody
    weights = {"s0": 10.0, "s1": 1.0, "s2": 1.0, "s3": 1.0}
    assert proximities(v, weights, PUBLISHED)["s0"] > 0.9
    assert abs(proximities(v, weights, OURS)["s0"]) < 0.15


def test_inflating_the_norm_gains_nothing():
    v = updates()
    equal = dict.fromkeys(v, 1.0)
    loud = {**v, "s0": 100 * v["s0"]}
    assert proximities(loud, equal, OURS)["s0"] == pytest.approx(proximities(v, equal, OURS)["s0"], abs=1e-4)
    assert proximities(loud, equal, PUBLISHED)["s0"] > proximities(v, equal, PUBLISHED)["s0"] + 0.2


def final_weights(vectors, rule=OURS):
    """Weights after the rounds that are read, with the same updates every round; all sites are of one cohort."""
    counts, cohorts, known = dict.fromkeys(vectors, 1.0), dict.fromkeys(vectors, "one"), {}
    for number in range(rule.first, rule.last + 1):
        weights = bounded(weighted(counts, known, cohorts, rule), min_sites=3)
        known = accumulate(known, proximities(vectors, weights, rule), number, rule)
    return bounded(weighted(counts, known, cohorts, rule), min_sites=3)


def test_a_site_that_points_the_other_way_counts_less_but_within_the_bounds():
    v = updates(agreement=0.5)
    v["s4"] = -v["s4"]
    final = final_weights(v)
    assert final["s4"] == 0.25
    assert min(final[s] for s in v if s != "s4") == 1.0


def test_sites_made_to_look_bad_by_a_bad_one_recover_once_it_is_turned_down():
    v = updates(agreement=0.5, sites=4)
    v["s3"] = -6 * v["s3"]  # its norm drags the mean that the others are compared with
    equal = dict.fromkeys(v, 1.0)
    assert proximities(v, equal, OURS)["s0"] < -OURS.tolerance
    assert final_weights(v)["s3"] == 0.25 < 0.9 < final_weights(v)["s0"]


def test_whoever_agrees_keeps_the_full_weight_however_much_others_agree_more():
    counts = {"a": 100.0, "b": 50.0, "c": 80.0}
    found = weighted(counts, {"a": 0.60, "b": 0.0, "c": -0.09}, dict.fromkeys("abc", 0), OURS)
    assert found == pytest.approx(counts)


def test_each_cohort_keeps_its_total_weight():
    counts = {"a": 3.0, "b": 1.0, "c": 2.0, "d": 2.0}
    cohorts = {"a": 0, "b": 0, "c": 1, "d": 1}
    found = weighted(counts, {"a": -0.6, "c": -0.3}, cohorts, OURS)
    assert found["a"] + found["b"] == pytest.approx(4.0)
    assert found["a"] < 0.2 < found["c"] < 1.0 < found["d"]


def test_claiming_the_largest_proximity_gains_nothing_but_what_others_lost():
    counts, cohorts = dict.fromkeys("abcde", 100.0), dict.fromkeys("abcde", 0)
    assert weighted(counts, {"a": 1.0}, cohorts, OURS) == pytest.approx(counts)
    claimed = {"a": 1.0, "b": -1.0, "c": -1.0, "d": -1.0, "e": -1.0}
    final = bounded(weighted(counts, claimed, cohorts, OURS), min_sites=3)
    assert final["a"] / min(final.values()) <= 4.0


def test_one_number_for_all_blocks_is_the_cosine_of_the_whole_update():
    v = updates(sites=3)
    parts = {s: {"mrna": u[:150], "image": u[150:]} for s, u in v.items()}
    means = {b: np.mean([parts[s][b] for s in parts], axis=0) for b in ("mrna", "image")}
    shares = dict.fromkeys(means, 1 / 3)
    whole = proximities(v, dict.fromkeys(v, 1.0), OURS)["s0"]
    assert site_proximity(parts["s0"], means, shares, OURS) == pytest.approx(whole, abs=1e-6)


def test_published_proximities_that_are_all_negative_fall_back_to_the_counts():
    assert weighted_as_published({"a": 3.0, "b": 1.0}, {"a": -0.2, "b": -0.1}) == {"a": 3.0, "b": 1.0}
    assert weighted_as_published({"a": 3.0, "b": 1.0}, {"a": 0.5, "b": -0.1}) == {"a": 1.5, "b": 0.0}


def test_the_first_round_and_the_late_ones_are_not_read():
    assert [OURS.reads(n) for n in (1, 2, 6, 7)] == [False, True, True, False]
    assert PUBLISHED.reads(40)


def test_proximities_are_averaged_over_the_rounds_that_are_read():
    known = {}
    for number, value in zip(range(2, 7), (0.5, 0.1, -0.1, 0.3, 0.2), strict=True):
        known = accumulate(known, {"a": value}, number, OURS)
    assert known["a"] == pytest.approx(0.2)
    assert accumulate({"a": 1.0}, {"b": 0.5}, 3, OURS) == {"a": 1.0, "b": 0.5}
    assert accumulate({"a": 1.0}, {"a": 0.0}, 3, PUBLISHED) == {"a": 0.0}


def test_zero_updates_have_no_direction():
    assert proximity(np.zeros(3), np.ones(3), 0.1, OURS) == 0.0


def test_misfits_and_shared_noise_are_refused():
    with pytest.raises(InvalidInput):
        proximity(np.ones(3), np.ones(2), 0.1, OURS)
    with pytest.raises(InvalidInput):
        proximity(np.ones(3), np.ones(3), 1.0, OURS)
    with pytest.raises(Refused, match="share of the noise"):
        strategy_named("pcw").check_noise(noise_named("shared"))
