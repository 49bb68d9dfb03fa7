"""Small questions that a policy approves without a person, and everything that keeps it from doing so."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.counting import counting

from datasites.review.policy import Policy
from datasites.review.rules.automatic import is_small_question
from privacy.errors import InvalidInput, Refused
from privacy.ledger.costs import study_cost

SWITCH = "[review]\nauto_approve_analytics_epsilon = 0.5\n[budget]\ndelta = 1e-5\n"


def states(desk, proposal):
    return [decision.kind for decision in desk.store.request(proposal.proposal_hash).decisions]


def test_small_questions_need_no_person_where_the_owner_says_so(new_desk, new_proposal, now):
    asked, larger = counting(new_proposal), counting(new_proposal, epsilon=0.6)
    usual, open_ = new_desk("[budget]\ndelta = 1e-5\n", name="usual"), new_desk(SWITCH, name="open")
    usual.submit(asked)
    assert states(usual, asked) == []
    for proposal in (asked, larger, new_proposal()):
        open_.submit(proposal)
    assert states(open_, asked) == ["approved-automatically"]
    assert states(open_, larger) == states(open_, new_proposal()) == []
    decision = open_.store.request(asked.proposal_hash).decisions[0]
    assert (decision.person, decision.reason) == ("policy", "statistics of at most epsilon 0.5")
    assert "proposal-approved-automatically" in open_.kinds()
    open_.store.policy = Policy.parse("[budget]\ndelta = 1e-5\n")
    with pytest.raises(Refused, match="not approved automatically any more"):
        open_.store.check_decision(asked.proposal_hash, now=now)


def test_the_policys_hash_of_before_the_switch_stands():
    plain = Policy.parse("")
    assert "auto_approve_analytics_epsilon" in plain.model_dump()["review"]
    assert plain.policy_hash != Policy.parse(SWITCH).policy_hash
    assert plain.policy_hash == Policy.parse("[review]\nauto_approve_analytics_epsilon = 0.0").policy_hash


def test_a_seeded_question_and_one_without_noise_are_never_small(new_proposal):
    policy = Policy.parse(SWITCH)
    asked = counting(new_proposal)
    assert is_small_question(policy, asked)
    assert not is_small_question(policy, replace(asked, seed=3))
    assert not is_small_question(policy, new_proposal())


WRONG = {
    "rounds": {"rounds": 2},
    "a rate": {"learning_rate": 0.5},
    "decay": {"weight_decay": 0.1},
    "an aggregation": {"aggregation": "fedavg"},
    "the server's rate": {"server_learning_rate": 0.5},
    "a clipping norm": {"max_grad_norm": 0.5},
    "batches": {"sampling_rate": 0.5},
}


@pytest.mark.parametrize("name", WRONG)
def test_a_counting_study_that_does_more_than_to_add_up_once_is_no_proposal(name, new_proposal):
    asked, change = counting(new_proposal), WRONG[name]
    parts = {}
    for field, value in change.items():
        for part in ("training", "mechanism"):
            if hasattr(getattr(asked, part), field):
                parts[part] = replace(parts.get(part, getattr(asked, part)), **{field: value})
    with pytest.raises(InvalidInput):
        replace(asked, **parts, **{k: v for k, v in change.items() if k == "rounds"})


def test_another_device_than_processors_is_refused_with_the_reason_and_old_hashes_stand():
    with pytest.raises(InvalidInput, match="run on processors"):
        Policy.parse("[sandbox]\ndevice = 'cuda'")
    assert Policy.parse("[sandbox]\ndevice = 'cpu'").policy_hash == Policy.parse("").policy_hash


def test_what_is_charged_is_one_gaussian_release_exactly(new_proposal):
    asked = counting(new_proposal)
    cost = study_cost(asked.mechanism).total
    assert cost.gaussian_only and cost.mu_squared == pytest.approx(asked.mechanism.noise_multiplier**-2, rel=1e-12)
    assert cost.epsilon(1e-5) == pytest.approx(asked.mechanism.epsilon(1e-5), rel=1e-3)
