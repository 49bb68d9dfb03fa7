"""Products and inverse transforms in a prime field agree with integers, and with SEAL's evaluations."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.encryption import ckks, round_keys
from privacy.encryption.ntt import field_of
from privacy.encryption.parameters import choose_parameters
from privacy.errors import InvalidInput

PARAMETERS = choose_parameters(sites=9, levels=512, length=1)
DEGREE = PARAMETERS.poly_modulus_degree


@pytest.mark.parametrize("prime", [*PARAMETERS.primes, 97])
@given(data=st.data())
def test_products_and_differences_are_exact(prime: int, data: st.DataObject) -> None:
    field = field_of(prime, 16)
    numbers = st.one_of(st.integers(0, prime - 1), st.sampled_from([0, 1, prime - 1, prime // 2]))
    left = data.draw(st.lists(numbers, min_size=16, max_size=16))
    right = data.draw(st.lists(numbers, min_size=16, max_size=16))
    one, other = np.array(left, np.uint64), np.array(right, np.uint64)
    assert field.times(one, other).tolist() == [a * b % prime for a, b in zip(left, right, strict=True)]
    assert field.minus(one, other).tolist() == [(a - b) % prime for a, b in zip(left, right, strict=True)]


@pytest.mark.parametrize("prime", [*PARAMETERS.primes, 97])
@given(coefficients=st.lists(st.integers(-48, 48), min_size=16, max_size=16))
def test_coefficients_are_those_of_the_evaluated_polynomial(prime: int, coefficients: list[int]) -> None:
    roots = [r for r in (pow(b, (prime - 1) // 32, prime) for b in range(2, 99)) if pow(r, 16, prime) == prime - 1]
    smallest = min(pow(roots[0], k, prime) for k in range(1, 32, 2))
    points = [pow(smallest, 2 * int(f"{i:04b}"[::-1], 2) + 1, prime) for i in range(16)]
    row = np.array([sum(c * pow(x, i, prime) for i, c in enumerate(coefficients)) % prime for x in points], np.uint64)
    field = field_of(prime, 16)
    found = field.coefficients_of(np.stack([row, row]))
    assert field.centred(found[0]).tolist() == coefficients == field.centred(found[1]).tolist()


@pytest.mark.parametrize("prime", [2, 96, 1 << 62, 1152921504606830593 + 2])
def test_other_numbers_are_no_primes_of_the_ring(prime: int) -> None:
    with pytest.raises(InvalidInput, match="expected a prime below"):
        field_of(prime, 16)


def test_seals_secrets_are_ternary_and_its_errors_stay_within_the_bound() -> None:
    counts = np.zeros(3, np.int64)
    largest = 0
    for _ in range(8):
        pair = ckks.generate_round_key(PARAMETERS)
        secret = np.frombuffer(ckks.published_secret(pair.secret, PARAMETERS), "<u8").reshape(2, DEGREE)
        key = np.frombuffer(pair.public, "<u8").reshape(2, 2, DEGREE)
        for index, prime in enumerate(PARAMETERS.primes):
            field = field_of(prime, DEGREE)
            found = field.centred(field.coefficients_of(secret[index]))
            assert set(np.unique(found)) <= {-1, 0, 1}
            counts += np.array([(found == value).sum() for value in (-1, 0, 1)])
            error = field.minus(np.zeros(DEGREE, np.uint64), key[0, index])
            error = field.minus(error, field.times(key[1, index], secret[index]))
            values = field.centred(field.coefficients_of(error))
            largest = max(largest, int(np.abs(values).max()))
            assert abs(values.var() - 10.5) < 1.0  # of 42 fair bits, up to the sign
    assert 10 < largest <= round_keys.LARGEST_ERROR
    assert (np.abs(counts / counts.sum() - 1 / 3) < 0.02).all()


def test_the_random_part_is_uniform_reproducible_and_another_one_for_every_round_and_proposal() -> None:
    one = round_keys.expanded(PARAMETERS, "0" * 64, 1)
    assert np.array_equal(one, round_keys.expanded(PARAMETERS, "0" * 64, 1))
    assert one[:, :2].tolist() == PINNED
    for other in (round_keys.expanded(PARAMETERS, "0" * 64, 2), round_keys.expanded(PARAMETERS, "0" * 63 + "1", 1)):
        assert not (one == other).any()
    for row, prime in zip(one, PARAMETERS.primes, strict=True):
        assert int(row.max()) < prime
        assert abs(float(row.astype(np.float64).mean()) / prime - 0.5) < 0.03


@pytest.mark.parametrize("text", ["", "0" * 63, "0" * 65, "g" * 64, "0" * 62 + " 0"])
def test_a_random_part_needs_a_proposal_hash(text: str) -> None:
    with pytest.raises(InvalidInput, match="expected a proposal hash"):
        round_keys.expanded(PARAMETERS, text, 1)


PINNED: list[list[int]] = [
    [685085122832867391, 969045269671364675],
    [341838828616024, 86815021953736],
]
"""The first two evaluations of each row: whoever changes the expansion changes every study."""
