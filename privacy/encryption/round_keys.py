"""What a keyholder may choose of a round's key, and how everybody checks it.

A public key is (b, a) with b = -(a s + e): a secret s with coefficients -1, 0 and 1, and a small error e. Whoever
chooses a as well can make a key of which two secrets fit, and publish the one that suits, after the sum is known. So
``a`` follows from the study and the round by a hash, and the published secret is checked coefficient by coefficient:

    >>> random_part = expanded(parameters, proposal_hash, 3)
    >>> require_random_part(public, random_part)         # at every hospital, before it encrypts
    >>> require_opening(published, public, parameters)               # once the round's key is published

With such an ``a`` no two pairs (s, e) of one b exist but with probability below 2**-370000 over the hash, whatever the
keyholder computes (docs/decisions/0021-keys-by-hash.md). So b alone binds the keyholder, before a site encrypts.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from privacy.encryption.ciphertexts import Buffer
from privacy.encryption.ntt import field_of
from privacy.encryption.parameters import EncryptionParameters
from privacy.errors import InvalidInput

LARGEST_ERROR = 21
"""Bound of every coefficient of e: SEAL draws the difference of two sums of 21 random bits."""

LARGEST_EMBEDDING = 60.0
"""Bound of |s(z)|**2 at the slots' roots of unity z, in units of its mean 2N/3.

By the bound of docs/encryption.md (sub-Gaussian coefficients with proxy 2/3) an honest key exceeds it at one of N/2
slots with probability at most N/2 * 60 * exp(-59) < 3e-21. A key that keeps it moves no part of a slot to another
integer, but with probability below 1e-44 (docs/decisions/0021-keys-by-hash.md).
"""

_DOMAIN = b"tessera/v1/round-key/"
_SPARE = 64


@lru_cache(maxsize=4)
def expanded(parameters: EncryptionParameters, proposal_hash: str, number: int) -> NDArray[np.uint64]:
    """Return the random part of a round's public key, which everybody computes; the newest few are kept.

    Args:
        parameters: the study's parameters.
        proposal_hash: of the approved proposal, 64 hexadecimal digits; it binds the keyholder and the parameters.
        number: the round.

    Returns:
        uint64[primes, N]: evaluations, each exactly uniform below its prime (larger draws are left out).

    Raises:
        InvalidInput: not a SHA-256 hash.
    """
    try:
        study = bytes.fromhex(proposal_hash)
    except ValueError as error:
        raise InvalidInput("expected a proposal hash of 64 hexadecimal digits") from error
    if len(proposal_hash) != 64 or len(study) != 32:
        raise InvalidInput("expected a proposal hash of 64 hexadecimal digits")
    degree = parameters.poly_modulus_degree
    rows = []
    for index, prime in enumerate(parameters.primes):
        drawn = hashlib.shake_256(_DOMAIN + study + number.to_bytes(8, "big") + bytes([index]))
        rows.append(_uniform(drawn, prime, degree))
    found = np.stack(rows)
    found.flags.writeable = False
    return found


def _uniform(drawn: hashlib._Hash, prime: int, count: int) -> NDArray[np.uint64]:
    """Return the first ``count`` words of a SHAKE-256 stream that are below ``prime`` in its number of bits."""
    words = count + _SPARE
    mask = np.uint64((1 << prime.bit_length()) - 1)
    while True:
        stream = np.frombuffer(drawn.digest(8 * words), "<u8") & mask  # type: ignore[call-arg]
        kept: NDArray[np.uint64] = stream[stream < prime]
        if kept.size >= count:
            return kept[:count]
        words *= 2


def require_random_part(public: Buffer, random_part: NDArray[np.uint64]) -> None:
    """Check that a public key has the random part that follows from its study and round.

    Args:
        public: the key as it travels, of any origin.
        random_part: of :func:`expanded`.

    Raises:
        InvalidInput: another length, or another random part.
    """
    if len(public) != 2 * random_part.nbytes:
        raise InvalidInput(f"expected a public key of {2 * random_part.nbytes} bytes, got {len(public)}")
    if bytes(public[random_part.nbytes :]) != random_part.astype("<u8", copy=False).tobytes():
        raise InvalidInput("the public key does not have the random part that follows from the study and the round")


def bound_public(
    public: bytes, secret: bytes, random_part: NDArray[np.uint64], parameters: EncryptionParameters
) -> bytes:
    """Return the public key of a fresh key pair with another random part, under the same secret and error.

    ``b' = b + (a - a') s`` hides with the error that SEAL drew for b; b itself must not be used for anything.

    Args:
        public: (b, a) as SEAL made it.
        secret: its secret, of :func:`privacy.encryption.ckks.published_secret`.
        random_part: a'.
        parameters: the study's parameters.
    """
    key, rows = _rows(public, 2, parameters), _rows(secret, 1, parameters)[0]
    bound = np.empty_like(key)
    for index, prime in enumerate(parameters.primes):
        field = field_of(prime, parameters.poly_modulus_degree)
        moved = field.times(field.minus(random_part[index], key[1, index]), rows[index])
        bound[0, index] = field.minus(key[0, index], moved)
        bound[1, index] = random_part[index]
    return bound.astype("<u8", copy=False).tobytes()


def require_opening(published: Buffer, public: Buffer, parameters: EncryptionParameters) -> None:
    """Check that a published secret is the one that its public key was made of.

    Args:
        published: of :func:`privacy.encryption.ckks.published_secret`, from another party.
        public: the round's public key.
        parameters: the study's parameters.

    Raises:
        InvalidInput: a number out of range, a secret that is not ternary or not the same modulo both primes, one whose
            embedding no honest key reaches, or an error that no honest key has.
    """
    secret, key = _rows(published, 1, parameters)[0], _rows(public, 2, parameters)
    degree = parameters.poly_modulus_degree
    found, errors = [], []
    for index, prime in enumerate(parameters.primes):
        if int(secret[index].max()) >= prime or int(key[:, index].max()) >= prime:
            raise InvalidInput("the published key's coefficients are out of range")
        field = field_of(prime, degree)
        without = field.minus(np.zeros(degree, np.uint64), key[0, index])
        error = field.minus(without, field.times(key[1, index], secret[index]))
        both = field.centred(field.coefficients_of(np.stack([secret[index], error])))
        found.append(both[0])
        errors.append(both[1])
    if not _same(found):
        raise InvalidInput("the published key is not the same modulo both primes")
    if int(np.abs(found[0]).max()) > 1:
        raise InvalidInput("the published key is not ternary")
    if not _same(errors) or int(np.abs(errors[0]).max()) > LARGEST_ERROR:
        raise InvalidInput("the published key is not the secret of the round's public key")
    if largest_embedding(found[0]) > LARGEST_EMBEDDING:
        raise InvalidInput("the published key is no random one: it would blur single slots")


def _same(rows: list[NDArray[np.int64]]) -> bool:
    return all(np.array_equal(rows[0], row) for row in rows[1:])


def largest_embedding(secret: NDArray[np.int64]) -> float:
    """Return the largest |s(z)|**2 over all slots, in units of 2N/3, of ternary coefficients int64[N]."""
    degree = len(secret)
    turned = secret * np.exp(1j * np.pi / degree * np.arange(degree))
    return float((np.abs(np.fft.fft(turned)) ** 2).max() / (2 * degree / 3))


def _rows(data: Buffer, polynomials: int, parameters: EncryptionParameters) -> NDArray[np.uint64]:
    """Return uint64[polynomials, primes, N].

    Raises:
        InvalidInput: another length.
    """
    shape = (polynomials, len(parameters.primes), parameters.poly_modulus_degree)
    expected = 8 * shape[0] * shape[1] * shape[2]
    if len(data) != expected:
        raise InvalidInput(f"expected a key of {expected} bytes, got {len(data)}")
    return np.frombuffer(data, "<u8").reshape(shape)
