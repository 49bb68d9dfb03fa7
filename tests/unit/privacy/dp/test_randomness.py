from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from privacy.dp import discrete_gaussian
from privacy.dp.discrete_gaussian import DEVIATION, AliasTable, alias_table, base_table, draw
from privacy.dp.randomness import Randomness, covering_deviation, grid_step
from privacy.errors import InvalidInput


def stream(**change: object) -> Randomness:
    context: dict = {"study": "s", "round": 1, "plan_hash": "p", "dataset_fingerprint": "f"}
    secret = change.pop("secret", b"s" * 32)
    return Randomness(secret, **(context | change))


def test_the_same_context_gives_the_same_bytes_for_ever() -> None:
    words = stream().uniform_words(2)
    assert words.tolist() == [15164489804387058866, 17461637837304741]
    assert stream().grid_gaussian(3).tolist() == [172219, 158933, -11533]


@pytest.mark.parametrize(
    "change",
    [{"study": "t"}, {"round": 2}, {"plan_hash": "q"}, {"dataset_fingerprint": "g"}, {"secret": b"t" * 32}],
)
def test_any_change_of_context_gives_another_stream(change: dict) -> None:
    assert not np.array_equal(stream().uniform_words(4), stream(**change).uniform_words(4))


def test_children_are_independent_of_each_other_and_of_what_was_drawn_before() -> None:
    parent = stream()
    before = parent.child("a").uniform_words(4)
    parent.uniform_words(100)
    assert np.array_equal(before, parent.child("a").uniform_words(4))
    assert not np.array_equal(before, parent.child("b").uniform_words(4))


def test_a_public_seed_differs_by_site_and_repeats() -> None:
    def public(site: str) -> np.ndarray:
        return Randomness.public(7, site=site, study="s", round=1, plan_hash="p").uniform_words(4)

    assert np.array_equal(public("a"), public("a"))
    assert not np.array_equal(public("a"), public("b"))


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(InvalidInput, match="32 bytes"):
        stream(secret=b"short")


def test_gaussian_noise_has_the_normal_distribution_and_a_wrong_scale_is_noticed() -> None:
    noise = stream().gaussian((200_000,), 2.5)
    assert stats.kstest(noise / 2.5, "norm").pvalue > 0.001
    assert stats.kstest(noise / 2.55, "norm").pvalue < 0.001
    assert abs(stats.kurtosis(noise)) < 0.05
    assert abs(np.corrcoef(noise[:-1], noise[1:])[0, 1]) < 0.01


def test_noise_lies_on_its_grid_and_so_does_the_noised_value() -> None:
    values = np.array([0.1, math.pi, -7.0])
    noised = stream().add_gaussian(values, 0.3) / grid_step(0.3)
    assert np.allclose(noised, np.rint(noised), atol=1e-6)


def test_no_grid_point_tells_a_value_from_its_neighbour() -> None:
    """The attack on raw float noise: outputs that only one of two inputs can give. On a grid there are none."""
    low = {int(v) for v in np.rint(stream().add_gaussian(np.full(4000, 0.0), 1.0) / grid_step(1.0)) % 64}
    high = {int(v) for v in np.rint(stream(round=2).add_gaussian(np.full(4000, 0.1), 1.0) / grid_step(1.0)) % 64}
    assert low == high == set(range(64))


def test_a_value_too_large_for_the_grid_is_refused_and_not_named() -> None:
    with pytest.raises(InvalidInput) as caught:
        stream().add_gaussian(np.array([1.0, float("nan")]), 1.0)
    assert "nan" not in str(caught.value)


def test_no_noise_leaves_values_as_they_are() -> None:
    assert stream().add_gaussian(np.array([0.123]), 0.0).tolist() == [0.123]


def test_the_table_has_the_probabilities_of_the_discrete_gaussian() -> None:
    table = base_table()
    size = len(table.threshold)
    keep = (table.threshold + np.array([r / 2**192 for r in table.refinement])) / 2**18
    probability = keep / size
    np.add.at(probability, table.alias, (1 - keep) / size)
    offsets = np.arange(size) - size // 2
    exact = np.exp(-(offsets**2) / (2 * 700.0**2))
    assert np.abs(probability - exact / exact.sum()).max() < 1e-15
    assert math.erfc(8192 / 700 / math.sqrt(2)) < 2.0**-102


def test_a_tie_is_decided_by_the_next_bits() -> None:
    size = 1 << 14
    table = AliasTable(
        threshold=np.full(size, 5, dtype=np.uint32),
        refinement=(1 << 191,) * size,
        alias=np.full(size, 99, dtype=np.int32),
    )
    words = np.array([(7 << 18) | 4, (7 << 18) | 5, (7 << 18) | 5, (7 << 18) | 6], dtype=np.uint32)
    further = iter([(1 << 191) - 1, 1 << 191])
    assert draw(table, words, lambda: next(further)).tolist() == [7, 7, 99, 99]


def test_alias_tables_keep_exact_probabilities() -> None:
    weights = [0, 1, 2, 3] * (1 << 12)
    table = alias_table(weights)
    size, total = len(weights), sum(weights)
    mass = [0] * size
    for column in range(size):
        kept = (int(table.threshold[column]) << 192) + table.refinement[column]
        mass[column] += kept
        mass[int(table.alias[column])] += (1 << 210) - kept
    for column in range(size):
        assert abs(mass[column] - weights[column] * size * (1 << 210) // total) <= size


def test_the_deviation_is_that_of_the_convolution() -> None:
    assert pytest.approx(700 * math.sqrt(350**2 + 1)) == discrete_gaussian.DEVIATION
    # Micciancio and Walter: the ratio of the two parts must smooth the lattice; 2**-111 here
    ratio = 700 / 350
    assert 4 * math.exp(-2 * math.pi**2 * ratio**2 / (1 + (ratio / 700) ** 2)) < 2.0**-111


@given(st.integers(0, 300), st.floats(0.01, 1.0))
def test_poisson_samples_are_sorted_indices_without_repeats(n: int, q: float) -> None:
    chosen = stream().poisson_sample(n, q)
    assert list(chosen) == sorted(set(chosen.tolist()))
    assert all(0 <= i < n for i in chosen)
    assert len(stream().poisson_sample(n, 1.0)) == n


def test_the_sampling_rate_is_that_asked_for() -> None:
    assert abs(len(stream().poisson_sample(100_000, 0.16)) - 16_000) < 5 * math.sqrt(100_000 * 0.16 * 0.84)
    with pytest.raises(InvalidInput):
        stream().poisson_sample(5, 0.0)


def test_uniform_floats_lie_in_the_unit_interval() -> None:
    values = stream().uniform(10_000)
    assert values.min() >= 0 and values.max() < 1
    assert stats.kstest(values, "uniform").pvalue > 0.001


def test_the_covering_deviation_is_a_little_more_than_what_is_charged() -> None:
    assert covering_deviation(1.0, 1.0, 2252) == pytest.approx(1.0, rel=5e-4)
    assert 1.0 < covering_deviation(1.0, 1.0, 704_000) < 1.004
    needed = 1.0 + math.sqrt(704_000) * grid_step(covering_deviation(1.0, 1.0, 704_000))
    assert covering_deviation(1.0, 1.0, 704_000) >= needed
    assert pytest.approx(245_001, abs=1) == DEVIATION
