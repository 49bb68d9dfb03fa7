"""Masked tags of pads: every site of a list vouches for the pad sums, and shows nothing of its own pad.

Whoever answers for a part commits to the part's sum before anybody signs the list. The list, the sum's hash and these
commitments determine the challenge r. Each site signs t = <r, p> + m for each of its three pads p, and everybody
compares the sum of the t with the part's sum:

    >>> said = commitment(part, list_hash, total, masks, salt)        # before the list is signed
    >>> challenge = pad_challenge(list_hash, sum_hash, commitments_hash)
    >>> signed = pad_tag(rows, seed, part, list_hash, challenge, parameters)
    >>> implied = implied_masks([signed, ...], total, challenge, parameters)
    >>> commitment(part, list_hash, total, implied, salt) == said

The mask m comes from the pad's seed and is another one for every list, so a tag tells nothing to whoever lacks the
seed. Only the sum of all masks of a list becomes known, with the sum of all pads. A false sum, fixed before r was
known, fits with probability at most 2**-124 (:mod:`privacy.encryption.tags`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from privacy.encryption.parameters import EncryptionParameters
from privacy.encryption.shares import PartSum, to_bytes
from privacy.encryption.tags import REPETITIONS, Challenge, combine, tag_rows
from privacy.errors import InvalidInput

PadTag = tuple[int, ...]
"""One number below the data prime for each of the :data:`~privacy.encryption.tags.REPETITIONS`."""

_MASK_BYTES = 24
_CHALLENGE = b"tessera/v1/pad-tag/"
_MASK = b"tessera/v1/pad-mask/"
_COMMITMENT = b"tessera/v1/pad-commitment/"
_SALT = b"tessera/v1/pad-salt/"
SALT_BYTES = 32


def pad_challenge(list_hash: str, sum_hash: str, commitments_hash: str) -> Challenge:
    """Return the challenge of a list whose pad sums are committed to.

    Args:
        list_hash: SHA-256 of the list, 64 hexadecimal digits.
        sum_hash: that of the sum's body.
        commitments_hash: that of all commitments that the sites were shown.

    Raises:
        InvalidInput: not three SHA-256 hashes.
    """
    return Challenge(seed=hashlib.sha512(_CHALLENGE + _digests(list_hash, sum_hash, commitments_hash)).digest())


def mask_of(seed: bytes, part: int, list_hash: str, parameters: EncryptionParameters) -> PadTag:
    """Return the mask of one pad's tag under one list: uniform below the data prime up to 2**-130."""
    drawn = hashlib.shake_256(_MASK + bytes([part]) + seed + _digests(list_hash)).digest(_MASK_BYTES * REPETITIONS)
    numbers = (drawn[i * _MASK_BYTES : (i + 1) * _MASK_BYTES] for i in range(REPETITIONS))
    return tuple(int.from_bytes(number, "little") % parameters.data_prime for number in numbers)


def masks_of(seeds: Iterable[bytes], part: int, list_hash: str, parameters: EncryptionParameters) -> PadTag:
    """Return the sum of the masks of several seeds of one part."""
    return combine([(0,) * REPETITIONS, *(mask_of(s, part, list_hash, parameters) for s in seeds)], parameters)


def pad_tag(
    rows: PartSum, seed: bytes, part: int, list_hash: str, challenge: Challenge, parameters: EncryptionParameters
) -> PadTag:
    """Return the masked tag of one site's pad.

    Args:
        rows: the pad of ``seed`` over the site's blocks, as :func:`privacy.encryption.shares.part_sum` gives it.
        seed: the pad's.
        part: which of the three pads.
        list_hash: the list that is signed.
        challenge: of :func:`pad_challenge`.
        parameters: the study's parameters.
    """
    bare = tag_rows(rows, challenge, parameters)
    return combine([bare, mask_of(seed, part, list_hash, parameters)], parameters)


def implied_masks(
    tags: Sequence[Sequence[int]], total: PartSum, challenge: Challenge, parameters: EncryptionParameters
) -> PadTag:
    """Return what the masks of all listed sites must add up to, if ``total`` is the sum of the pads that they tagged.

    Raises:
        InvalidInput: a tag has another number of entries or one that is out of range.
    """
    prime = parameters.data_prime
    bare = tag_rows(total, challenge, parameters)
    return tuple((said - own) % prime for said, own in zip(combine(tags, parameters), bare, strict=True))


def salt_of(seeds: Iterable[bytes], part: int, list_hash: str) -> bytes:
    """Return the salt of a part's commitment under one list: all who hold the seeds get the same, nobody else any.

    Args:
        seeds: of all listed sites, in any order.
        part: which of the three pads.
        list_hash: the list.
    """
    return hashlib.sha256(_SALT + bytes([part]) + _digests(list_hash) + b"".join(sorted(seeds))).digest()


def commitment(part: int, list_hash: str, total: PartSum, masks: Sequence[int], salt: bytes = b"") -> str:
    """Return the commitment to one part of one list: its sum, and the sum of its masks.

    It tells nothing about either to whoever lacks the salt, which becomes known with the sum: not even whether a guess
    of both is right.

    Args:
        part: which of the three pads.
        list_hash: the list.
        total: the part's sum.
        masks: the sum of its masks.
        salt: of :func:`salt_of`; empty in studies from before there were salts.
    """
    numbers = b"".join(number.to_bytes(8, "little") for number in masks)
    inner = _digests(list_hash) + hashlib.sha256(to_bytes(total)).digest() + numbers + salt
    return hashlib.sha256(_COMMITMENT + bytes([part]) + inner).hexdigest()


def _digests(*hashes: str) -> bytes:
    try:
        raw = [bytes.fromhex(text) for text in hashes]
    except ValueError as error:
        raise InvalidInput("expected hashes of 64 hexadecimal digits") from error
    if any(len(text) != 64 or len(part) != 32 for text, part in zip(hashes, raw, strict=True)):
        raise InvalidInput("expected hashes of 64 hexadecimal digits")
    return b"".join(raw)
