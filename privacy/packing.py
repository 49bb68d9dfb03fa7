"""Mixed-radix packing: several signed integers in each part of a complex CKKS slot.

Values v_0 .. v_(F-1) become v_0 + v_1 R + ... with R = 2 K levels + 1, in the real part, and the next F in the
imaginary part. Digits are balanced (-K levels .. K levels), so the packed sum of up to K sites is the sum of the
packed values and unpacks without carry:

    >>> p = choose_parameters(sites=3, levels=10, length=4)
    >>> unpack(pack(np.array([1, -10, 7]), p) + pack(np.array([2, -10, 7]), p), p, values=3).tolist()
    [3, -20, 14]
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from privacy.encryption_parameters import EncryptionParameters
from privacy.errors import InvalidInput


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
    rest = parts.astype(np.int64)
    rest += parameters.largest_slot  # balanced digits become ordinary ones
    fields = np.empty((len(slots), parameters.fields_per_slot, 2, parameters.slots), np.int64)
    for index in range(parameters.fields_per_slot - 1):
        quotient = rest // parameters.radix
        fields[:, index] = rest - quotient * parameters.radix
        rest = quotient
    fields[:, -1] = rest
    fields -= parameters.sites * parameters.levels
    return fields.reshape(-1)
