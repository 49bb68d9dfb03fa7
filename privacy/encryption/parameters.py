"""CKKS and packing parameters: chosen once per study, proven not to overflow, and checked by every receiver.

A slot carries one Gaussian integer: ``fields_per_slot`` quantised values in its real part and as many in its
imaginary part, packed in mixed radix. With K sites and values in -levels..levels a field needs
``radix = 2 K levels + 1`` values, so that the sum over all sites cannot carry into the next field.

    >>> parameters = choose_parameters(sites=9, levels=512, length=700_000)
    >>> parameters.fields_per_slot, parameters.values_per_ciphertext, parameters.ciphertexts_for(700_000)
    (3, 12288, 57)

Two bounds decide (docs/encryption.md derives them):

* **no overflow**: every coefficient of the summed plaintext is at most ``scale * sqrt(2) * (radix**fields - 1) / 2``
  plus noise, and that must stay under half the data prime (exact, in integers);
* **rounding margin**: the noise of a slot is the rounding of K ciphertexts times the secret key's own slot, so over
  random keys it has Laplace, not Gaussian, tails; the probability that one part misses its integer by
  :data:`SLOT_TOLERANCE` must be below that of 8 standard deviations of a Gaussian.

Security: ring learning with errors at N = 4096 with 109 bits of modulus and a ternary secret, the 128-bit row of
Albrecht et al., "Homomorphic Encryption Security Standard" (2018), table 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from privacy.errors import InvalidInput, Refused

SLOT_TOLERANCE = 0.2
"""Largest distance of a decrypted slot from its integer that still counts as an honest sum."""

MARGIN_SIGMAS = 8.0
"""Rounding margin, in standard deviations of a Gaussian of the same tail probability."""

MAXIMUM_MISROUNDING = math.erfc(MARGIN_SIGMAS / math.sqrt(2))
"""Largest tolerated probability (1.2e-15) that an honest slot part is :data:`SLOT_TOLERANCE` off."""

MAXIMUM_LENGTH = 100_000_000
"""More values than this in one block are refused."""

MODULUS_BITS_AT_128 = {1024: 27, 2048: 54, 4096: 109, 8192: 218, 16384: 438, 32768: 881}
"""Largest total modulus, in bits, with 128 bits of classical security and a ternary secret, by ring degree."""

_PRIMES: dict[tuple[int, tuple[int, ...]], tuple[int, ...]] = {(4096, (60, 49)): (1152921504606830593, 562949953216513)}
_DEGREE, _BITS = 4096, (60, 49)
_SCALE_BITS = range(12, 31)
_MOST_FIELDS = 8


@dataclass(frozen=True, kw_only=True)
class EncryptionParameters:
    """One frozen choice of ring, moduli, scale and packing; pydantic refuses unknown fields and wrong types.

    Attributes:
        poly_modulus_degree: N, the ring's degree; N/2 complex slots to a ciphertext.
        coeff_mod_bits: bits of the data prime and of the special prime.
        scale_bits: log2 of the CKKS scale.
        sites: K, the most sites that may ever be in one sum.
        levels: the largest magnitude of one quantised value.
        fields_per_slot: packed values in each of a slot's two parts.
    """

    poly_modulus_degree: int
    coeff_mod_bits: tuple[int, ...]
    scale_bits: int
    sites: int
    levels: int
    fields_per_slot: int
    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid", "strict": True}

    @property
    def slots(self) -> int:
        """Complex slots of one ciphertext."""
        return self.poly_modulus_degree // 2

    @property
    def scale(self) -> float:
        """The CKKS scale, a power of two."""
        return 2.0**self.scale_bits

    @property
    def radix(self) -> int:
        """How many different sums one packed field can take: 2 K levels + 1."""
        return 2 * self.sites * self.levels + 1

    @property
    def largest_slot(self) -> int:
        """Largest magnitude of a slot's real or imaginary part, over all honest sums."""
        return int((self.radix**self.fields_per_slot - 1) // 2)

    @property
    def values_per_ciphertext(self) -> int:
        """Quantised values that one ciphertext carries."""
        return 2 * self.fields_per_slot * self.slots

    @property
    def ciphertext_bytes(self) -> int:
        """Length of one ciphertext as it travels: two polynomials of N 64-bit coefficients."""
        return 2 * self.poly_modulus_degree * 8

    @property
    def primes(self) -> tuple[int, ...]:
        """The primes of the coefficient modulus, data prime first.

        Raises:
            Refused: the ring is not one of ours.
        """
        try:
            return _PRIMES[(self.poly_modulus_degree, tuple(self.coeff_mod_bits))]
        except KeyError:
            raise Refused(
                f"expected ring N={_DEGREE} with moduli {_BITS}, got N={self.poly_modulus_degree} with "
                f"{self.coeff_mod_bits}; take the parameters from choose_parameters"
            ) from None

    @property
    def data_prime(self) -> int:
        """The prime that ciphertext coefficients live under."""
        return self.primes[0]

    def ciphertexts_for(self, values: int) -> int:
        """Return how many ciphertexts carry ``values`` quantised values (at least one)."""
        if not 1 <= values <= MAXIMUM_LENGTH:
            raise InvalidInput(f"expected between 1 and {MAXIMUM_LENGTH} values, got {values}")
        return -(-values // self.values_per_ciphertext)

    @property
    def misrounding_probability(self) -> float:
        """Bound on the probability that a part of a slot of a full honest sum fails the slot check.

        Given the key, a part of the noise is sub-Gaussian with proxy |s(zeta)|^2 N K / 24, and s(zeta) is itself
        sub-Gaussian (ternary key); together their moment generating function is below that of a Laplace variable with
        ``b = N sqrt(K / 72) / scale``, and Chernoff's bound of its two tails at b t is (x + 1) exp(1 - x) with
        x = sqrt(1 + t^2).
        """
        degree = self.poly_modulus_degree
        b = degree * math.sqrt(self.sites / 72 * (1 + 3 / degree)) / self.scale
        floating_point = self.largest_slot * 2.0**-49
        x = math.hypot(1.0, max(SLOT_TOLERANCE - floating_point, 0.0) / b)
        return min((x + 1) * math.exp(1 - x), 1.0)

    @property
    def overflows(self) -> bool:
        """Whether an honest sum could leave the data prime's range (exact integer arithmetic)."""
        noise = self.sites * (self.poly_modulus_degree + 2)
        room = self.data_prime // 2 - noise
        packed = self.largest_slot << self.scale_bits
        return room <= 0 or 2 * packed * packed >= room * room


def choose_parameters(*, sites: int, levels: int, length: int) -> EncryptionParameters:
    """Return the densest packing for these sites and levels that provably neither overflows nor misrounds.

    Args:
        sites: the most sites that may be in one sum, 2 to 1000.
        levels: the largest magnitude of a quantised value, 1 to 2**30.
        length: values of the longest block, 1 to 10**8.

    Raises:
        InvalidInput: an argument is out of its range.
        Refused: no packing holds that many levels for that many sites; take fewer levels.
    """
    _check_ranges(sites, levels)
    if not 1 <= length <= MAXIMUM_LENGTH:
        raise InvalidInput(f"expected a length between 1 and {MAXIMUM_LENGTH}, got {length}")
    for fields in range(_MOST_FIELDS, 0, -1):
        for scale_bits in reversed(_SCALE_BITS):
            candidate = EncryptionParameters(
                poly_modulus_degree=_DEGREE,
                coeff_mod_bits=_BITS,
                scale_bits=scale_bits,
                sites=sites,
                levels=levels,
                fields_per_slot=fields,
            )
            if not candidate.overflows and candidate.misrounding_probability <= MAXIMUM_MISROUNDING:
                return candidate
    raise Refused(f"no packing holds sums of {sites} sites with {levels} levels; take fewer levels")


def default_levels(sites: int) -> int:
    """Return the levels that a study takes unless told otherwise: 512, or what still packs three to a part.

    ``default_levels(9) == 512``: a step of the quantiser is 1/512 of the update bound (10 bits with the sign).
    From 12 sites on it halves step by step, to 64 at the least; beyond, two values a part at 512 levels.
    """
    for levels in (512, 256, 128, 64):
        if choose_parameters(sites=sites, levels=levels, length=1).fields_per_slot >= 3:
            return levels
    return 512


def check_security(parameters: EncryptionParameters) -> None:
    """Refuse parameters that are insecure, could overflow or could misround; both ends call it.

    Raises:
        Refused: says which bound does not hold.
        InvalidInput: sites or levels are out of range.
    """
    limit = MODULUS_BITS_AT_128.get(parameters.poly_modulus_degree, 0)
    total = sum(parameters.coeff_mod_bits)
    if total > limit:
        raise Refused(
            f"expected at most {limit} bits of modulus at N={parameters.poly_modulus_degree} for 128-bit "
            f"security, got {total}; take the parameters from choose_parameters"
        )
    _check_ranges(parameters.sites, parameters.levels)
    if not 1 <= parameters.fields_per_slot <= _MOST_FIELDS or parameters.scale_bits not in _SCALE_BITS:
        raise InvalidInput("fields_per_slot or scale_bits is out of range; take them from choose_parameters")
    if parameters.overflows:
        raise Refused(f"a sum of {parameters.sites} sites could overflow; take fewer fields or levels")
    if parameters.misrounding_probability > MAXIMUM_MISROUNDING:
        raise Refused(
            f"expected a misrounding probability of at most {MAXIMUM_MISROUNDING:.1e} per slot part, "
            f"got {parameters.misrounding_probability:.1e}; take a larger scale"
        )


def _check_ranges(sites: int, levels: int) -> None:
    if not 2 <= sites <= 1000:
        raise InvalidInput(f"expected between 2 and 1000 sites, got {sites}")
    if not 1 <= levels <= 2**30:
        raise InvalidInput(f"expected between 1 and 2**30 levels, got {levels}")
