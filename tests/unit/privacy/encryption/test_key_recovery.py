"""Both key-recovery attacks: they succeed on the usual default and on ours without the check, and fail on ours.

Passive (Li and Micciancio 2021): whoever sees a raw decryption m and the summed ciphertext (c0, c1) solves
c0 + c1 s = m for the secret key s, point by point in number-theoretic form.

Active: a site submits (0, B) with B constant. Its decryption is B s itself, and if B is large enough even the rounded
integers give every coefficient of s.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tenseal
import tenseal.sealapi as seal

from privacy.encryption import ckks
from privacy.encryption.ciphertexts import RunningSum, coefficients
from privacy.encryption.parameters import choose_parameters
from privacy.errors import InvalidInput, UnsafeSum

PARAMETERS = choose_parameters(sites=4, levels=512, length=3000)
PRIME = PARAMETERS.data_prime


def solve_for_key(message: np.ndarray, ciphertext: np.ndarray, prime: int) -> list[int]:
    """Return s = (m - c0) / c1 modulo the prime, all in number-theoretic form."""
    c0, c1 = ciphertext.tolist()
    return [(m - a) * pow(b, -1, prime) % prime for m, a, b in zip(message.tolist(), c0, c1, strict=True)]


def encoded(context: Any, slots: np.ndarray, scale: float, degree: int) -> np.ndarray:
    """Return the number-theoretic form, modulo the first prime, of the plaintext with these slots."""
    plaintext = seal.Plaintext()
    seal.CKKSEncoder(context).encode(slots.tolist(), scale, plaintext)
    primes = len(context.first_context_data().parms().coeff_modulus())
    body = ckks._save(plaintext)
    return np.frombuffer(body[-primes * degree * 8 :], "<u8")[:degree]


def key_of(secret: bytes) -> list[int]:
    """Return the true key modulo the data prime, in number-theoretic form."""
    words = len(PARAMETERS.primes) * PARAMETERS.poly_modulus_degree
    return np.frombuffer(secret[-8 * words :], "<u8")[: PARAMETERS.poly_modulus_degree].tolist()


def agreement(guess: list[int], truth: list[int]) -> float:
    return sum(a == b for a, b in zip(guess, truth, strict=True)) / len(truth)


def honest_sum(public: bytes, updates: list[np.ndarray]) -> list[bytes]:
    running = RunningSum(PARAMETERS, ciphertexts=PARAMETERS.ciphertexts_for(updates[0].size))
    for update in updates:
        running.add(ckks.encrypt(public, PARAMETERS, update))
    return running.to_ciphertexts()


def constant_polynomial(value: int) -> bytes:
    """Return (0, B) for the constant B; in number-theoretic form a constant is itself everywhere."""
    pair = np.zeros((2, PARAMETERS.poly_modulus_degree), np.uint64)
    pair[1] = value
    return pair.tobytes()


def key_from_slots(slots: np.ndarray, factor: int) -> list[int]:
    """Return the key that slots B s / scale stand for, given B = factor * scale."""
    return encoded(ckks._context(PARAMETERS), slots / factor, 1.0, PARAMETERS.poly_modulus_degree).tolist()


def test_the_passive_attack_recovers_the_key_of_the_usual_default() -> None:
    """TenSEAL releases real parts only, m(X) + m(1/X); two chunks give both unknowns s(x) and s(1/x) at every point."""
    context = tenseal.context(tenseal.SCHEME_TYPE.CKKS, 8192, coeff_mod_bit_sizes=[60, 40, 40, 60])
    context.global_scale = 2.0**40
    native = context.seal_context().data
    prime = native.first_context_data().parms().coeff_modulus()[0].value()
    generator = np.random.default_rng(1)
    equations = []
    for _ in range(2):
        one, two = (tenseal.ckks_vector(context, generator.normal(0, 0.1, 4096).tolist()) for _ in range(2))
        total = one + two
        twice = encoded(native, np.array(total.decrypt(), complex), 2.0**41, 8192)
        body = ckks._save(total.ciphertext()[0])[-2 * 3 * 8192 * 8 :]
        c0, c1 = np.frombuffer(body, "<u8").reshape(2, 3, 8192)[:, 0].astype(object)
        equations.append((c1, c1[::-1], twice.astype(object) - c0 - c0[::-1]))
    (a, b, m), (c, d, n) = equations
    determinant = [pow(int(x), -1, prime) for x in (a * d - b * c) % prime]
    guess = ((m * d - b * n) * np.array(determinant, object) % prime).tolist()
    truth = np.frombuffer(ckks._save(context.secret_key().data)[-4 * 8192 * 8 :], "<u8")[:8192].tolist()
    assert agreement(guess, truth) == 1.0


def test_the_passive_attack_recovers_our_key_from_unchecked_slots_and_fails_on_our_answer() -> None:
    pair = ckks.generate_round_key(PARAMETERS)
    updates = [np.random.default_rng(k).integers(-1, 2, 3000) for k in range(3)]
    total = honest_sum(pair.public, updates)
    ciphertext = coefficients(total[0], PARAMETERS)
    context, degree = ckks._context(PARAMETERS), PARAMETERS.poly_modulus_degree
    raw = ckks._decrypt(pair.secret, PARAMETERS, [ciphertext])[0]
    unchecked = encoded(context, raw, PARAMETERS.scale, degree)
    assert agreement(solve_for_key(unchecked, ciphertext, PRIME), key_of(pair.secret)) == 1.0

    answer = ckks.decrypt_sum(pair.secret, PARAMETERS, total, values=3000, contributors=3)
    assert (answer == np.sum(updates, axis=0)).all()
    packed = np.rint(raw.real) + 1j * np.rint(raw.imag)  # what the answer determines, and no more
    ours = encoded(context, packed, PARAMETERS.scale, degree)
    assert agreement(solve_for_key(ours, ciphertext, PRIME), key_of(pair.secret)) < 0.01


def test_the_active_attack_recovers_the_key_from_rounded_integers_without_the_check() -> None:
    pair = ckks.generate_round_key(PARAMETERS)
    factor = 2**20
    attack = constant_polynomial(factor << PARAMETERS.scale_bits)
    raw = ckks._decrypt(pair.secret, PARAMETERS, [coefficients(attack, PARAMETERS)])[0]
    rounded = np.rint(raw.real) + 1j * np.rint(raw.imag)
    assert agreement(key_from_slots(rounded, factor), key_of(pair.secret)) == 1.0


@pytest.mark.parametrize("bits", range(1, 36, 2))
@pytest.mark.parametrize("company", [0, 2])
def test_the_active_attack_gets_no_answer_from_ours(bits: int, company: int) -> None:
    pair = ckks.generate_round_key(PARAMETERS)
    running = RunningSum(PARAMETERS, ciphertexts=1)
    running.add([constant_polynomial((1 << bits) << PARAMETERS.scale_bits)])
    for _ in range(company):
        running.add(ckks.encrypt(pair.public, PARAMETERS, np.ones(3000, np.int64)))
    with pytest.raises(UnsafeSum) as refusal:
        ckks.decrypt_sum(pair.secret, PARAMETERS, running.to_ciphertexts(), values=3000, contributors=company + 1)
    assert not any(character.isdigit() for character in str(refusal.value))


def test_an_attack_too_small_to_be_seen_changes_nothing() -> None:
    pair = ckks.generate_round_key(PARAMETERS)
    running = RunningSum(PARAMETERS, ciphertexts=1)
    running.add([constant_polynomial(8)])
    for _ in range(2):
        running.add(ckks.encrypt(pair.public, PARAMETERS, np.ones(3000, np.int64)))
    answer = ckks.decrypt_sum(pair.secret, PARAMETERS, running.to_ciphertexts(), values=3000, contributors=3)
    assert (answer == 2).all()


@pytest.mark.parametrize("seed", range(8))
def test_random_polynomials_of_an_insider_get_no_answer(seed: int) -> None:
    pair = ckks.generate_round_key(PARAMETERS)
    generator = np.random.default_rng(seed)
    forged = generator.integers(0, PRIME, (2, PARAMETERS.poly_modulus_degree), dtype=np.uint64)
    forged[0] *= seed % 2  # half of them (0, B)
    with pytest.raises(UnsafeSum):
        ckks.decrypt_sum(pair.secret, PARAMETERS, [forged.tobytes()], values=3000, contributors=3)


def test_a_ciphertext_in_the_clear_never_reaches_decryption() -> None:
    pair = ckks.generate_round_key(PARAMETERS)
    clear = np.zeros((2, PARAMETERS.poly_modulus_degree), np.uint64)
    clear[0] = 5
    with pytest.raises(InvalidInput, match="transparent"):
        ckks.decrypt_sum(pair.secret, PARAMETERS, [clear.tobytes()], values=3000, contributors=3)
