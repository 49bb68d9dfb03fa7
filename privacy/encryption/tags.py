"""Linear tags: proof that a sum is the sum of committed ciphertexts, without showing one of them.

The commitment list and the hash of the sum are fixed first; both hashes together determine the challenge r. Each
contributor gives t_k = <r, c_k> mod q over its own coefficients, the keyholder computes <r, c_sum> and compares it with
the sum of the t_k. Both sides are linear in the ciphertexts, so honest sums agree always:

    >>> challenge = challenges(list_hash, sum_hash)
    >>> combine([tag(a, challenge, parameters), tag(b, challenge, parameters)], parameters) == tag(a_plus_b, ...)

The challenge is a product, r[block, chunk, j] = u[block, chunk] * v[j], with independent 32-bit words from SHAKE-256;
any difference is a non-zero polynomial of degree 2 in them, zero with probability at most 2 / 2**32 (Schwartz-Zippel
over the prime field). Four independent repetitions leave 2**-124.

Products are exact in float64: 30-bit coefficient halves times 8-bit challenge bytes over 2 N = 2**13 terms stay below
2**51, so one matrix product per block does the work.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from privacy.encryption.ciphertexts import Buffer, coefficients
from privacy.encryption.parameters import EncryptionParameters
from privacy.errors import InvalidInput

REPETITIONS = 4
_WORD_BYTES = 4
_HALF_BITS = 30
_CHUNKS_AT_ONCE = 16
_DOMAIN = b"tessera/v1/tag/"


@dataclass(frozen=True, kw_only=True)
class Challenge:
    """What a commitment list and a sum's hash determine; words are drawn from it by label."""

    seed: bytes

    def words(self, label: str, count: int) -> NDArray[np.uint8]:
        """Return uint8[count, REPETITIONS * 4]: that many 32-bit words, as bytes, for each repetition."""
        size = count * REPETITIONS * _WORD_BYTES
        stream = hashlib.shake_256(_DOMAIN + self.seed + label.encode()).digest(size)
        return np.frombuffer(stream, np.uint8).reshape(count, REPETITIONS * _WORD_BYTES)


def challenges(list_hash: str, sum_hash: str) -> Challenge:
    """Return the challenge of a closed round.

    Args:
        list_hash: SHA-256 of the commitment list, 64 hexadecimal digits.
        sum_hash: SHA-256 of the sum's body, 64 hexadecimal digits.

    Raises:
        InvalidInput: not two SHA-256 hashes.
    """
    try:
        seed = bytes.fromhex(list_hash) + bytes.fromhex(sum_hash)
    except ValueError as error:
        raise InvalidInput("expected two hashes of 64 hexadecimal digits") from error
    if len(list_hash) != 64 or len(seed) != 64:
        raise InvalidInput("expected two hashes of 64 hexadecimal digits")
    return Challenge(seed=seed)


def tag(
    blocks: Mapping[str, Sequence[Buffer]], challenge: Challenge, parameters: EncryptionParameters
) -> tuple[int, ...]:
    """Return <r, c> mod q for each repetition, over all ciphertexts of all blocks.

    Args:
        blocks: ciphertexts of an update or a sum by block name, as in :mod:`privacy.encryption.ciphertexts`.
        challenge: of this round's list and sum.
        parameters: the study's parameters.

    Raises:
        InvalidInput: a ciphertext is malformed.
    """
    width = 2 * parameters.poly_modulus_degree
    result = [0] * REPETITIONS
    inner = _inner(challenge, width)
    for name, ciphertexts in blocks.items():
        for start in range(0, len(ciphertexts), _CHUNKS_AT_ONCE):
            some = ciphertexts[start : start + _CHUNKS_AT_ONCE]
            array = np.stack([coefficients(ciphertext, parameters).reshape(-1) for ciphertext in some])
            _add(result, array, inner, _outer(challenge, name, len(ciphertexts))[start:])
    return tuple(total % parameters.data_prime for total in result)


def tag_rows(
    blocks: Mapping[str, NDArray[np.uint64]], challenge: Challenge, parameters: EncryptionParameters
) -> tuple[int, ...]:
    """Return <r, p> mod q for each repetition, over single polynomials by block name, uint64[count, N]."""
    result = [0] * REPETITIONS
    inner = _inner(challenge, parameters.poly_modulus_degree)
    for name, rows in blocks.items():
        for start in range(0, len(rows), _CHUNKS_AT_ONCE):
            _add(result, rows[start : start + _CHUNKS_AT_ONCE], inner, _outer(challenge, name, len(rows))[start:])
    return tuple(total % parameters.data_prime for total in result)


@lru_cache(maxsize=4)
def _inner(challenge: Challenge, width: int) -> NDArray[np.float64]:
    """Return the words of the coefficients, which every block and every site's update are multiplied with."""
    words = challenge.words("coefficient", width).astype(np.float64)
    words.flags.writeable = False
    return words


def _outer(challenge: Challenge, name: str, count: int) -> NDArray[np.uint32]:
    return challenge.words("block/" + name, count).view("<u4")


def _add(result: list[int], array: NDArray[np.uint64], inner: NDArray[np.float64], outer: NDArray[np.uint32]) -> None:
    for products, words in zip(_products(array, inner), outer, strict=False):
        for index in range(REPETITIONS):
            result[index] += int(words[index]) * products[index]


def combine(tags: Sequence[Sequence[int]], parameters: EncryptionParameters) -> tuple[int, ...]:
    """Return the sum of the contributors' tags, to be compared with the tag of the sum.

    Raises:
        InvalidInput: a tag has another number of entries or one that is out of range.
    """
    prime = parameters.data_prime
    for one in tags:
        if len(one) != REPETITIONS or not all(0 <= entry < prime for entry in one):
            raise InvalidInput(f"expected {REPETITIONS} tag entries below the data prime from every contributor")
    return tuple(sum(entries) % prime for entries in zip(*tags, strict=True))


def _products(array: NDArray[np.uint64], inner: NDArray[np.float64]) -> list[list[int]]:
    """Return, for each row of uint64[chunks, 2 N], its exact inner product with every 32-bit word column."""
    mask = np.uint64((1 << _HALF_BITS) - 1)
    low = (array & mask).astype(np.float64) @ inner
    high = (array >> np.uint64(_HALF_BITS)).astype(np.float64) @ inner
    rows = []
    for low_row, high_row in zip(low.tolist(), high.tolist(), strict=True):
        parts = [int(a) + (int(b) << _HALF_BITS) for a, b in zip(low_row, high_row, strict=True)]
        rows.append([_join(parts[i : i + _WORD_BYTES]) for i in range(0, len(parts), _WORD_BYTES)])
    return rows


def _join(byte_products: Sequence[int]) -> int:
    return sum(product << (8 * index) for index, product in enumerate(byte_products))
