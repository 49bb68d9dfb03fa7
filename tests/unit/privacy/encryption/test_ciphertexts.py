"""Ciphertexts are arrays of the right length below the prime; sums grow one site at a time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.encryption.ciphertexts import RunningSum, coefficients
from privacy.encryption.parameters import choose_parameters
from privacy.errors import InvalidInput

PARAMETERS = choose_parameters(sites=3, levels=64, length=1)
PRIME = PARAMETERS.data_prime


def random_ciphertext(seed: int) -> bytes:
    return np.random.default_rng(seed).integers(0, PRIME, 8192, dtype=np.uint64).tobytes()


def test_coefficients_are_read_as_they_were_written() -> None:
    raw = random_ciphertext(1)
    array = coefficients(raw, PARAMETERS)
    assert array.shape == (2, 4096) and array.tobytes() == raw
    assert not array.flags.writeable


@pytest.mark.parametrize("length", [0, 8, 65535, 65537, 65544, 2 * 65536])
def test_another_length_is_refused(length: int) -> None:
    with pytest.raises(InvalidInput, match="65536 bytes"):
        coefficients(bytes(length), PARAMETERS)


@pytest.mark.parametrize("value", [PRIME, PRIME + 1, 2**63, 2**64 - 1])
def test_a_coefficient_out_of_range_is_refused(value: int) -> None:
    array = np.ones(8192, np.uint64)
    array[5000] = value
    with pytest.raises(InvalidInput, match="prime"):
        coefficients(array.tobytes(), PARAMETERS)


def test_a_ciphertext_that_hides_nothing_is_refused() -> None:
    array = np.ones(8192, np.uint64)
    array[4096:] = 0
    with pytest.raises(InvalidInput, match="transparent"):
        coefficients(array.tobytes(), PARAMETERS)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 2**32), min_size=1, max_size=3))
def test_the_running_sum_is_the_sum_modulo_the_prime(seeds: list[int]) -> None:
    running = RunningSum(PARAMETERS, ciphertexts=2)
    expected = [0] * 8192
    for seed in seeds:
        running.add([random_ciphertext(seed), random_ciphertext(seed + 1)])
        expected = [
            (a + int(b)) % PRIME for a, b in zip(expected, np.frombuffer(random_ciphertext(seed), "<u8"), strict=True)
        ]
    assert np.frombuffer(running.to_ciphertexts()[0], "<u8").tolist() == expected
    assert running.contributors == len(seeds)


def test_a_checkpoint_continues_where_it_stopped() -> None:
    one, whole = RunningSum(PARAMETERS, ciphertexts=1), RunningSum(PARAMETERS, ciphertexts=1)
    one.add([random_ciphertext(1)])
    again = RunningSum.from_bytes(one.to_bytes(), PARAMETERS)
    for seed in (2, 3):
        again.add([random_ciphertext(seed)])
    for seed in (3, 1, 2):
        whole.add([random_ciphertext(seed)])
    assert again.to_bytes() == whole.to_bytes()


def test_a_refused_update_leaves_the_sum_as_it_was() -> None:
    running = RunningSum(PARAMETERS, ciphertexts=2)
    running.add([random_ciphertext(1), random_ciphertext(2)])
    before = running.to_bytes()
    for bad in ([random_ciphertext(3)], [random_ciphertext(3), b""], [random_ciphertext(3), b"\xff" * 65536]):
        with pytest.raises(InvalidInput):
            running.add(bad)
    assert running.to_bytes() == before


def test_one_site_more_than_the_packing_carries_is_refused() -> None:
    running = RunningSum(PARAMETERS, ciphertexts=1)
    for seed in range(3):
        running.add([random_ciphertext(seed)])
    with pytest.raises(InvalidInput, match="overflow"):
        running.add([random_ciphertext(9)])


@pytest.mark.parametrize(
    "data", [b"", bytes(8), bytes(65536), (4).to_bytes(8, "little") + bytes(65536), b"\xff" * 65544]
)
def test_a_damaged_checkpoint_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput, match="rebuild"):
        RunningSum.from_bytes(data, PARAMETERS)
