"""The owner's policy: cautious by default, refused when malformed, and each rule says what it found."""

import math
from dataclasses import replace

import pytest

from datasites.review.policy import Policy, check
from privacy.dp.mechanism import Mechanism
from privacy.errors import InvalidInput


def rules(policy: str, proposal, **given) -> set[str]:
    return {v.rule for v in check(Policy.parse(policy), proposal, "alba", **given)}


def mechanism(**changes) -> Mechanism:
    fields = {"max_grad_norm": 1.0, "noise_multiplier": 1.2, "sampling_rate": 0.25, "steps_per_round": 4}
    return Mechanism(**{**fields, "rounds": 5, "target_delta": 1e-5, **changes})


def test_a_modest_study_breaks_no_rule(new_proposal):
    assert rules("", new_proposal(), epsilon=4.0) == set()


@pytest.mark.parametrize(
    ("policy", "change", "rule"),
    [
        ('[noise]\nmodes = ["local"]', {"noise": "shared"}, "noise.modes"),
        ("", {"seed": 7}, "noise.allow_public_seed"),
        ("", {"kind": "python"}, "study.allow_free_python"),
        ("", {"mechanism": mechanism(noise_multiplier=0.0)}, "noise.allow_infinite_epsilon"),
        ("", {"mechanism": mechanism(noise_multiplier=0.1)}, "noise.minimum_multiplier"),
        ("[study]\nmaximum_rounds = 4", {}, "study.maximum_rounds"),
        ("[study]\nminimum_patients = 500", {}, "study.minimum_patients"),
        ("[study]\nminimum_sites = 4", {}, "study.minimum_sites"),
        ('[study]\nplan_authors = ["dr-else"]', {}, "study.plan_authors"),
        ("accept_only_partners = true", {}, "accept_only_partners"),
    ],
)
def test_each_rule_is_found(new_proposal, policy, change, rule):
    assert rule in rules(policy, new_proposal(**change))


def test_a_study_that_runs_longer_than_it_is_charged_for_is_found(new_proposal):
    assert rules("", new_proposal(rounds=9, mechanism=mechanism(rounds=5))) == {"what runs is what is charged"}
    assert rules("", new_proposal(rounds=3, mechanism=mechanism(rounds=5))) == set()


def test_an_epsilon_over_the_cap_or_infinite_is_found(new_proposal):
    assert rules("[budget]\nepsilon_cap = 3.0", new_proposal(), epsilon=3.5) == {"budget.epsilon_cap"}
    assert "noise.allow_infinite_epsilon" in rules("", new_proposal(), epsilon=float("inf"))


def test_inputs_scaled_by_a_hospitals_own_patients_are_refused_unless_no_epsilon_is_wanted(new_proposal):
    model = replace(new_proposal().model, self_scaled=("mrna",))
    assert rules("", new_proposal(model=model)) == {"noise.allow_infinite_epsilon"}
    assert rules("[noise]\nallow_infinite_epsilon = true", new_proposal(model=model)) == set()
    assert new_proposal(model=model).proposal_hash != new_proposal().proposal_hash


def test_a_policy_can_accept_what_is_off_by_default(new_proposal):
    policy = '[noise]\nmodes = ["local", "shared"]\nallow_public_seed = true'
    assert rules(policy, new_proposal(noise="shared", seed=7)) == set()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[budget", "not valid TOML"),
        ("[budget]\nepsilon = 3", r"budget\.epsilon"),
        ("[budget]\nepsilon_cap = inf", r"epsilon_cap"),
        ("[budget]\ndelta = 1.5", r"budget\.delta"),
        ('[noise]\nmodes = ["none"]', r"noise\.modes"),
        ("[study]\nminimum_sites = 2", r"study\.minimum_sites"),
        ("[review]\nrequired_reviewers = 0", r"review\.required_reviewers"),
        ('[sandbox]\nminimum_layers = ["magic"]', r"sandbox\.minimum_layers"),
    ],
)
def test_a_malformed_policy_is_refused_with_its_place(text, message):
    with pytest.raises(InvalidInput, match=message):
        Policy.parse(text)


def test_no_cap_needs_two_words_and_a_finite_cap_refuses_an_infinite_cost(new_proposal):
    both = Policy.parse("[budget]\nepsilon_cap = inf\n[noise]\nallow_infinite_epsilon = true")
    assert both.policy_hash != Policy.parse("[noise]\nallow_infinite_epsilon = true").policy_hash
    loud = new_proposal(mechanism=replace(new_proposal().mechanism, noise_multiplier=0.0))
    assert check(both, loud, "alba", epsilon=math.inf) == []
    capped = Policy.parse("[noise]\nallow_infinite_epsilon = true")
    assert {v.rule for v in check(capped, loud, "alba", epsilon=math.inf)} == {"budget.epsilon_cap"}
    assert "noise.allow_infinite_epsilon" in {v.rule for v in check(Policy(), loud, "alba", epsilon=math.inf)}


def test_a_missing_policy_file_is_one_clear_line(tmp_path):
    with pytest.raises(InvalidInput, match=r"policy\.toml"):
        Policy.load(tmp_path / "policy.toml")


def test_the_policy_hash_changes_with_the_policy():
    assert Policy().policy_hash != Policy.parse("[study]\nmaximum_rounds = 3").policy_hash
