from __future__ import annotations

import math
from dataclasses import replace

import pytest
from dp_accounting import GaussianDpEvent, SelfComposedDpEvent

from privacy.dp.accounting import pld_epsilon
from privacy.dp.gaussian import gaussian_epsilon
from privacy.dp.mechanism import CountRelease, HistogramRelease, LossRelease, Mechanism
from privacy.dp.two_hospitals import epsilon_at_two_hospitals

LOCAL = Mechanism(
    max_grad_norm=1.0, noise_multiplier=3.0, sampling_rate=0.3, steps_per_round=2, rounds=5, target_delta=1e-4
)
SHARED = replace(LOCAL, noise="shared", steps_per_round=1, max_parameters=50_000)


@pytest.fixture(scope="module")
def shared_twice() -> float:
    return epsilon_at_two_hospitals(SHARED, 1e-4)


def test_two_separate_answers_compose() -> None:
    twice = epsilon_at_two_hospitals(LOCAL, 1e-4)
    assert LOCAL.epsilon() < twice < 2 * LOCAL.epsilon()
    longer = replace(LOCAL, rounds=10)
    assert twice == pytest.approx(longer.epsilon(), rel=1e-3)


def test_one_sum_with_both_records_is_twice_as_far() -> None:
    full = replace(SHARED, sampling_rate=1.0)
    exact = pld_epsilon(SelfComposedDpEvent(GaussianDpEvent(1.5), 5), 1e-4)
    assert epsilon_at_two_hospitals(full, 1e-4) == pytest.approx(exact, rel=1e-3)


def test_sampling_lies_between_one_hospital_and_the_whole_shift(shared_twice: float) -> None:
    halved = replace(SHARED, noise_multiplier=1.5, sampling_rate=1 - 0.7**2)  # always the largest shift
    assert SHARED.epsilon() < shared_twice < halved.epsilon()


def test_the_other_releases_count_and_no_noise_is_no_bound(shared_twice: float) -> None:
    more = replace(
        SHARED,
        losses=LossRelease(every_rounds=2, bound=1.0, noise_multiplier=9.0),
        count=CountRelease(noise_multiplier=9.0),
        evaluation=HistogramRelease(every_rounds=5, noise_multiplier=9.0),
    )
    assert epsilon_at_two_hospitals(more, 1e-4) > shared_twice
    assert epsilon_at_two_hospitals(SHARED, 1e-4, rounds=2) < shared_twice
    assert math.isinf(epsilon_at_two_hospitals(replace(LOCAL, noise_multiplier=0.0), 1e-4))


def test_shared_noise_at_epsilon_8_has_a_figure() -> None:
    """The usual term, (1 + e^epsilon) times the distance to ideal noise, passes delta there: it said infinity."""
    sigma, rounds = 2.429, 20
    shared = Mechanism(
        max_grad_norm=1.0, noise_multiplier=sigma, sampling_rate=1.0, steps_per_round=1, rounds=rounds,
        target_delta=1e-4, noise="shared", min_sites=8, max_sites=9, max_parameters=2252,
    )  # fmt: skip
    exact = gaussian_epsilon(2 * rounds**0.5 / sigma, 1e-4)
    assert epsilon_at_two_hospitals(shared, 1e-4) == pytest.approx(exact, abs=0.01)
