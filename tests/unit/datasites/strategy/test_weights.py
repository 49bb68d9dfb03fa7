"""Weights stay inside the bounds that sites and keyholder enforce."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasites.strategy.weights import SMALLEST_WEIGHT, bounded, effective_sites


@given(
    st.dictionaries(st.text("abcdefghij", min_size=1, max_size=3), st.floats(0, 1e6), min_size=3, max_size=12),
    st.integers(3, 6),
)
def test_bounded_weights_are_in_range_and_spread_over_enough_sites(raw, min_sites):
    if len(raw) < min_sites:
        return
    weights = bounded(raw, min_sites=min_sites)
    assert all(SMALLEST_WEIGHT <= w <= 1 for w in weights.values())
    assert effective_sites(weights) >= min_sites * (1 - 1e-9)


def test_equal_counts_give_equal_weights_and_order_is_kept():
    assert bounded({"a": 50, "b": 50, "c": 50}, min_sites=3) == {"a": 1.0, "b": 1.0, "c": 1.0}
    weights = bounded({"a": 200, "b": 100, "c": 150, "d": 190, "e": 170}, min_sites=3)
    assert weights["a"] == 1.0
    assert weights["a"] > weights["d"] > weights["e"] > weights["c"] > weights["b"]


@pytest.mark.parametrize(("weights", "expected"), [({"a": 1.0}, 1.0), ({"a": 1.0, "b": 1.0, "c": 1.0}, 3.0)])
def test_the_effective_number_of_sites(weights, expected):
    assert effective_sites(weights) == pytest.approx(expected)
