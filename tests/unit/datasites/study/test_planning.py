"""The next round's plan: weights within their bounds whatever sites say, scales from released losses, replayable."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from support.pilot_study import NAMES, proposal

from datasites.strategy.weights import PatientCounts, effective_sites
from datasites.study.messages import RoundPlan
from datasites.study.proposal import Block
from datasites.study.recomputed.checks import check_scales, check_weights
from datasites.study.recomputed.planning import FinishedRound, Planner, weights_by
from orchestrator.studies.proposing.mechanisms import DEFAULT_STEPS
from orchestrator.studies.proposing.propose import build_proposal
from orchestrator.studies.proposing.settings import Offer, StudySettings
from privacy.dp.mechanism import LossRelease

BLOCKS = tuple(Block(name=m, modality=m, length=4, parameters=(m,)) for m in ("mrna", "clinical"))


def fedavg_weights(made):
    return weights_by(PatientCounts(), made, {})


def study(aggregation: str, rounds: int = 12, noise: float = 0.0):
    plain = proposal(rounds=rounds, blocks=BLOCKS)
    losses = LossRelease(every_rounds=2, bound=2.0, noise_multiplier=noise, terms=3, last_round=6)
    return replace(
        plain,
        participants=tuple(replace(p, modalities=("mrna", "clinical")) for p in plain.participants),
        mechanism=replace(plain.mechanism, rounds=rounds, losses=losses),
        training=replace(plain.training, aggregation=aggregation),
    )


def plan_of(planner: Planner, number: int) -> RoundPlan:
    made = planner.proposal
    return RoundPlan(
        study=made.study,
        proposal_hash=made.proposal_hash,
        round=number,
        model_hash="0" * 64,
        key_hash="0" * 64,
        weights=planner.weights(),
        scales=planner.scales(),
        deadline_seconds=60,
        canonical=made.canonical,
    )


def rounds_of(made, cosines, last: int, here=NAMES):
    """Finished rounds in which sites claim these cosines and the image of overfitting grows on mRNA alone."""
    for number in range(1, last + 1):
        releases: dict[str, dict[str, float]] = {s: {} for s in here}
        for site in here:
            if 3 <= number <= 7:
                releases[site]["proximity.cosine"] = cosines.get(site, 0.5)
            if number % 2 == 0 and number <= 6:
                patients = made.participant(site).dataset.patients
                for term, overfits in (("mrna", 0.05), ("clinical", 0.0), ("mrna+clinical", 0.01)):
                    train = 0.7 - 0.05 * number
                    releases[site][f"loss.training.{term}"] = 0.8 * patients * train
                    releases[site][f"loss.validation.{term}"] = 0.2 * patients * (train + overfits * number)
        yield FinishedRound(number=number, sites=tuple(here), releases=releases)


def planned(made, cosines=None, last=8, here=NAMES):
    planner = Planner(made)
    for done in rounds_of(made, cosines or {}, last, here):
        planner.observe(done)
        check_weights(made, plan_of(planner, min(last, done.number + 1)))
        check_scales(made, plan_of(planner, min(last, done.number + 1)))
    return planner


def test_plain_averaging_ignores_everything_that_is_released():
    made = study("fedavg")
    planner = planned(replace(made, training=replace(made.training, aggregation="fedprox")), {"alba": -1.0})
    assert planner.weights() == fedavg_weights(made)
    assert set(planner.scales().values()) == {1.0}


def test_a_site_that_contradicts_the_others_counts_less_from_the_round_after_it_said_so():
    made = study("pcw")
    before = planned(made, {"dora": -0.9}, last=2).weights()
    assert before == fedavg_weights(made)
    after = planned(made, {"dora": -0.9}, last=3).weights()["mrna"]
    assert after["dora"] == 0.25
    assert min(after[s] for s in NAMES if s != "dora") > 0.7


@pytest.mark.parametrize("liar", [{"alba": 1.0}, {"alba": 1.0, "bruna": -1.0, "corva": -1.0, "dora": -1.0}])
def test_whatever_is_claimed_weights_keep_the_bounds_that_sites_and_keyholder_check(liar):
    made = study("pcw")
    weights = planned(made, liar).weights()
    for own in weights.values():
        assert all(0.25 <= w <= 1 for w in own.values())
        assert effective_sites(own) >= made.min_sites * (1 - 1e-9)


def test_no_claim_raises_a_site_above_what_patients_give_it_among_honest_ones():
    made = study("pcw")
    assert planned(made, {"alba": 1.0}).weights() == planned(made, {"alba": 0.3}).weights() == fedavg_weights(made)


def test_a_claim_about_a_round_one_was_not_in_is_not_read():
    made = study("pcw")
    planner = Planner(made)
    done = list(rounds_of(made, {"dora": -1.0}, 3))
    planner.observe(done[0])
    planner.observe(replace(done[1], sites=tuple(s for s in NAMES if s != "dora")))
    planner.observe(done[2])
    assert "dora" not in planner.proximities
    assert set(planner.proximities) == set(NAMES) - {"dora"}


def test_the_modality_that_overfits_steps_less_and_the_largest_scale_is_one():
    scales = planned(study("dgb")).scales()
    assert scales["mrna"] < scales["clinical"] == 1.0
    assert scales["mrna"] >= 1 / 1.5**2 - 1e-6


def test_scales_begin_with_the_second_evaluation_and_stay_after_the_last():
    made = study("dgb")
    assert planned(made, last=3).scales() == {"mrna": 1.0, "clinical": 1.0}
    assert planned(made, last=4).scales()["mrna"] < 1
    assert planned(made, last=6).scales() == planned(made, last=11).scales()


def test_a_round_that_was_lost_releases_nothing_and_changes_nothing():
    made = study("dgb+pcw")
    planner = planned(made, last=5)
    before = (planner.weights(), planner.scales())
    planner.observe(FinishedRound(number=6, sites=(), releases={}))
    assert (planner.weights(), planner.scales()) == before


def test_noise_in_the_losses_leaves_scales_within_their_bounds():
    made = study("dgb+pcw")
    draw = np.random.default_rng(1)
    for _ in range(30):
        planner = Planner(made)
        for done in rounds_of(made, {}, 8):
            noised = {
                site: {name: value + 40 * ("loss" in name) * draw.normal() for name, value in numbers.items()}
                for site, numbers in done.releases.items()
            }
            planner.observe(replace(done, releases=noised))
        assert all(1 / 1.5**2 - 1e-6 <= s <= 1 for s in planner.scales().values())


def test_losses_that_noise_hides_do_not_blend():
    assert set(planned(study("dgb", noise=5.0)).scales().values()) == {1.0}
    assert planned(study("dgb", noise=0.01)).scales()["mrna"] < 1


def offers():
    made = proposal()
    return [
        Offer(
            party=p,
            cohort=p.cohort,
            modalities=("mrna", "clinical"),
            dataset=p.dataset,
            features={"mrna": 6, "clinical": 3},
            cohorts=("LUSC",),
            task="early-late",
        )
        for p in made.participants
    ]


@pytest.mark.parametrize("noise", ["local", "shared"])
def test_a_proposal_that_blends_pays_for_its_losses_out_of_the_same_epsilon(noise):
    settings = StudySettings(
        study="s", purpose="p", legal_basis="l", task="early-late", rounds=20, aggregation="dgb", noise=noise
    )
    parties = {"orchestrator": proposal().orchestrator, "keyholder": proposal().keyholder, "code": {}}
    made, _ = build_proposal(settings, offers(), **parties)
    losses = made.mechanism.losses
    assert losses is not None
    assert (losses.every_rounds, losses.last_round, losses.terms) == (2, 8, 3)
    assert made.mechanism.epsilon() == pytest.approx(8.0, abs=0.02)
    plain, _ = build_proposal(replace(settings, aggregation="fedavg"), offers(), **parties)
    assert 1.0 < made.mechanism.noise_multiplier / plain.mechanism.noise_multiplier < 1.1
    assert math.prod([made.mechanism.rounds, made.mechanism.steps_per_round]) == DEFAULT_STEPS
