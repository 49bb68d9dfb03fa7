"""From bounded numbers to packed integers and back: quantise, pack; after the sum unpack, dequantise.

    >>> quantise(np.float32([0.5, -2.0]), bound=1.0, weight=1.0, levels=64, uniform=np.zeros).tolist()
    [32, -64]

Rounding is stochastic: x goes to floor(x) + 1 with probability x - floor(x), so its expectation is x (to within
2**-40). The range is a public constant of the study, never the maximum of the data. Packing is mixed-radix: several
signed integers lie in each part of a complex CKKS slot.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from privacy.encryption.parameters import EncryptionParameters
from privacy.errors import InvalidInput

Uniform = Callable[[int], NDArray[np.float64]]


def quantise(
    values: NDArray[np.float32], *, bound: float, weight: float, levels: int, uniform: Uniform
) -> NDArray[np.int64]:
    """Project on the public box, weight, and round stochastically to integers in -levels..levels.

    Args:
        values: float32[n], finite.
        bound: public half-width of the box; values beyond it are projected on it.
        weight: the site's weight relative to the largest, in (0, 1].
        levels: integer that ``bound`` maps to at weight 1.
        uniform: returns float64[n] uniform in [0, 1), as :meth:`privacy.dp.randomness.Randomness.uniform` does; secret
            to the site, never drawn twice.

    Returns:
        int64[n] whose expectation is ``clip(values) * weight * levels / bound``.

    Raises:
        InvalidInput: a value is not finite, or an argument is out of range.
    """
    if not (np.isfinite(bound) and bound > 0 and 0 < weight <= 1 and levels >= 1):
        raise InvalidInput("expected bound > 0, weight in (0, 1] and levels >= 1")
    exact = np.asarray(values, np.float64)
    if exact.ndim != 1 or not np.isfinite(exact).all():
        raise InvalidInput("expected a vector of finite values; the update did not train to finite numbers")
    exact = np.clip(exact, -bound, bound)
    exact *= weight * levels / bound
    draws = uniform(exact.size)
    if draws.dtype != np.float64 or draws.shape != exact.shape:
        raise InvalidInput(f"expected float64[{exact.size}] draws, got {draws.dtype}{list(draws.shape)}")
    exact += draws
    return np.clip(np.floor(exact, out=exact), -levels, levels).astype(np.int64)


def pack(integers: NDArray[np.int64], parameters: EncryptionParameters) -> NDArray[np.complex128]:
    """Lay out quantised values over slots.

    Args:
        integers: int64[n] in -levels..levels.
        parameters: the study's packing.

    Returns:
        complex128[ciphertexts, N/2]; unused fields are zero.

    Raises:
        InvalidInput: a value is out of range or there are none.
    """
    if integers.ndim != 1 or integers.dtype != np.int64:
        raise InvalidInput(f"expected int64[n], got {integers.dtype}{list(integers.shape)}")
    chunks = parameters.ciphertexts_for(integers.size)
    if max(int(integers.max()), -int(integers.min())) > parameters.levels:
        raise InvalidInput(f"expected integers within +-{parameters.levels}; quantise with these levels")
    padded = np.zeros(chunks * parameters.values_per_ciphertext, np.int64)
    padded[: integers.size] = integers
    fields = padded.reshape(chunks, parameters.fields_per_slot, 2, parameters.slots)
    packed = np.zeros((chunks, 2, parameters.slots), np.int64)
    for index in reversed(range(parameters.fields_per_slot)):
        packed *= parameters.radix
        packed += fields[:, index]
    slots = np.empty((chunks, parameters.slots), np.complex128)
    slots.real, slots.imag = packed[:, 0], packed[:, 1]
    return slots


def unpack(slots: NDArray[np.complex128], parameters: EncryptionParameters, *, values: int) -> NDArray[np.int64]:
    """Return the first ``values`` integers of a packed sum; the inverse of :func:`pack`.

    Raises:
        InvalidInput: a slot is not integral or beyond what the sites can reach, or the shape is wrong.
    """
    fields = unpack_fields(slots, parameters)
    if parameters.ciphertexts_for(values) != len(slots):
        raise InvalidInput(f"{values} values do not lie in {len(slots)} ciphertexts")
    return fields[:values]


def unpack_fields(slots: NDArray[np.complex128], parameters: EncryptionParameters) -> NDArray[np.int64]:
    """Return every field of integral slots complex128[chunks, N/2], padding included, in the order of packing."""
    if slots.ndim != 2 or slots.shape[1] != parameters.slots:
        raise InvalidInput(f"expected slots of shape (chunks, {parameters.slots}), got {slots.shape}")
    parts = np.stack((slots.real, slots.imag), axis=1)
    if not (np.abs(parts) <= parameters.largest_slot).all() or (parts != np.rint(parts)).any():
        raise InvalidInput("expected integral slots within the packing's reach")
    rest = parts + parameters.largest_slot  # balanced digits become ordinary ones
    fields = np.empty((len(slots), parameters.fields_per_slot, 2, parameters.slots), np.int64)
    for index in range(parameters.fields_per_slot - 1):
        quotient = np.floor(rest / parameters.radix)  # exact below 2**53, and quicker than integers
        fields[:, index] = rest - quotient * parameters.radix
        rest = quotient
    fields[:, -1] = rest
    fields -= parameters.sites * parameters.levels
    return fields.reshape(-1)


def dequantise(total: NDArray[np.int64], *, bound: float, levels: int, total_weight: float) -> NDArray[np.float32]:
    """Return the weighted mean that a sum of quantised updates stands for.

    Args:
        total: int64[n], the sum over the sites that arrived.
        bound: as given to :func:`quantise`.
        levels: as given to :func:`quantise`.
        total_weight: sum of the weights of the sites that arrived.

    Raises:
        InvalidInput: an argument is out of range.
    """
    if not (np.isfinite(bound) and bound > 0 and levels >= 1 and total_weight > 0):
        raise InvalidInput("expected bound > 0, levels >= 1 and total_weight > 0")
    return (total * (bound / (levels * total_weight))).astype(np.float32)
