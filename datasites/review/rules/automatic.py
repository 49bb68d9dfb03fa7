"""What a hospital's policy approves without a person: off by default, and checked again before every round."""

from __future__ import annotations

import math
from collections.abc import Callable

from datasites.review.policy import Policy
from datasites.review.records import Request
from datasites.study.proposal import Proposal
from privacy.dp.gaussian import gaussian_delta


def is_small_question(policy: Policy, proposal: Proposal) -> bool:
    """Return whether a proposal only counts, and costs at most what the policy lets pass without a person.

    The cost is taken at the budget's delta. It is one Gaussian release, so it is exact; the distance of its computed
    noise to the ideal one comes on top (docs/filter.md, section 1).
    """
    most, mechanism = policy.review.auto_approve_analytics_epsilon, proposal.mechanism
    if proposal.model.counting is None or most <= 0 or not proposal.charged.private or proposal.seed is not None:
        return False
    spent = gaussian_delta(1.0 / mechanism.noise_multiplier, most)
    return spent + (1.0 + math.exp(most)) * mechanism.total_variation() <= policy.budget.delta


def rule_of(policy: Policy, proposal: Proposal, earlier: Callable[[], Request | None]) -> str:
    """Return by which rule of the policy a proposal needs no person, for journal and report; empty where it needs one.

    Args:
        policy: the owner's.
        proposal: what is asked.
        earlier: finds an identical plan that people approved here and that still holds.
    """
    if is_small_question(policy, proposal):
        return f"statistics of at most epsilon {policy.review.auto_approve_analytics_epsilon:g}"
    found = earlier() if policy.review.auto_approve_reruns else None
    return "" if found is None else f"re-run of {found.proposal_hash}"
