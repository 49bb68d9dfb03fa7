from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import replace

import pytest
from dp_accounting import GaussianDpEvent
from hypothesis import given, settings
from hypothesis import strategies as st

from datasites.study.signing import dump, parse
from privacy.canonical import canonical_json
from privacy.dp.accounting import ORDERS, pld_epsilon, rdp_curve
from privacy.dp.calibration import calibrate
from privacy.dp.mechanism import CountRelease, HistogramRelease, LossRelease, Mechanism
from privacy.dp.two_hospitals import epsilon_at_two_hospitals
from privacy.errors import InvalidInput

STUDY = Mechanism(
    max_grad_norm=1.0, noise_multiplier=2.0, sampling_rate=0.2, steps_per_round=5, rounds=8, target_delta=1e-5
)
FULL = replace(
    STUDY,
    losses=LossRelease(every_rounds=3, bound=2.0, noise_multiplier=15.0, terms=4),
    count=CountRelease(noise_multiplier=10.0),
    evaluation=HistogramRelease(every_rounds=8, noise_multiplier=8.0),
)
SHARED = replace(STUDY, noise="shared", steps_per_round=1, min_sites=5, colluders=2)


@pytest.mark.parametrize("mechanism", [STUDY, FULL, SHARED])
def test_a_mechanism_travels_as_canonical_json(mechanism: Mechanism) -> None:
    data = canonical_json(dataclasses.asdict(mechanism))
    again = parse(Mechanism, data)
    assert again == mechanism
    assert canonical_json(dataclasses.asdict(again)) == data


def test_whole_numbers_and_floats_give_the_same_bytes() -> None:
    one = replace(STUDY, max_grad_norm=1, noise_multiplier=2)
    assert canonical_json(dataclasses.asdict(one)) == canonical_json(dataclasses.asdict(STUDY))


@pytest.mark.parametrize("path", [("noise_sigma",), ("losses", "scale")])
def test_unknown_fields_are_refused_at_every_depth(path: tuple[str, ...]) -> None:
    data = json.loads(canonical_json(dataclasses.asdict(FULL)))
    place = data
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = 1.0
    with pytest.raises(InvalidInput):
        parse(Mechanism, data)


@pytest.mark.parametrize(
    "change",
    [
        {"max_grad_norm": 0.0},
        {"max_grad_norm": math.inf},
        {"noise_multiplier": -1.0},
        {"noise_multiplier": math.nan},
        {"sampling_rate": 0.0},
        {"sampling_rate": 1.5},
        {"steps_per_round": 0},
        {"rounds": 0},
        {"target_delta": 0.0},
        {"target_delta": 1.0},
        {"sampling": "shuffle"},
        {"clipping": "layer"},
        {"noise": "central"},
        {"noise": "shared"},  # five steps in a round
        {"min_sites": 2},
        {"colluders": 3},
        {"colluders": 0},
        {"max_sites": 65},
        {"max_parameters": 100_000},
    ],
)
def test_what_the_accounting_cannot_carry_is_refused(change: dict) -> None:
    with pytest.raises(InvalidInput, match="expected"):
        replace(STUDY, **change)


@pytest.mark.parametrize(
    "broken",
    [
        lambda: LossRelease(every_rounds=0, bound=1.0, noise_multiplier=1.0),
        lambda: LossRelease(every_rounds=1, bound=0.0, noise_multiplier=1.0),
        lambda: LossRelease(every_rounds=1, bound=1.0, noise_multiplier=1.0, terms=0),
        lambda: CountRelease(noise_multiplier=-1.0),
        lambda: HistogramRelease(every_rounds=1, noise_multiplier=math.inf),
        lambda: HistogramRelease(every_rounds=1, noise_multiplier=1.0, outputs=0),
    ],
)
def test_releases_out_of_range_are_refused(broken) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InvalidInput):
        broken()


def test_epsilon_grows_with_every_round_and_every_release() -> None:
    spent = [FULL.epsilon(rounds=r) for r in range(9)]
    assert spent == sorted(spent) and spent[0] > 0  # the count is released before the first round
    assert STUDY.epsilon(rounds=0) == 0
    for name in ("losses", "count", "evaluation"):
        assert replace(FULL, **{name: None}).epsilon() < FULL.epsilon()


def test_losses_stop_after_their_last_round_and_cost_nothing_from_then_on() -> None:
    losses = LossRelease(every_rounds=3, bound=1.0, noise_multiplier=2.0, last_round=7)
    study = replace(STUDY, rounds=12, losses=losses)
    assert [n for n in range(1, 13) if study.releases_losses(n)] == [3, 6]
    assert study.epsilon() < replace(study, losses=replace(losses, last_round=None)).epsilon()
    with pytest.raises(InvalidInput, match="last_round"):
        replace(losses, last_round=2)


def test_epsilon_falls_with_noise_and_rises_as_delta_falls() -> None:
    assert replace(STUDY, noise_multiplier=3.0).epsilon() < STUDY.epsilon()
    assert STUDY.epsilon(1e-7) > STUDY.epsilon()


def test_a_study_without_noise_has_infinite_epsilon() -> None:
    bare = replace(STUDY, noise_multiplier=0.0)
    assert bare.epsilon() == math.inf and not bare.private
    silent = replace(STUDY, losses=LossRelease(every_rounds=1, bound=1.0, noise_multiplier=0.0))
    assert silent.epsilon() == math.inf and not silent.private
    assert FULL.private


@settings(max_examples=3, deadline=None)
@given(epsilon=st.floats(0.5, 12), rate=st.floats(0.05, 1.0), rounds=st.integers(1, 20))
def test_calibration_meets_its_target_and_does_not_waste(epsilon: float, rate: float, rounds: int) -> None:
    found = calibrate(replace(STUDY, sampling_rate=rate, rounds=rounds), epsilon, 1e-5)
    assert 0.99 * epsilon <= found.epsilon() <= epsilon
    assert found.target_delta == 1e-5


def test_calibration_leaves_the_other_releases_alone_and_says_when_they_cost_too_much() -> None:
    found = calibrate(FULL, 4.0)
    assert found.losses == FULL.losses and found.epsilon() <= 4.0
    with pytest.raises(InvalidInput, match="cannot be reached"):
        calibrate(FULL, 0.2)
    with pytest.raises(InvalidInput):
        calibrate(FULL, -1.0)


def test_shared_noise_charges_what_the_colluders_see() -> None:
    assert SHARED.share_deviation == pytest.approx(2.0 / math.sqrt(3))
    honest = 5 - 2
    assert honest * SHARED.share_deviation**2 == pytest.approx((2.0 * 1.0) ** 2)
    local = replace(STUDY, steps_per_round=1)
    assert SHARED.epsilon() == pytest.approx(local.epsilon(), rel=1e-3)
    assert SHARED.epsilon() >= local.epsilon()
    assert SHARED.central().epsilon() < SHARED.epsilon()
    assert STUDY.central() == STUDY and STUDY.share_deviation == 2.0


def test_the_distance_from_the_ideal_is_charged_to_delta() -> None:
    slack = SHARED.total_variation()
    assert 0 < slack < 1e-9
    event = SHARED.event()
    epsilon = pld_epsilon(event, 1e-5, slack=1e-7)
    assert pld_epsilon(event, 1e-5 - (1 + math.exp(epsilon)) * 1e-7) <= epsilon * (1 + 1e-6)
    assert pld_epsilon(event, 1e-5, slack=1e-5) == math.inf


def test_releases_fall_on_the_rounds_that_are_charged() -> None:
    losses = [r for r in range(1, 9) if FULL.releases_losses(r)]
    evaluations = [r for r in range(1, 9) if FULL.releases_evaluation(r)]
    assert losses == [3, 6] and evaluations == [8]
    assert not any(STUDY.releases_losses(r) or STUDY.releases_evaluation(r) for r in range(1, 9))
    with pytest.raises(InvalidInput):
        FULL.releases_losses(0)
    with pytest.raises(InvalidInput):
        FULL.epsilon(rounds=9)


def test_renyi_curves_add_up_over_rounds() -> None:
    curve = STUDY.rdp()
    assert len(curve) == len(ORDERS)
    for whole, part in zip(curve, STUDY.rdp(rounds=2), strict=True):
        assert whole == pytest.approx(4 * part, rel=1e-9)


@pytest.mark.parametrize(
    "change", [{"noise": "local"}, {"rounds": 9}, {"min_sites": 4}, {"colluders": 3}, {"sites": 17}]
)
def test_a_study_that_runs_otherwise_than_charged_is_refused(change: dict) -> None:
    study: dict = {"noise": "shared", "rounds": 8, "min_sites": 5, "colluders": 2, "sites": 9}
    SHARED.check_study(**study)
    with pytest.raises(InvalidInput, match="the study's"):
        SHARED.check_study(**(study | change))


def test_records_that_are_scored_apart_pay_the_larger_of_two_curves() -> None:
    alone = Mechanism(
        max_grad_norm=1.0, noise_multiplier=3.0, sampling_rate=1.0, steps_per_round=1, rounds=10, target_delta=1e-5
    )
    evaluation = HistogramRelease(every_rounds=10, noise_multiplier=2.0)
    summed = replace(alone, evaluation=evaluation)
    apart = replace(alone, evaluation=replace(evaluation, scored_apart=True))
    scored = pld_epsilon(GaussianDpEvent(2.0), 1e-5)
    assert apart.epsilon() == pytest.approx(max(alone.epsilon(), scored), abs=1e-6)
    assert summed.epsilon() > apart.epsilon()
    loud = replace(apart, evaluation=replace(evaluation, scored_apart=True, noise_multiplier=0.5))
    assert loud.epsilon() == pytest.approx(pld_epsilon(GaussianDpEvent(0.5), 1e-5), abs=1e-6)
    assert apart.rdp() == tuple(max(a, b) for a, b in zip(alone.rdp(), loud_curve(apart), strict=True))
    assert epsilon_at_two_hospitals(apart, 1e-5) >= apart.epsilon()
    assert epsilon_at_two_hospitals(apart, 1e-5) < epsilon_at_two_hospitals(summed, 1e-5)


def loud_curve(mechanism: Mechanism) -> tuple[float, ...]:
    return rdp_curve(mechanism.events()[1])


def test_a_document_from_before_says_nothing_of_records_scored_apart() -> None:
    release = HistogramRelease(every_rounds=10, noise_multiplier=2.0)
    assert "scored_apart" not in dump(release)
    assert dump(replace(release, scored_apart=True))["scored_apart"] is True
    assert parse(HistogramRelease, dump(replace(release, scored_apart=True))).scored_apart


@pytest.mark.parametrize("epsilon", [16.0, 24.0])
def test_shared_noise_is_calibrated_to_a_large_epsilon_as_well(epsilon: float) -> None:
    """(1 + e^epsilon) times the distance to ideal noise passes delta here; the bound without that factor does not."""
    plan = Mechanism(
        max_grad_norm=1.0,
        noise_multiplier=1.0,
        sampling_rate=1.0,
        steps_per_round=1,
        rounds=40,
        target_delta=1e-5,
        noise="shared",
        min_sites=8,
        max_sites=9,
        max_parameters=2252,
    )
    found = calibrate(plan, epsilon)
    assert found.failure() < 1e-7
    assert epsilon * 0.99 < found.epsilon() <= epsilon * (1 + 1e-6)


def test_an_epsilon_that_promises_next_to_nothing_is_refused_at_once() -> None:
    with pytest.raises(InvalidInput, match="next to nothing: take at most 100, or inf"):
        calibrate(STUDY, 200.0)
