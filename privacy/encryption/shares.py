"""Pads of three parts, each known to two of three parties: so that no two parties read a single update.

A site draws three seeds and adds a pad of each. The keyholder knows parts 1 and 2, the first helper 2 and 3, the second
helper 3 and 1. So the keyholder lacks part 3, which either helper gives it for one list, as a sum over its sites:

    >>> seeds = new_seeds()
    >>> sent = pad_all(ciphertexts, pad_rows(seeds, counts, parameters), parameters)
    >>> sums = part_sum({"north": seeds[2], ...}, contributors, counts, parameters)   # part 3, at a helper
    >>> subtract(total, [one, two, three], parameters)                                # at the keyholder

Whoever knows a part's sum commits to it before the sites sign the list, and the sites vouch for it with tags
(:mod:`privacy.encryption.pad_tags`). A proof and a table of who reads what together:
docs/decisions/0018-pads-among-helpers.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from privacy.encryption.ciphertexts import Buffer, coefficients
from privacy.encryption.pads import SEED_BYTES, new_seed, reduce_once, summed
from privacy.encryption.parameters import EncryptionParameters
from privacy.errors import InvalidInput

PARTS = (1, 2, 3)
KEYHOLDER_PARTS = (1, 2)
HELPER_PARTS = ((2, 3), (3, 1))
"""The parts of the first and of the second helper, in the order in which their seeds are sealed."""
MISSING_PART = 3
"""The part that the keyholder does not know and both helpers do."""

_MAGIC = b"tessera-pads-1\n\0"
_DOMAIN = b"tessera/v1/seed/"
PartSum = dict[str, NDArray[np.uint64]]
"""The sum of one part's pads: block name to uint64[ciphertexts, N], below the data prime."""


def new_seeds() -> tuple[bytes, bytes, bytes]:
    """Return three fresh seeds of one site and round."""
    return new_seed(), new_seed(), new_seed()


def seed_hash(seed: bytes, part: int, site: str) -> str:
    """Return the hash of a seed, which the site signs: all holders of a part hold the same one."""
    return hashlib.sha256(_DOMAIN + bytes([part]) + seed + site.encode()).hexdigest()


def joined(seeds: Sequence[bytes], parts: Sequence[int]) -> bytes:
    """Return the seeds of some parts in one string, to be sealed."""
    return b"".join(seeds[part - 1] for part in parts)


def split(opened: bytes, parts: Sequence[int]) -> dict[int, bytes]:
    """Return by part what :func:`joined` joined."""
    return {part: opened[i * SEED_BYTES : (i + 1) * SEED_BYTES] for i, part in enumerate(parts)}


def pad_rows(seeds: Sequence[bytes], counts: Mapping[str, int], parameters: EncryptionParameters) -> dict[int, PartSum]:
    """Return the three pads of one site by part, over its blocks."""
    return {
        part: {name: summed([seed], name, chunks, parameters) for name, chunks in counts.items()}
        for part, seed in zip(PARTS, seeds, strict=True)
    }


def pad_all(
    blocks: Mapping[str, Sequence[Buffer]], rows: Mapping[int, PartSum], parameters: EncryptionParameters
) -> dict[str, list[bytes]]:
    """Return one site's ciphertexts with its three pads added.

    Args:
        blocks: ciphertexts by block name.
        rows: of :func:`pad_rows`.
        parameters: the study's parameters.

    Raises:
        InvalidInput: a ciphertext is malformed.
    """
    prime = np.uint64(parameters.data_prime)
    padded = {}
    for name, ciphertexts in blocks.items():
        arrays = [coefficients(ciphertext, parameters).copy() for ciphertext in ciphertexts]
        for index, array in enumerate(arrays):
            for part in PARTS:
                array[0] += rows[part][name][index]  # four numbers below 2**60: no wrap
            reduce_once(array[0], np.uint64(2) * prime)
            reduce_once(array[0], prime)
        padded[name] = [array.tobytes() for array in arrays]
    return padded


def part_sum(
    seeds: Mapping[str, bytes],
    contributors: Mapping[str, Collection[str]],
    counts: Mapping[str, int],
    parameters: EncryptionParameters,
) -> PartSum:
    """Return the sum of one part's pads over the sites in each block.

    Args:
        seeds: the part's seed by site.
        contributors: the sites in each block, by block name.
        counts: ciphertexts by block name.
        parameters: the study's parameters.
    """
    return {
        name: summed([seeds[site] for site in sorted(contributors[name])], name, chunks, parameters)
        for name, chunks in counts.items()
    }


def subtract(
    blocks: Mapping[str, Sequence[Buffer]], sums: Sequence[PartSum], parameters: EncryptionParameters
) -> dict[str, list[bytes]]:
    """Return a sum's ciphertexts without the pads of all parts.

    Raises:
        InvalidInput: a ciphertext is malformed, or a part's sum has another shape.
    """
    prime = np.uint64(parameters.data_prime)
    bare = {}
    for name, ciphertexts in blocks.items():
        if any(name not in part or len(part[name]) != len(ciphertexts) for part in sums) or len(sums) > len(PARTS):
            raise InvalidInput(f"expected pad sums for {len(ciphertexts)} ciphertexts of block {name!r}")
        arrays = [coefficients(ciphertext, parameters).copy() for ciphertext in ciphertexts]
        for index, array in enumerate(arrays):
            array[0] += np.uint64(len(sums)) * prime  # at most four numbers below 2**60: no wrap
            for part in sums:
                array[0] -= part[name][index]
            reduce_once(array[0], np.uint64(2) * prime)
            reduce_once(array[0], prime)
        bare[name] = [array.tobytes() for array in arrays]
    return bare


def sum_bytes(counts: Mapping[str, int], parameters: EncryptionParameters) -> int:
    """Return the only length that a part's sum can have as it travels."""
    return len(_MAGIC) + sum(counts.values()) * parameters.poly_modulus_degree * 8


def to_bytes(part: PartSum) -> bytes:
    """Return a part's sum as it travels: a magic line of 16 bytes, then its blocks in alphabetical order."""
    return _MAGIC + b"".join(part[name].astype("<u8", copy=False).tobytes() for name in sorted(part))


def from_bytes(data: Buffer, counts: Mapping[str, int], parameters: EncryptionParameters) -> PartSum:
    """Read what :func:`to_bytes` wrote.

    Raises:
        InvalidInput: another length or beginning, or a coefficient that is not below the data prime.
    """
    expected = sum_bytes(counts, parameters)
    if len(data) != expected or bytes(data[: len(_MAGIC)]) != _MAGIC:
        raise InvalidInput(f"expected pad sums of {expected} bytes, got {len(data)} or something else")
    values = np.frombuffer(data, "<u8", offset=len(_MAGIC)).reshape(-1, parameters.poly_modulus_degree)
    if int(values.max(initial=0)) >= parameters.data_prime:
        raise InvalidInput("a coefficient of the pad sums is not below the data prime")
    found, start = {}, 0
    for name in sorted(counts):
        found[name] = values[start : start + counts[name]]
        start += counts[name]
    return found
