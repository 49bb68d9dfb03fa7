"""Estimates from noised tables: right without noise, and intervals that hold the truth as often as they say."""

from __future__ import annotations

import numpy as np
import pytest

from models.counting import Axis, Count, Counting, Factor, Question
from models.targets import Target
from orchestrator.analytics.answers import answers_of
from orchestrator.analytics.estimates import bounded, noised, projected
from orchestrator.analytics.survival import log_rank, survival

EDGES = (1.0, 2.0, 3.0, 4.0)
OS = Axis(
    kind="survival",
    name="os",
    ends=(1, 2, 3, 4),
    marks=(0.0, *EDGES),
    groups=tuple(f"g{k}" for k in range(9)),
    unit="y",
)
SEX = Axis(kind="outcome-class", name="sex", groups=("f", "m"))


def table_of(times: np.ndarray, events: np.ndarray) -> np.ndarray:
    target = Target(kind="survival", edges=EDGES)
    labels = [target.interval_label(float(t), happened=bool(e)) for t, e in zip(times, events, strict=True)]
    return np.bincount(labels, minlength=9).astype(float)


def test_survival_is_kaplan_meiers_where_nobody_is_lost_within_an_interval():
    times, events = np.array([1, 1, 2, 2, 2, 3, 4, 5, 5, 5]), np.array([1, 1, 1, 1, 1, 1, 0, 0, 0, 0])
    at_risk, curve, expected = 10, 1.0, []
    for end in (1, 2, 3, 4):
        died = int(((times == end) & (events == 1)).sum())
        curve *= 1 - died / at_risk
        expected.append(curve)
        at_risk -= int((times == end).sum())
    assert survival(table_of(times, events)[None])[0] == pytest.approx(expected)


def test_log_rank_is_the_textbooks_without_noise():
    rng = np.random.default_rng(1)
    tables = np.stack([table_of(np.ceil(rng.exponential(scale, 80)), np.ones(80)) for scale in (2.0, 3.5)])
    observed, expected, chi, p = log_rank(tables, 0.0)
    due, spread = 0.0, 0.0
    risk = tables.sum(axis=1)
    for j in range(4):
        died, all_risk = tables[:, 2 * j + 1], risk.sum()
        due += risk[0] * died.sum() / all_risk
        share = risk[0] / all_risk
        spread += died.sum() * share * (1 - share) * (all_risk - died.sum()) / (all_risk - 1)
        risk = risk - died
    assert expected[0] == pytest.approx(due) and observed.sum() == pytest.approx(expected.sum())
    assert chi == pytest.approx((observed[0] - due) ** 2 / spread) and 0 < p < 0.05
    assert log_rank(tables, 25.0)[3] > p  # noise hides the difference


def test_log_rank_takes_noise_for_no_difference():
    rng, found = np.random.default_rng(2), []
    for _ in range(60):
        tables = np.stack([table_of(rng.exponential(3.0, 150), rng.random(150) < 0.7) for _ in range(2)])
        noisy = tables + rng.normal(0, 8.0, tables.shape)
        found.append(log_rank(np.stack([projected(one, 8.0) for one in noisy]), 8.0)[3])
    assert np.mean(np.array(found) < 0.05) <= 0.12  # 3 of 60 are expected


@pytest.mark.parametrize(("deviation", "records"), [(0.0, 300), (4.0, 300), (15.0, 2000)])
def test_intervals_of_survival_hold_the_truth_as_often_as_they_say(deviation, records):
    rng, held, truth = np.random.default_rng(3), [], np.exp(-np.array(EDGES) / 3.0)
    for _ in range(60):
        table = table_of(rng.exponential(3.0, records), np.ones(records))
        found = bounded(table + rng.normal(0, deviation, 9), deviation, survival, 0.0, 1.0)
        held.append((found.low <= truth) & (truth <= found.high))
    assert np.mean(held) > 0.88  # 0.95, less what 60 draws of four correlated values may be off


def test_of_a_table_that_is_all_noise_nothing_is_claimed():
    found = bounded(np.random.default_rng(0).normal(0, 10.0, 9), 10.0, survival, 0.0, 1.0)
    assert set(found.low) == {0.0} and set(found.high) == {1.0}


def counted(question: Question, values: np.ndarray, deviation: float):
    return answers_of(Counting(questions=(question,)), np.asarray(values, float), deviation)[0]


AGE = Factor(modality="clinical", column=0, missing=1, centre=0.0, half=4.0)


def test_means_and_spreads_are_in_their_unit_and_their_intervals_hold_them():
    question = Question(
        kind="means", title="age", names=("age",), settings={"age": (12.0, 100.0, 1.0)},
        counts=tuple(Count(factors=(AGE,) * power, needs=(AGE,)) for power in range(3)),
    )  # fmt: skip
    rng, held = np.random.default_rng(4), []
    for _ in range(200):
        scaled = np.clip((rng.normal(60, 11, 400) - 56) / 44, -1, 1)
        sums = np.array([400, scaled.sum(), (scaled**2).sum()]) + rng.normal(0, 6.0, 3)
        table = counted(question, sums, 6.0).table
        truth = np.array([60.0, 11.0])
        held.append((table["low"] <= truth) & (truth <= table["high"]))
    assert np.mean(held, axis=0).min() > 0.9 and np.mean(held, axis=0).max() <= 1.0
    exact = counted(question, [400, scaled.sum(), (scaled**2).sum()], 0.0).table["value"]
    assert exact.to_list() == pytest.approx([56 + 44 * scaled.mean(), 44 * scaled.std()])


def test_correlations_are_pearsons_and_their_intervals_hold_them():
    other = Factor(modality="clinical", column=2, half=1.0)
    products = [(), (AGE,), (other,), (AGE, AGE), (AGE, other), (other, other)]
    question = Question(
        kind="correlations", title="c", names=("a", "b"), counts=tuple(Count(factors=p) for p in products)
    )
    rng, held = np.random.default_rng(5), []
    for _ in range(150):
        both = np.clip(rng.multivariate_normal([0.1, 0], [[0.09, 0.045], [0.045, 0.09]], 600), -1, 1)
        x, y = both.T
        sums = np.array([600, x.sum(), y.sum(), (x * x).sum(), (x * y).sum(), (y * y).sum()])
        table = counted(question, sums + rng.normal(0, 4.0, 6), 4.0).table
        held.append(bool(table["low"].iloc[0] <= 0.5 <= table["high"].iloc[0]))
    assert np.mean(held) > 0.88
    assert counted(question, sums, 0.0).table["correlation"].iloc[0] == pytest.approx(np.corrcoef(x, y)[0, 1])


def test_quantiles_shares_and_counts_say_what_was_counted():
    ages = Axis(
        kind="number", name="age", modality="clinical", edges=(0, 1, 2, 3, 4), marks=(20, 40, 60, 80, 100),
        groups=("a", "b", "c", "d", "missing"), unit="years",
    )  # fmt: skip
    histogram = Question(kind="histogram", title="age", names=("age",), counts=(Count(axes=(SEX, ages)),))
    answer = counted(histogram, np.arange(10), 2.0)
    assert answer.table.loc[("m", "missing"), "patients"] == 9 and answer.unit == "years"
    assert answer.table.loc[("f", "a")].to_list() == pytest.approx([0.0, -3.92, 3.92], abs=0.01)
    wanted = {"probabilities": (0.5, 0.75)}
    quantiles = Question(kind="quantiles", title="age", names=("age",), settings=wanted, counts=(Count(axes=(ages,)),))
    found = counted(quantiles, [100, 100, 100, 100, 900], 0.0).table
    assert found["value"].to_list() == pytest.approx([60.0, 80.0]) and (found["low"] < found["value"]).all()
    lacking = Question(kind="missingness", title="age", names=("age",), counts=(Count(axes=(ages,)),))
    assert counted(lacking, [100, 100, 100, 100, 100], 0.0).table["value"].iloc[0] == pytest.approx(0.2)
    cross = Question(kind="cross_table", title="x", counts=(Count(axes=(SEX, ages)),))
    assert counted(cross, np.arange(10), 1.0).table.loc[("m", "a"), "patients"] == 5
    every = Question(kind="counts", title="n", counts=(Count(), Count(axes=(SEX,))))
    assert counted(every, [7, 3, 4], 0.0).table["patients"].to_list() == [7, 3, 4]


def test_intervals_of_counts_hold_the_noise_alone():
    found = noised(np.array([10.0]), 3.0)
    assert found.high[0] - found.low[0] == pytest.approx(2 * 1.96 * 3.0, abs=0.01)
    assert noised(np.array([10.0]), 0.0).low[0] == 10.0
