"""Quantisation is unbiased, bounded and refuses what is not a number."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from privacy.encryption.packing import dequantise, quantise
from privacy.errors import InvalidInput

FLOATS = arrays(np.float32, st.integers(1, 50), elements=st.floats(-3, 3, width=32))


def draws(n: int) -> np.ndarray:
    return np.random.default_rng(5).random(n)


@given(FLOATS, st.floats(0.25, 1), st.integers(1, 1000))
def test_values_stay_within_their_levels_and_one_step_of_the_exact_value(
    values: np.ndarray, weight: float, levels: int
) -> None:
    integers = quantise(values, bound=1.0, weight=weight, levels=levels, uniform=draws)
    exact = np.clip(values.astype(np.float64), -1, 1) * weight * levels
    assert integers.dtype == np.int64
    assert np.abs(integers).max() <= levels
    assert (np.abs(integers - exact) < 1 + 1e-9).all()


def test_rounding_is_unbiased() -> None:
    values = np.full(400_000, 0.3101, np.float32)
    integers = quantise(values, bound=1.0, weight=1.0, levels=100, uniform=draws)
    assert set(np.unique(integers)) == {31, 32}
    assert abs(integers.mean() - 31.01) < 4 * 0.1 / np.sqrt(values.size)


def test_the_weighted_mean_comes_back_within_a_step() -> None:
    values = np.linspace(-1, 1, 1001, dtype=np.float32)
    total = sum(quantise(values, bound=2.0, weight=w, levels=512, uniform=draws) for w in (1.0, 0.5, 0.25))
    mean = dequantise(total, bound=2.0, levels=512, total_weight=1.75)
    assert mean.dtype == np.float32
    assert np.abs(mean - values).max() <= 3 * 2.0 / (512 * 1.75)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(bad: float) -> None:
    with pytest.raises(InvalidInput, match="finite"):
        quantise(np.float32([0, bad]), bound=1.0, weight=1.0, levels=64, uniform=draws)


@pytest.mark.parametrize(
    "arguments",
    [
        {"bound": 0.0, "weight": 1.0, "levels": 64},
        {"bound": np.nan, "weight": 1.0, "levels": 64},
        {"bound": 1.0, "weight": 1.5, "levels": 64},
        {"bound": 1.0, "weight": 0.0, "levels": 64},
        {"bound": 1.0, "weight": 1.0, "levels": 0},
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(InvalidInput):
        quantise(np.zeros(2, np.float32), uniform=draws, **arguments)


def test_draws_of_another_kind_are_refused() -> None:
    with pytest.raises(InvalidInput, match="draws"):
        quantise(np.zeros(2, np.float32), bound=1.0, weight=1.0, levels=64, uniform=lambda n: np.zeros(n, np.float32))
    with pytest.raises(InvalidInput):
        dequantise(np.zeros(2, np.int64), bound=1.0, levels=64, total_weight=0.0)
