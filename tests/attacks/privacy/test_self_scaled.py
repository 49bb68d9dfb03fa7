"""A study on values that each hospital scaled by its own patients is given an epsilon.

Played: a proposal whose model says so is previewed, reserved, charged and reported under an infinite cap. One patient
moves the inputs of all others, so the noise that hides one clipped gradient bounds nothing. The policy
refuses such a study; a hospital that allows an infinite epsilon was told 2.79 by preview, ledger and signed report.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.counting import counting
from support.report_story import Story, play, told_story

from datasites.portal.shown.answers import epsilons, who_learns
from datasites.review.budgets import preview
from datasites.review.policy import Policy
from datasites.review.rules.automatic import is_small_question
from orchestrator.studies.facts import _watermarks
from privacy.errors import BudgetExceeded

ANY = {"epsilon": math.inf, "delta": 1e-4, "by": "Dr. Rossi", "reason": "no epsilon is wanted"}


@pytest.fixture
def story(new_desk: Any, new_proposal: Any, now: Any) -> Story:
    return told_story(new_desk, new_proposal, now)


def scaled(new_proposal: Any, **changes: Any) -> Any:
    """Return a proposal on such values."""
    model = replace(new_proposal().model, self_scaled=("mrna",))
    return new_proposal(study="scaled", model=model, nonce="7" * 32, **changes)


def test_it_fits_under_no_cap(story: Story, new_proposal: Any) -> None:
    proposal = scaled(new_proposal)
    told = preview(story.ledger, story.population, proposal)
    assert not told.fits and math.isinf(told.cost) and math.isinf(told.after)
    with pytest.raises(BudgetExceeded):
        story.ledger.reserve(
            story.population, study="scaled", proposal_hash=proposal.proposal_hash, plan=proposal.charged
        )


def test_no_page_report_or_ledger_says_an_epsilon(story: Story, new_proposal: Any, now: Any, tmp_path: Path) -> None:
    proposal = scaled(new_proposal)
    story.ledger.set_cap(story.population, **ANY)
    told = preview(story.ledger, story.population, proposal)
    shown = epsilons(proposal, told)
    assert [n.epsilon.value for n in shown][:2] == [None, None] and shown[-2].epsilon.value is None
    assert not any(re.search("ε [0-9]", exposure.bound) for exposure in who_learns(proposal, told))
    story.ledger.reserve(story.population, study="scaled", proposal_hash=proposal.proposal_hash, plan=proposal.charged)
    story.desk.submit(proposal)
    play(story, proposal, rounds=1)
    assert math.isinf(story.ledger.account(story.population).spent.epsilon)
    report = story.build()
    assert report.summary.tone == "bad" and any("statistics of their own patients" in w for w in report.watermarks)
    last = report.studies[-1]
    assert last.spent.value is last.worst_case.value is last.spent_in_ledger.value is None
    assert report.populations[0].spent.value is None
    facts = {f.label: f.value for f in last.mechanism}
    assert float(facts["Noise multiplier"]) == proposal.mechanism.noise_multiplier  # what ran is still said
    assert any("own patients" in w for w in _watermarks(proposal))


def test_a_ledger_that_charged_it_as_an_ordinary_study_states_nothing_either(
    story: Story, new_proposal: Any, now: Any
) -> None:
    proposal = scaled(new_proposal)
    story.ledger.set_cap(story.population, **ANY)
    story.desk.submit(proposal)
    story.ledger.reserve(
        story.population, study="scaled", proposal_hash=proposal.proposal_hash, plan=proposal.mechanism
    )
    play(story, proposal, rounds=1)
    report = story.build()
    assert report.studies[-1].spent.value is report.populations[0].spent.value is None
    assert any("own patients" in w for w in report.watermarks)


def test_no_rule_approves_it_as_a_small_question(new_proposal: Any) -> None:
    policy, asked = (
        Policy.parse("[review]\nauto_approve_analytics_epsilon = 0.5\n[budget]\ndelta = 1e-5\n"),
        counting(new_proposal),
    )
    assert is_small_question(policy, asked)
    assert not is_small_question(policy, replace(asked, model=replace(asked.model, self_scaled=("clinical",))))


def test_the_figures_of_an_ordinary_study_are_untouched(new_proposal: Any) -> None:
    proposal = new_proposal()
    assert proposal.charged is proposal.mechanism
