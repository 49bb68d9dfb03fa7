"""What a site says of its own update: an angle, free under local noise, refused under shared noise, not to be gamed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load, save

from datasites.study.proposal import Block
from datasites.study.recomputed.released_numbers import (
    PROXIMITY,
    checked_header_numbers,
    checked_numbers,
    releases_proximity,
)
from datasites.training import proximity as module
from datasites.training.proximity import own_numbers, proximity_to_others
from datasites.worker.trainer import trial_plan
from privacy.errors import InvalidInput

BLOCKS = (
    Block(name="mrna", modality="mrna", length=40, parameters=("m",)),
    Block(name="shared", modality=None, length=5, parameters=("s",)),
)
WEIGHTS = {"alba": 1.0, "bruna": 0.5, "corva": 0.8}


@pytest.fixture
def study(new_proposal):
    plain = new_proposal(blocks=BLOCKS)
    return replace(plain, training=replace(plain.training, aggregation="pcw"))


@pytest.fixture
def plan(study):
    return replace(trial_plan(study), round=2, weights={b.name: WEIGHTS for b in BLOCKS})


@pytest.fixture
def sent():
    draw = np.random.default_rng(3)
    return {s: {"mrna": draw.integers(-40, 41, 40), "shared": draw.integers(-40, 41, 5)} for s in WEIGHTS}


def models(study, sent, sites):
    """The model before and after a round of these sites, as the server makes it."""
    before = {"m": np.linspace(-1, 1, 40, dtype=np.float32), "s": np.zeros(5, np.float32)}
    size = study.training.update_bound / (study.encryption.levels * sum(WEIGHTS[s] for s in sites))
    after = {
        n: v + np.float32(sum(sent[s][b] for s in sites) * size)
        for (n, v), b in zip(before.items(), ("mrna", "shared"), strict=True)
    }
    return save(before), save(after)


def said(study, plan, sent, site, sites=tuple(WEIGHTS)):
    return proximity_to_others(study, plan, site, sites, sent[site], *models(study, sent, sites))


def test_it_is_the_cosine_with_the_sum_of_the_others(study, plan, sent):
    own, others = sent["alba"]["mrna"], sent["bruna"]["mrna"] + sent["corva"]["mrna"]
    expected = own @ others / np.linalg.norm(own) / np.linalg.norm(others)
    assert said(study, plan, sent, "alba") == pytest.approx(expected, abs=0.0051)


def test_who_did_not_come_is_not_among_the_others(study, plan, sent):
    own, other = sent["alba"]["mrna"], sent["corva"]["mrna"]
    expected = own @ other / np.linalg.norm(own) / np.linalg.norm(other)
    assert said(study, plan, sent, "alba", ("alba", "corva")) == pytest.approx(expected, abs=0.0051)
    assert said(study, plan, sent, "bruna", ("alba", "corva")) == 0.0


def test_an_inflated_update_gains_nothing(study, plan, sent):
    quiet = {**sent, "alba": {b: v // 10 for b, v in sent["alba"].items()}}
    loud = {**sent, "alba": {b: v // 10 * 15 for b, v in sent["alba"].items()}}
    assert said(study, plan, loud, "alba") == pytest.approx(said(study, plan, quiet, "alba"), abs=0.0051)


def test_blending_scales_do_not_change_the_angle(study, plan, sent):
    blended = replace(plan, scales={"mrna": 0.5, "shared": 1.0})
    before, after = models(study, sent, tuple(WEIGHTS))
    start, end = load(before), load(after)
    doubled = save({name: start[name] + 2 * (end[name] - start[name]) for name in start})
    given = proximity_to_others(study, blended, "alba", list(WEIGHTS), sent["alba"], before, doubled)
    assert given == pytest.approx(said(study, plan, sent, "alba"), abs=0.0051)


def test_it_travels_in_its_rounds_and_says_nothing_where_nothing_was_kept(study, tmp_path):
    assert [n for n in range(1, 12) if releases_proximity(study, n)] == [3, 4, 5, 6, 7]
    assert own_numbers(study, 2, "alba", tmp_path, None, b"") == {}
    assert own_numbers(study, 3, "alba", tmp_path, None, b"") == {PROXIMITY: 0.0}
    assert not releases_proximity(replace(study, training=replace(study.training, aggregation="fedavg")), 3)


def test_what_was_kept_gives_the_next_rounds_number(study, plan, sent, tmp_path):
    before, after = models(study, sent, tuple(WEIGHTS))
    module.keep_sent(study, plan, tmp_path, sent["alba"], before)
    module.keep_sites(study, plan, tmp_path, ["corva", "alba", "bruna"])
    found = own_numbers(study, 3, "alba", tmp_path, plan, after)
    assert found == {PROXIMITY: said(study, plan, sent, "alba")}


def test_a_header_carries_it_and_a_worker_never_does(study):
    assert checked_header_numbers(study, "alba", 3, {PROXIMITY: 0.25}) == {PROXIMITY: 0.25}
    for number, numbers in ((3, {}), (2, {PROXIMITY: 0.1}), (3, {PROXIMITY: 1.5}), (3, {PROXIMITY: float("nan")})):
        with pytest.raises(InvalidInput):
            checked_header_numbers(study, "alba", number, numbers)
    with pytest.raises(InvalidInput):
        checked_numbers(study, "alba", 3, {PROXIMITY: 0.25})


def test_it_is_refused_under_shared_noise_and_behind_an_adaptive_server(study, new_proposal):
    shared = new_proposal(blocks=BLOCKS, noise="shared")
    with pytest.raises(InvalidInput, match="share of the noise"):
        replace(shared, training=replace(shared.training, aggregation="pcw"))
    with pytest.raises(InvalidInput, match="plain step"):
        replace(study, training=replace(study.training, server_optimizer="adam"))
