from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace

import pytest
from dp_accounting.rdp import rdp_privacy_accountant
from hypothesis import given
from hypothesis import strategies as st

from privacy.canonical import canonical_json
from privacy.dp.mechanism import CountRelease, HistogramRelease, LossRelease, Mechanism
from privacy.errors import InvalidInput
from privacy.ledger.cost_documents import cost_from_json, cost_to_json, study_from_json, study_to_json
from privacy.ledger.costs import (
    RDP_ORDERS,
    ZERO,
    Cost,
    PeriodicCost,
    StudyCost,
    gaussian_cost,
    study_cost,
)
from privacy.ledger.divergence import conversion
from privacy.ledger.filter import FAILURE_SHARE, Cap


@given(st.floats(0.3, 50), st.floats(1e-9, 0.1))
def test_epsilon_is_that_of_googles_accountant(noise_multiplier: float, delta: float) -> None:
    cost = Cost(rdp=gaussian_cost(noise_multiplier).rdp)  # as older code wrote it: a Rényi curve only
    expected, _ = rdp_privacy_accountant.compute_epsilon(RDP_ORDERS, cost.rdp, delta)
    if expected > 0:  # theirs has one shortcut to zero more
        assert cost.epsilon(delta) == pytest.approx(expected, rel=1e-12)


def test_the_gaussian_curve_is_the_theorem() -> None:
    """Mironov 2017, Proposition 7: at order 8, sigma 2, a divergence of 8 / (2 * 4) = 1 nat."""
    assert gaussian_cost(2.0).rdp[RDP_ORDERS.index(8.0)] == 1.0
    assert gaussian_cost(2.0).mu_squared == 0.25


@pytest.mark.parametrize("last_round", [None, 5])
def test_a_study_costs_what_its_mechanism_says(last_round: int | None) -> None:
    mechanism = Mechanism(
        max_grad_norm=1.0,
        noise_multiplier=1.5,
        sampling_rate=0.2,
        steps_per_round=3,
        rounds=7,
        target_delta=1e-5,
        losses=LossRelease(every_rounds=2, bound=3.0, noise_multiplier=12.0, last_round=last_round),
        count=CountRelease(noise_multiplier=9.0),
        evaluation=HistogramRelease(every_rounds=7, noise_multiplier=15.0),
    )
    cost = study_cost(mechanism)
    assert cost.total.failure >= mechanism.failure() * (1 - 1e-9)
    assert cost.total.epsilon(1e-5) >= mechanism.epsilon()
    assert cost.total.epsilon(1e-5) < 1.15 * mechanism.epsilon()
    by_rounds = cost.of_rounds(range(1, 8)) + cost.once
    assert by_rounds.rdp == pytest.approx(cost.total.rdp)
    assert by_rounds.mu_squared == pytest.approx(cost.total.mu_squared)
    assert study_from_json(json.loads(canonical_json(study_to_json(cost)))) == cost


def test_total_variation_takes_its_share_of_delta() -> None:
    cost = Cost(rdp=gaussian_cost(3.0).rdp)
    distant = Cost(rdp=cost.rdp, total_variation=1e-6)
    epsilon = distant.epsilon(1e-4)
    left = 1e-4 - (1 + math.exp(epsilon)) * 1e-6
    assert cost.epsilon(1e-4) < epsilon
    assert epsilon == pytest.approx(cost.epsilon(left), rel=1e-6)
    assert math.isinf(Cost(rdp=cost.rdp, total_variation=1e-3).epsilon(1e-4))


def test_shares_of_a_cap_add_up_and_one_is_the_cap() -> None:
    cap = Cap(epsilon=4.0, delta=1e-5)
    cost = gaussian_cost(3.0)
    assert cap.share(cost + cost) == pytest.approx(2 * cap.share(cost))
    exact = Cap(epsilon=cost.epsilon(1e-5), delta=1e-5)
    assert exact.share(cost, adaptive=False) == pytest.approx(1.0)
    assert 1 < exact.share(cost) < 1.005  # a hundredth of delta is kept for failures once an answer was seen
    assert cap.share(Cost(rdp=cost.rdp, delta=1e-4)) == math.inf
    assert Cap(epsilon=math.inf, delta=1e-5).share(gaussian_cost(0)) == 0
    assert conversion(2.0, 0.0) == math.inf


def test_failures_have_a_part_of_delta_of_their_own() -> None:
    cap = Cap(epsilon=4.0, delta=1e-5)
    cost = gaussian_cost(30.0, failure=FAILURE_SHARE * 1e-5 / 2)
    assert cap.share(cost) == pytest.approx(0.5)
    assert cap.share(cost.times(3)) == pytest.approx(1.5)
    assert cap.share(cost.times(3), adaptive=False) < 1
    assert math.isinf((gaussian_cost(3.0, failure=2e-5)).epsilon(1e-5))


def test_no_noise_is_an_infinite_cost_that_survives_json() -> None:
    cost = gaussian_cost(0)
    assert math.isinf(cost.epsilon(1e-5)) and math.isinf((cost + ZERO).times(3).epsilon(1e-5))
    assert cost_from_json(cost_to_json(cost)) == cost
    assert b"null" in canonical_json(cost_to_json(cost))
    assert cost.times(0) == ZERO


@given(st.lists(st.floats(0, 1e6), min_size=len(RDP_ORDERS), max_size=len(RDP_ORDERS)), st.integers(1, 9))
def test_costs_survive_json_to_the_last_bit(rdp: list[float], every: int) -> None:
    cost = Cost(rdp=tuple(rdp), delta=1e-7, total_variation=1e-20)
    plan = StudyCost(rounds=3, round=cost, periodic=(PeriodicCost(every_rounds=every, cost=cost),), once=cost)
    assert study_from_json(study_to_json(plan)) == plan


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Cost(rdp=(1.0,)),
        lambda: Cost(rdp=(math.nan,) * len(RDP_ORDERS)),
        lambda: Cost(rdp=(-1.0,) * len(RDP_ORDERS)),
        lambda: Cost(rdp=ZERO.rdp, delta=2.0),
        lambda: ZERO.times(-1),
        lambda: StudyCost(rounds=0, round=ZERO),
        lambda: StudyCost(rounds=2, round=ZERO).of_round(3),
        lambda: PeriodicCost(every_rounds=0, cost=ZERO),
        lambda: gaussian_cost(-1.0),
        lambda: Cap(epsilon=0.0, delta=1e-5),
        lambda: Cap(epsilon=1.0, delta=0.0),
        lambda: Cap(epsilon=1.0, delta=1.0),
    ],
)
def test_what_is_out_of_range_is_refused(wrong: object) -> None:
    with pytest.raises(InvalidInput):
        wrong()  # type: ignore[operator]


def test_a_patient_pays_for_training_or_for_the_evaluation_whatever_the_order_of_rounds() -> None:
    """Each kind of patient is covered after every set of charged rounds, and the total is the larger of the two."""
    training, scored = gaussian_cost(4.0), gaussian_cost(1.5)
    plan = StudyCost(rounds=6, round=training, apart=(PeriodicCost(every_rounds=3, cost=scored),))
    assert study_from_json(json.loads(canonical_json(study_to_json(plan)))) == plan
    assert plan.total.mu_squared == pytest.approx(max(6 / 4.0**2, 2 / 1.5**2))
    for order in itertools.permutations(range(1, 7)):
        charged, total = [], ZERO
        for number in order:
            total = total + plan.of_rounds([number], paid=charged)
            charged.append(number)
            trains, is_scored = training.times(len(charged)), scored.times(sum(n % 3 == 0 for n in charged))
            for kind in (trains, is_scored):
                assert total.mu_squared >= kind.mu_squared * (1 - 1e-12)
                assert all(t >= k * (1 - 1e-12) for t, k in zip(total.rdp, kind.rdp, strict=True))
        assert total.mu_squared == pytest.approx(plan.total.mu_squared)
    assert math.isinf(replace(plan, apart=(PeriodicCost(every_rounds=3, cost=gaussian_cost(0)),)).total.mu_squared)
