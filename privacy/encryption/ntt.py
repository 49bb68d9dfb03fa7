"""Polynomials modulo one prime and X^N + 1: exact products and the inverse number-theoretic transform, in numpy.

SEAL keeps keys as evaluations: entry i of a row is f(psi^(2 r(i) + 1)) modulo the prime, where psi is the smallest
primitive 2N-th root of unity and r reverses the bits of i. So products are products of the entries, and
:func:`coefficients_of` gives the coefficients back:

    >>> field = Field(prime=1152921504606830593, degree=4096)
    >>> field.centred(field.coefficients_of(secret_row))       # -1, 0 or 1 for a ternary key

Products of two 60-bit numbers need 128 bits. They are reduced by Montgomery's method ("Modular multiplication without
trial division", Math. Comp. 44, 1985) on halves of 32 bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from privacy.errors import InvalidInput

Row = NDArray[np.uint64]
_HALF = np.uint64(32)
_LOW = np.uint64((1 << 32) - 1)
_WORD = 1 << 64


class Field:
    """One prime field with the roots of unity that a ring of some degree needs; see :func:`field_of`.

    Args:
        prime: below 2**62, and 1 modulo ``2 * degree``.
        degree: N, a power of two.
    """

    def __init__(self, *, prime: int, degree: int) -> None:
        if not 2 < prime < 1 << 62 or prime % (2 * degree) != 1:
            raise InvalidInput(f"expected a prime below 2**62 that is 1 modulo {2 * degree}, got {prime}")
        self.prime, self.degree = prime, degree
        self._modulus, self._inverse = np.uint64(prime), np.uint64(pow(prime, -1, _WORD))
        self._square = np.uint64(_WORD * _WORD % prime)

    def times(self, left: Row, right: Row) -> Row:
        """Return the product of two rows, entry by entry; both are below the prime."""
        return self._montgomery(self._montgomery(left, right), self._square)

    def minus(self, left: Row, right: Row) -> Row:
        """Return the difference of two rows below the prime."""
        difference: Row = left - right  # wraps around where it is negative
        smaller: Row = np.minimum(difference, difference + self._modulus)
        return smaller

    def coefficients_of(self, rows: Row) -> Row:
        """Return the coefficients, below the prime, of polynomials whose evaluations are ``rows``, uint64[..., N]."""
        values = rows.reshape(-1, self.degree).T.copy()
        for twiddles in self._layers:
            halves = values.reshape(len(twiddles[0]), 2, -1, values.shape[-1])
            first, second = halves[:, 0], halves[:, 1]
            total = first + second  # below 2**63
            joined = np.empty_like(halves)
            np.minimum(total, total - self._modulus, out=joined[:, 0])
            joined[:, 1] = self._by_constants(self.minus(first, second), *twiddles)
            values = joined.reshape(values.shape)
        coefficients: Row = self._by_constants(values[None], *self._last)[0].T.reshape(rows.shape)
        return coefficients

    def centred(self, row: Row) -> NDArray[np.int64]:
        """Return a row's numbers between minus and plus half the prime."""
        signed = row.astype(np.int64)
        return np.where(row > self._modulus >> np.uint64(1), signed - np.int64(self.prime), signed)

    @cached_property
    def _layers(self) -> list[tuple[Row, Row]]:
        """Return the inverse roots of each layer of butterflies (Gentleman and Sande), for :meth:`_by_constants`."""
        inverse_root = pow(_smallest_root(self.prime, self.degree), -1, self.prime)
        powers = [1]
        for _ in range(self.degree - 1):
            powers.append(powers[-1] * inverse_root % self.prime)
        layers, groups = [], self.degree // 2
        while groups:
            bits = (2 * groups).bit_length() - 1
            exponents = [_reversed(groups + i, bits) * (self.degree >> bits) for i in range(groups)]
            layers.append(self._constants([powers[e] for e in exponents]))
            groups //= 2
        return layers

    @cached_property
    def _last(self) -> tuple[Row, Row]:
        return self._constants([pow(self.degree, -1, self.prime)])

    def _constants(self, numbers: Sequence[int]) -> tuple[Row, Row]:
        """Return numbers below the prime and their quotients ``number * 2**64 // prime``, uint64[..., 1, 1] each."""
        quotients = [number * _WORD // self.prime for number in numbers]
        return np.array(numbers, np.uint64)[:, None, None], np.array(quotients, np.uint64)[:, None, None]

    def _by_constants(self, row: Row, numbers: Row, quotients: Row) -> Row:
        """Return products with constants (Shoup's method: the quotient is at most one too small)."""
        product: Row = row * numbers - _upper(row, quotients) * self._modulus  # below twice the prime
        smaller: Row = np.minimum(product, product - self._modulus)
        return smaller

    def _montgomery(self, left: Row, right: Row | np.uint64) -> Row:
        """Return ``left * right / 2**64`` modulo the prime."""
        quotient = left * right * self._inverse  # modulo 2**64
        difference: Row = _upper(left, right) - _upper(quotient, self._modulus)  # wraps around where it is negative
        smaller: Row = np.minimum(difference, difference + self._modulus)
        return smaller


@lru_cache(maxsize=8)
def field_of(prime: int, degree: int) -> Field:
    """Return the field of a prime; its roots are computed once."""
    return Field(prime=prime, degree=degree)


def _upper(left: Row, right: Row | np.uint64) -> Row:
    """Return the upper 64 bits of products of 64-bit numbers."""
    low, high = left & _LOW, left >> _HALF
    low_other, high_other = right & _LOW, right >> _HALF
    middle = high * low_other + ((low * low_other) >> _HALF)
    carried = low * high_other + (middle & _LOW)
    result: Row = high * high_other + (middle >> _HALF) + (carried >> _HALF)
    return result


def _reversed(number: int, bits: int) -> int:
    return int(format(number, f"0{bits}b")[::-1], 2)


def _smallest_root(prime: int, degree: int) -> int:
    """Return the smallest primitive 2N-th root of unity."""
    roots = (pow(base, (prime - 1) // (2 * degree), prime) for base in range(2, prime))
    root = next(r for r in roots if pow(r, degree, prime) == prime - 1)
    found, square, power = root, root * root % prime, root
    for _ in range(degree - 1):
        power = power * square % prime
        found = min(found, power)
    return found
