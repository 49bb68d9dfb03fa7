"""Packed sums unpack to the sums of what was packed, for any sites and levels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.encryption.packing import pack, unpack
from privacy.encryption.parameters import EncryptionParameters, choose_parameters
from privacy.errors import InvalidInput


@st.composite
def packings(draw: st.DrawFn) -> tuple[EncryptionParameters, int, np.random.Generator]:
    sites, levels = draw(st.integers(2, 40)), draw(st.sampled_from([1, 7, 64, 100]))
    parameters = choose_parameters(sites=sites, levels=levels, length=1)
    length = draw(st.integers(1, 3 * parameters.values_per_ciphertext))
    return parameters, length, np.random.default_rng(draw(st.integers(0, 2**32)))


@settings(max_examples=40, deadline=None)
@given(packings())
def test_unpack_of_pack_is_the_identity(case: tuple[EncryptionParameters, int, np.random.Generator]) -> None:
    parameters, length, generator = case
    integers = generator.integers(-parameters.levels, parameters.levels + 1, length)
    packed = pack(integers, parameters)
    assert packed.shape == (parameters.ciphertexts_for(length), parameters.slots)
    assert (unpack(packed, parameters, values=length) == integers).all()


@settings(max_examples=20, deadline=None)
@given(packings(), st.booleans())
def test_a_full_house_of_extreme_values_does_not_carry(
    case: tuple[EncryptionParameters, int, np.random.Generator], extreme: bool
) -> None:
    parameters, length, generator = case
    levels = parameters.levels
    total, packed = np.zeros(length, np.int64), np.zeros((), np.complex128)
    signs = generator.choice([-1, 1], length)
    for _ in range(parameters.sites):
        one = signs * levels if extreme else generator.integers(-levels, levels + 1, length)
        total = total + one
        packed = packed + pack(one, parameters)
    assert (unpack(packed, parameters, values=length) == total).all()


@pytest.mark.parametrize("value", [65, -65])
def test_a_value_beyond_the_levels_is_refused(value: int) -> None:
    parameters = choose_parameters(sites=3, levels=64, length=1)
    with pytest.raises(InvalidInput, match="64"):
        pack(np.array([0, value]), parameters)


def test_wrong_shapes_and_types_are_refused() -> None:
    parameters = choose_parameters(sites=3, levels=64, length=1)
    for bad in (np.zeros((2, 2), np.int64), np.zeros(3), np.zeros(0, np.int64)):
        with pytest.raises(InvalidInput):
            pack(bad, parameters)
    with pytest.raises(InvalidInput):
        unpack(np.zeros((1, 5), np.complex128), parameters, values=1)
    with pytest.raises(InvalidInput):
        unpack(np.zeros((2, parameters.slots), np.complex128), parameters, values=1)


@pytest.mark.parametrize("slot", [0.5, 0.5j, np.nan, 1e30, -1e30j])
def test_slots_that_no_sum_can_reach_are_refused(slot: complex) -> None:
    parameters = choose_parameters(sites=3, levels=64, length=1)
    slots = np.zeros((1, parameters.slots), np.complex128)
    slots[0, 7] = slot
    with pytest.raises(InvalidInput, match="integral"):
        unpack(slots, parameters, values=1)
