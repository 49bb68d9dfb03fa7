"""Proximity weights: leave-one-out against the published rule, and attempts to game them."""

from __future__ import annotations

import numpy as np
import pytest

from orchestrator.proximity import (
    ProximityRule,
    proximity,
    refuse_under_shared_noise,
    shortfalls,
    smooth,
    weighted,
    weighted_as_published,
)
from orchestrator.weights import bounded
from privacy.errors import InvalidInput, Refused

OURS, PUBLISHED = ProximityRule(), ProximityRule(published=True)


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


def final_weights(vectors, cohorts=None):
    equal = dict.fromkeys(vectors, 1.0)
    cohorts = cohorts or dict.fromkeys(vectors, "one")
    below = shortfalls({"mrna": proximities(vectors, equal, OURS)}, equal, cohorts)
    return bounded(weighted(equal, below, cohorts, OURS), min_sites=3)


def test_a_site_that_points_the_other_way_counts_less_but_within_the_bounds():
    v = updates()
    v["s4"] = -v["s4"]
    final = final_weights(v)
    assert 0.25 <= final["s4"] < 0.5
    assert min(final[s] for s in v if s != "s4") > 0.9


def test_sites_that_agree_keep_their_counts():
    counts = {"a": 100.0, "b": 50.0, "c": 80.0}
    below = shortfalls({"mrna": {"a": 0.30, "b": 0.22, "c": 0.26}}, counts, dict.fromkeys("abc", 0))
    assert weighted(counts, below, dict.fromkeys("abc", 0), OURS) == pytest.approx(counts)


def test_another_cohort_is_not_bad_data():
    v, other = updates(seed=1, sites=3), updates(seed=2, sites=2)
    both = v | {f"o{i}": -u for i, u in enumerate(other.values())}
    cohorts = {s: s[0] for s in both}
    final = final_weights(both, cohorts)
    assert min(final.values()) > 0.9


def test_each_cohort_keeps_its_total_weight():
    counts = {"a": 3.0, "b": 1.0, "c": 2.0, "d": 2.0}
    cohorts = {"a": 0, "b": 0, "c": 1, "d": 1}
    found = weighted(counts, {"a": -0.6, "c": -0.3}, cohorts, OURS)
    assert found["a"] + found["b"] == pytest.approx(4.0)
    assert found["a"] < 0.2 < found["c"] < 1.0 < found["d"]


def test_claiming_the_largest_proximity_is_bounded():
    counts = dict.fromkeys("abcde", 100.0)
    cohorts = dict.fromkeys("abcde", 0)
    claimed = {"mrna": {"a": 1.0, "b": -1.0, "c": -1.0, "d": -1.0, "e": -1.0}}
    final = bounded(weighted(counts, shortfalls(claimed, counts, cohorts), cohorts, OURS), min_sites=3)
    assert final["a"] / min(final.values()) <= 4.0


def test_published_proximities_that_are_all_negative_fall_back_to_the_counts():
    assert weighted_as_published({"a": 3.0, "b": 1.0}, {"a": -0.2, "b": -0.1}) == {"a": 3.0, "b": 1.0}
    assert weighted_as_published({"a": 3.0, "b": 1.0}, {"a": 0.5, "b": -0.1}) == {"a": 1.5, "b": 0.0}


def test_only_the_first_rounds_are_read():
    assert [OURS.reads(n) for n in (1, 6, 7)] == [True, True, False]
    assert PUBLISHED.reads(40)


def test_proximities_are_smoothed_over_rounds():
    assert smooth({"a": 1.0}, {"a": 0.0, "b": 0.5}, OURS) == {"a": pytest.approx(0.8), "b": 0.5}
    assert smooth({"a": 1.0}, {"a": 0.0}, PUBLISHED) == {"a": 0.0}


def test_zero_updates_have_no_direction():
    assert proximity(np.zeros(3), np.ones(3), 0.1, OURS) == 0.0


def test_misfits_and_shared_noise_are_refused():
    with pytest.raises(InvalidInput):
        proximity(np.ones(3), np.ones(2), 0.1, OURS)
    with pytest.raises(InvalidInput):
        proximity(np.ones(3), np.ones(3), 1.0, OURS)
    with pytest.raises(Refused, match="share of the noise"):
        refuse_under_shared_noise("shared")
