"""Sums of encryptions are encryptions of sums, exactly; anything else is refused as a whole."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tenseal
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.encryption import ckks
from privacy.encryption.ciphertexts import RunningSum, coefficients
from privacy.encryption.parameters import choose_parameters
from privacy.errors import InvalidInput, Refused, UnsafeSum

PARAMETERS = choose_parameters(sites=9, levels=512, length=20_000)
PAIR = ckks.generate_round_key(PARAMETERS)


def encrypted_sum(updates: list[np.ndarray]) -> list[bytes]:
    running = RunningSum(PARAMETERS, ciphertexts=PARAMETERS.ciphertexts_for(updates[0].size))
    for integers in updates:
        running.add(ckks.encrypt(PAIR.public, PARAMETERS, integers))
    return running.to_ciphertexts()


def updates(sites: int, length: int, seed: int) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [generator.integers(-512, 513, length) for _ in range(sites)]


@settings(max_examples=15, deadline=None)
@given(sites=st.integers(1, 9), length=st.integers(1, 20_000), seed=st.integers(0, 2**32))
def test_the_sum_of_encryptions_decrypts_to_the_exact_sum(sites: int, length: int, seed: int) -> None:
    each = updates(sites, length, seed)
    total = ckks.decrypt_sum(PAIR.secret, PARAMETERS, encrypted_sum(each), values=length, contributors=sites)
    assert total.dtype == np.int64
    assert (total == np.sum(each, axis=0)).all()


@pytest.mark.parametrize("sign", [-1, 1])
def test_extreme_values_at_every_site_sum_exactly(sign: int) -> None:
    each = [np.full(12288, sign * 512)] * 9
    total = ckks.decrypt_sum(PAIR.secret, PARAMETERS, encrypted_sum(each), values=12288, contributors=9)
    assert (total == sign * 9 * 512).all()


def test_several_blocks_are_decrypted_with_one_key_as_each_alone() -> None:
    lengths = (10, 13_000, 300)
    sums = [ckks.BlockSum(ciphertexts=encrypted_sum(updates(3, n, n)), values=n, contributors=3) for n in lengths]
    found = ckks.decrypt_sums(PAIR.secret, PARAMETERS, sums)
    for length, values in zip(lengths, found, strict=True):
        assert (values == np.sum(updates(3, length, length), axis=0)).all()
    with pytest.raises(UnsafeSum):  # one false sum, and nothing of the others is said
        ckks.decrypt_sums(PAIR.secret, PARAMETERS, [*sums[:2], dataclasses.replace(sums[2], values=200)])


def test_the_measured_noise_stays_below_the_proven_bound() -> None:
    each = updates(9, 12288, 3)
    ciphertexts = [coefficients(c, PARAMETERS) for c in encrypted_sum(each)]
    parts = ckks._decrypt(PAIR.secret, PARAMETERS, ciphertexts).view(np.float64)
    laplace = PARAMETERS.poly_modulus_degree * np.sqrt(9 / 72) / PARAMETERS.scale
    noise = np.abs(parts - np.rint(parts))
    assert 0.5 * laplace < noise.mean() < 1.5 * laplace
    assert noise.max() < 25 * laplace < 0.2


def test_our_sum_is_what_tenseal_computes() -> None:
    context = tenseal.context(tenseal.SCHEME_TYPE.CKKS, 4096, coeff_mod_bit_sizes=[60, 49])
    context.global_scale = PARAMETERS.scale
    one, two = (tenseal.ckks_vector(context, list(np.arange(5.0) * k)) for k in (1, 3))
    arrays = [np.frombuffer(ckks._save(v.ciphertext()[0])[-65536:], "<u8") for v in (one, two, one + two)]
    running = RunningSum(PARAMETERS, ciphertexts=1)
    for array in arrays[:2]:
        running.add([array.tobytes()])
    assert running.to_ciphertexts()[0] == arrays[2].tobytes()


def test_two_encryptions_of_the_same_values_differ_everywhere() -> None:
    zeros = np.zeros(100, np.int64)
    one, two = (coefficients(ckks.encrypt(PAIR.public, PARAMETERS, zeros)[0], PARAMETERS) for _ in range(2))
    assert (one == two).mean() < 0.001


def test_every_round_has_another_key() -> None:
    other = ckks.generate_round_key(PARAMETERS)
    assert other.public != PAIR.public and other.secret != PAIR.secret


def test_a_key_pair_never_shows_its_secret() -> None:
    assert "secret" not in repr(PAIR) and len(repr(PAIR)) < 60


def test_a_sum_under_another_key_is_refused() -> None:
    other = ckks.generate_round_key(PARAMETERS)
    foreign = ckks.encrypt(other.public, PARAMETERS, np.zeros(10, np.int64))
    with pytest.raises(UnsafeSum):
        ckks.decrypt_sum(PAIR.secret, PARAMETERS, foreign, values=10, contributors=3)


def test_a_field_beyond_the_reach_of_the_contributors_is_refused() -> None:
    total = encrypted_sum([np.full(10, 512)] * 4)
    with pytest.raises(UnsafeSum):
        ckks.decrypt_sum(PAIR.secret, PARAMETERS, total, values=10, contributors=3)
    assert ckks.decrypt_sum(PAIR.secret, PARAMETERS, total, values=10, contributors=4)[0] == 2048


def test_values_hidden_in_the_padding_are_refused() -> None:
    total = encrypted_sum([np.ones(11, np.int64)] * 3)
    with pytest.raises(UnsafeSum):
        ckks.decrypt_sum(PAIR.secret, PARAMETERS, total, values=10, contributors=3)


@pytest.mark.parametrize("shift", [0.3, 0.5, 0.3j, 2.0**42, -(2.0**42) * 1j])
def test_a_single_slot_off_its_integer_or_out_of_reach_is_refused(shift: complex) -> None:
    slots = np.zeros((2, PARAMETERS.slots), np.complex128)
    slots[1, 77] = shift
    with pytest.raises(UnsafeSum):
        ckks._checked_integers(slots, PARAMETERS, 20_000, 9)


def test_slots_that_are_not_numbers_are_refused() -> None:
    slots = np.full((1, PARAMETERS.slots), np.nan + 0j)
    with pytest.raises(UnsafeSum):
        ckks._checked_integers(slots, PARAMETERS, 10, 9)


def test_the_number_of_ciphertexts_and_contributors_is_checked() -> None:
    total = encrypted_sum(updates(3, 10, 1))
    for values, contributors in ((20_000, 3), (10, 0), (10, 10)):
        with pytest.raises(InvalidInput):
            ckks.decrypt_sum(PAIR.secret, PARAMETERS, total, values=values, contributors=contributors)


def test_a_malformed_public_key_is_refused() -> None:
    zeros = np.zeros(10, np.int64)
    transparent = bytearray(PAIR.public)
    transparent[len(transparent) // 2 :] = bytes(len(transparent) // 2)
    for bad in (b"", PAIR.public[:-1], b"\xff" * len(PAIR.public), bytes(len(PAIR.public)), bytes(transparent)):
        with pytest.raises(InvalidInput, match="public key"):
            ckks.encrypt(bad, PARAMETERS, zeros)


def test_unsafe_parameters_make_no_key() -> None:
    with pytest.raises(Refused):
        ckks.generate_round_key(dataclasses.replace(PARAMETERS, coeff_mod_bits=(60, 60)))
    with pytest.raises(Refused):
        ckks.generate_round_key(dataclasses.replace(PARAMETERS, sites=500))


def test_objects_travel_through_a_private_folder_where_there_is_no_memory_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(ckks.os, "memfd_create")
    total = encrypted_sum(updates(3, 10, 2))
    expected = np.sum(updates(3, 10, 2), axis=0)
    assert (ckks.decrypt_sum(PAIR.secret, PARAMETERS, total, values=10, contributors=3) == expected).all()
