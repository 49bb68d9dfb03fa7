"""What a study is proposed with when nobody says otherwise, and that a cautious hospital may accept it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from datasites.data.tcga.tables import TASKS
from datasites.review.policy import Policy, check
from datasites.study.proposal import DatasetReference, Party
from orchestrator.cli.options import TaskOption
from orchestrator.cli.study import StudyOptions
from orchestrator.demo.settings import DemoSettings
from orchestrator.simulation.runs import SimulationRequest
from orchestrator.studies.proposing.propose import build_proposal, price_of_min_sites, with_min_sites
from orchestrator.studies.proposing.schedule import with_schedule
from orchestrator.studies.proposing.settings import Offer, StudySettings
from privacy.dp.gaussian import gaussian_mu
from privacy.errors import InvalidInput
from privacy.identity import Identity
from privacy.ledger.costs import gaussian_cost, study_cost

PEOPLE = Party(name="office", institution="Office", public_key="1" * 64)
KEYHOLDER = Party(name="keys", institution="Keys", public_key="2" * 64)


def offer(index: int, task: str = "early-late", classes: int = 2) -> Offer:
    name = f"site-{index}"
    key = Identity.from_seed(bytes([index + 1]) * 32).public_key
    return Offer(
        party=Party(name=name, institution=f"Hospital {index}", public_key=key),
        cohort="BRCA",
        modalities=("mrna", "clinical"),
        dataset=DatasetReference(name=name, version=1, fingerprint="0" * 64, schema_hash="5" * 64, patients=100),
        features={"mrna": 1544, "image": 607, "clinical": 100},
        cohorts=("BRCA",),
        task=task,
        classes=classes,
    )


def proposed(sites: int = 9, **wishes):
    chosen = {name: value for name, value in vars(StudyOptions()).items() if name in vars(_settings())} | wishes
    chosen["evaluation_by"] = tuple(chosen["evaluation_by"] or ())  # as the command does
    settings = with_schedule(replace(_settings(), **chosen), None)
    offers = [offer(i, settings.task, 4 if settings.task == "I-IV" else 2) for i in range(sites)]
    proposal, _ = build_proposal(settings, offers, orchestrator=PEOPLE, keyholder=KEYHOLDER, code={})
    return proposal


def _settings() -> StudySettings:
    return StudySettings(study="s", purpose="p", legal_basis="l", task="early-late", rounds=20)


def test_the_default_policy_and_budget_accept_the_default_proposal() -> None:
    proposal, policy = proposed(), Policy()
    cost = study_cost(proposal.mechanism).total + gaussian_cost(10.0)
    epsilon = cost.epsilon(policy.budget.delta)
    assert epsilon < policy.budget.epsilon_cap
    assert check(policy, proposal, "site-0", epsilon=epsilon) == []


def test_four_stage_classes_are_a_task_that_can_be_proposed() -> None:
    proposal = proposed(task="I-IV")
    assert (proposal.task, proposal.model.classes) == ("I-IV", 4)
    told = DemoSettings.__annotations__["task"].__metadata__[0].help
    for option in (TaskOption.__metadata__[0].help, told):
        assert all(name in option for name in TASKS)


@pytest.mark.parametrize(("sites", "fewest"), [(3, 3), (4, 3), (9, 8)])
def test_shared_noise_asks_for_all_hospitals_but_one(sites: int, fewest: int) -> None:
    proposal = proposed(sites)
    assert (proposal.noise, proposal.min_sites, proposal.mechanism.min_sites) == ("shared", fewest, fewest)


def test_the_price_is_said_in_noise_and_in_missing_hospitals() -> None:
    said = price_of_min_sites(proposed())
    assert "8 of 9" in said
    assert "1 hospital may be missing" in said
    assert f"{math.sqrt(9 / 7):.2f} times" in said
    assert "no hospital may be missing" in price_of_min_sites(proposed(3))
    assert "charged" not in price_of_min_sites(proposed(noise="local"))


def test_local_noise_and_what_a_person_asks_for_stay() -> None:
    assert proposed(noise="local").min_sites == 3
    assert proposed(min_sites=5).min_sites == 5
    assert proposed(colluders=2).mechanism.colluders == 2
    assert with_min_sites(_settings(), 9).min_sites == 3
    with pytest.raises(InvalidInput, match="at least 5 hospitals"):
        proposed(4, min_sites=5)


def test_a_simulation_has_the_defaults_of_a_live_study() -> None:
    request = SimulationRequest(
        data=None, federation="tri-modal", sites=None, task="early-late", methods=("fedavg",), architecture="linear",
        rounds=None, epsilon=8.0, delta=1e-4, noise="shared", colluders=2, evaluation_share=0.5,
    )  # fmt: skip
    settings = request.settings("fedavg", 0)
    assert with_min_sites(settings, 9).min_sites == 8
    assert (settings.colluders, settings.evaluation_share) == (2, 0.5)


def test_an_evaluation_takes_no_noise_from_training() -> None:
    """The patients that are scored pay for nothing else: 1.72 noise multipliers became .54 at epsilon 8."""
    without, with_it = proposed(), proposed(evaluation_share=1.0)
    release = with_it.mechanism.evaluation
    assert release is not None
    assert release.scored_apart
    assert release.noise_multiplier == pytest.approx(0.54, abs=0.01)
    assert with_it.mechanism.noise_multiplier == pytest.approx(without.mechanism.noise_multiplier, rel=1e-3)
    assert with_it.mechanism.epsilon() <= 8.0
    cost = study_cost(with_it.mechanism)
    assert cost.total.mu_squared <= 1.002 * study_cost(without.mechanism).total.mu_squared


def test_an_evaluation_beside_losses_leaves_them_their_part() -> None:
    mechanism = proposed(noise="local", aggregation="dgb", evaluation_share=1.0).mechanism
    assert mechanism.losses is not None
    assert mechanism.epsilon() <= 8.0


@pytest.mark.parametrize("share", [-0.1, 1.1, math.nan])
def test_an_evaluation_share_out_of_range_is_refused(share: float) -> None:
    with pytest.raises(InvalidInput, match="evaluation share"):
        proposed(evaluation_share=share)


def test_a_study_in_which_no_hospital_learns_from_another_is_refused_before_it_starts() -> None:
    """Two institutions for each modality: only the bias would travel, for forty charged rounds."""
    held = [("mrna",), ("mrna",), ("clinical",), ("clinical",)]
    offers = [replace(offer(i), modalities=modalities) for i, modalities in enumerate(held)]
    roles = {"orchestrator": PEOPLE, "keyholder": KEYHOLDER, "code": {}}
    with pytest.raises(InvalidInput, match="at least 3 institutions hold, got clinical at 2, mrna at 2"):
        build_proposal(replace(_settings(), rounds=40), offers, **roles)
    one_more = [*offers, replace(offer(4), modalities=("mrna",))]
    assert build_proposal(replace(_settings(), rounds=40), one_more, **roles)
    shared = replace(_settings(), noise="shared", min_sites=3)
    assert build_proposal(shared, offers, **roles)


@pytest.mark.parametrize("epsilon", [1.0, 8.0, 18.5])
def test_an_evaluation_takes_all_that_epsilon_allows_also_where_the_distance_to_ideal_noise_is_large(epsilon) -> None:
    """At epsilon 18.5 the usual term alone, (1 + e^epsilon) times the distance, passes delta."""
    mechanism = proposed(epsilon=epsilon, evaluation_share=1.0, noise="shared").mechanism
    evaluation = mechanism.evaluation
    exact = 1 / gaussian_mu(epsilon, mechanism.target_delta)
    assert exact <= evaluation.noise_multiplier <= 1.006 * exact
    assert 0.998 * epsilon <= mechanism.epsilon() <= epsilon * (1 + 1e-6)


@pytest.mark.parametrize("epsilon", [2.0, 12.0])
def test_the_epsilon_that_is_shown_is_the_ledgers(epsilon) -> None:
    mechanism = proposed(epsilon=epsilon, noise="shared").mechanism
    for delta in (mechanism.target_delta, 2e-6):
        ledgers = study_cost(mechanism).total.epsilon(delta)
        assert mechanism.epsilon(delta) == pytest.approx(ledgers, abs=1e-4)
