"""The chooser refuses what could overflow or misround, and both ends can check what they are given."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest

from privacy.canonical import canonical_json
from privacy.encryption.parameters import (
    MAXIMUM_MISROUNDING,
    EncryptionParameters,
    check_security,
    choose_parameters,
    default_levels,
)
from privacy.errors import InvalidInput, Refused


def test_nine_sites_pack_three_ten_bit_values_to_a_part() -> None:
    parameters = choose_parameters(sites=9, levels=512, length=700_000)
    assert (parameters.fields_per_slot, parameters.values_per_ciphertext) == (3, 12288)
    assert parameters.ciphertexts_for(700_000) * parameters.ciphertext_bytes < 4_000_000


@pytest.mark.parametrize("sites", [2, 3, 9, 10, 11, 12, 17, 32, 50, 100, 300, 1000])
def test_default_levels_give_parameters_that_pass_their_own_check(sites: int) -> None:
    parameters = choose_parameters(sites=sites, levels=default_levels(sites), length=700_000)
    check_security(parameters)
    assert parameters.sites == sites
    assert parameters.misrounding_probability <= MAXIMUM_MISROUNDING


@pytest.mark.parametrize("sites", [3, 9, 50])
def test_the_largest_packed_sum_stays_under_half_the_data_prime(sites: int) -> None:
    parameters = choose_parameters(sites=sites, levels=default_levels(sites), length=1)
    fields = parameters.fields_per_slot
    largest = sum(sites * parameters.levels * parameters.radix**index for index in range(fields))
    assert largest == parameters.largest_slot
    noise = sites * (parameters.poly_modulus_degree + 2)
    assert math.sqrt(2) * largest * 2**parameters.scale_bits + noise < parameters.data_prime / 2


def test_one_field_more_than_chosen_overflows_or_misrounds() -> None:
    chosen = choose_parameters(sites=9, levels=512, length=1)
    with pytest.raises(Refused):
        check_security(dataclasses.replace(chosen, fields_per_slot=chosen.fields_per_slot + 1))


def test_more_sites_under_the_same_packing_are_refused() -> None:
    chosen = choose_parameters(sites=9, levels=512, length=1)
    with pytest.raises(Refused, match="overflow"):
        check_security(dataclasses.replace(chosen, sites=90))


def test_a_scale_without_rounding_margin_is_refused() -> None:
    chosen = choose_parameters(sites=9, levels=512, length=1)
    with pytest.raises(Refused, match="misrounding"):
        check_security(dataclasses.replace(chosen, scale_bits=16))


@pytest.mark.parametrize(
    ("degree", "bits"), [(4096, (60, 50)), (2048, (60, 49)), (8192, (60, 40, 40, 60)), (4096, (40, 40)), (3, (1,))]
)
def test_other_rings_are_refused(degree: int, bits: tuple[int, ...]) -> None:
    chosen = choose_parameters(sites=9, levels=512, length=1)
    with pytest.raises(Refused):
        check_security(dataclasses.replace(chosen, poly_modulus_degree=degree, coeff_mod_bits=bits))


def test_too_many_levels_for_the_sites_are_refused() -> None:
    with pytest.raises(Refused, match="fewer levels"):
        choose_parameters(sites=1000, levels=2**30, length=1)


@pytest.mark.parametrize(
    "arguments",
    [
        {"sites": 1, "levels": 64, "length": 1},
        {"sites": 9, "levels": 0, "length": 1},
        {"sites": 9, "levels": 64, "length": 0},
        {"sites": 9, "levels": 64, "length": 10**9},
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, int]) -> None:
    with pytest.raises(InvalidInput):
        choose_parameters(**arguments)


def test_parameters_travel_as_json() -> None:
    chosen = choose_parameters(sites=9, levels=512, length=1)
    data = json.loads(canonical_json(dataclasses.asdict(chosen)))
    data["coeff_mod_bits"] = tuple(data["coeff_mod_bits"])
    assert EncryptionParameters(**data) == chosen
