"""One-time pads over ciphertexts: only the sum of exactly the updates in the attested list can be decrypted.

Linear tags show that a sum adds up to the ciphertexts that the contributors signed for. A contributor that lies about
its own part could, together with the orchestrator, make any ciphertext add up, even another site's single update. So a
site adds to the first polynomial of every ciphertext a fresh uniform polynomial modulo the data prime, and seals the
seed of it to the keyholder (HPKE, RFC 9180: X25519, HKDF-SHA256, ChaCha20-Poly1305; study, round, plan and site are
bound):

    >>> seed = new_seed()
    >>> sent = pad(ciphertexts, seed, parameters)            # at the site, instead of the ciphertexts
    >>> sealed = seal_seed(seed, keyholder_pad_key, label)   # into the signed header of the update
    >>> open_seed(sealed, private, label)                    # at the keyholder, for the sites of an attested list
    >>> remove(total, {"site-0": seed, ...}, contributors, parameters)

The keyholder subtracts the pads of the listed sites, each once, and answers one sum per round. Whatever it was given,
the result is the listed sum plus an offset that the sender knows and that is independent of the honest sites'
ciphertexts (proof: docs/decisions/0006-pads.md). If a listed update is missing, the offset is uniform and its
decryption passes no slot check. The seed is never stored; the private key goes with the round key.

In a study with helpers a site adds three pads, of seeds that two parties each know (:mod:`privacy.encryption.shares`).
Seeds are then sealed by a hybrid of X25519 and ML-KEM-768 (the library's HPKE suite ``MLKEM768_X25519``): the length
of the pad key says which of the two it is.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)
from numpy.typing import NDArray

from privacy.canonical import canonical_json
from privacy.dp.randomness import Randomness
from privacy.encryption.ciphertexts import Buffer, coefficients
from privacy.encryption.parameters import EncryptionParameters
from privacy.errors import InvalidInput, Refused
from privacy.points import require_x25519

SEED_BYTES = 32
PRIVATE_BYTES = 32
SEALED_HEX = 2 * (32 + SEED_BYTES + 16)
_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)
_HYBRID = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)
_MLKEM_SEED_BYTES, _MLKEM_PUBLIC_BYTES, _MLKEM_SEALED_BYTES = 64, 1184, 1088
HYBRID_PRIVATE_BYTES = _MLKEM_SEED_BYTES + PRIVATE_BYTES
HYBRID_KEY_HEX = 2 * (_MLKEM_PUBLIC_BYTES + 32)
_DOMAIN = b"tessera/v1/pad/"
_DIGITS = frozenset("0123456789abcdef")
_AT_ONCE = 14
"""So many pads, and a rest below the prime, are added before the sum is reduced."""


@dataclass(frozen=True, kw_only=True)
class PadLabel:
    """What a pad belongs to; a seed sealed under one label opens under no other.

    ``holder`` is the key of the party that it is sealed to, in a study with helpers.
    """

    study: str
    round: int
    plan_hash: str
    site: str
    holder: str = ""

    def info(self) -> bytes:
        """Return the label as bytes."""
        fields = {"study": self.study, "round": self.round, "plan_hash": self.plan_hash, "site": self.site}
        return _DOMAIN + canonical_json({**fields, "holder": self.holder} if self.holder else fields, 1)


@dataclass(frozen=True, kw_only=True)
class PadKeyPair:
    """A holder's key of one round.

    ``private`` has 32 bytes and ``public`` 64 hexadecimal digits; a hybrid one has :data:`HYBRID_PRIVATE_BYTES` and
    :data:`HYBRID_KEY_HEX`.
    """

    private: bytes = field(repr=False)
    public: str


def generate_pad_key(*, hybrid: bool = False) -> PadKeyPair:
    """Return a fresh X25519 key pair, or one of X25519 and ML-KEM-768 together."""
    private = X25519PrivateKey.generate()
    own, public = private.private_bytes_raw(), private.public_key().public_bytes_raw()
    if hybrid:
        lattice = MLKEM768PrivateKey.generate()
        own, public = lattice.private_bytes_raw() + own, lattice.public_key().public_bytes_raw() + public
    return PadKeyPair(private=own, public=public.hex())


def private_bytes(pad_key: str) -> int:
    """Return how long the private key of a public pad key is."""
    return HYBRID_PRIVATE_BYTES if len(pad_key) == HYBRID_KEY_HEX else PRIVATE_BYTES


def new_seed() -> bytes:
    """Return a fresh seed of :data:`SEED_BYTES` bytes from the operating system."""
    return secrets.token_bytes(SEED_BYTES)


def seal_seed(seed: bytes, pad_key: str, label: PadLabel) -> str:
    """Return a seed, or several in one string, readable by the owner of ``pad_key`` alone, in hexadecimal digits.

    Args:
        seed: of :func:`new_seed`.
        pad_key: the public key from the signed round key, of either kind.
        label: what the pad belongs to.

    Raises:
        InvalidInput: ``pad_key`` is no such key.
    """
    try:
        raw = bytes.fromhex(pad_key)
        require_x25519(raw[-32:])
        public = X25519PublicKey.from_public_bytes(raw[-32:])
        if len(raw) == 32:
            return _SUITE.encrypt(seed, public, info=label.info()).hex()
        lattice = MLKEM768PublicKey.from_public_bytes(raw[:-32])
        return _HYBRID.encrypt(seed, MLKEM768X25519PublicKey(lattice, public), info=label.info()).hex()
    except InvalidInput:
        raise
    except ValueError as error:
        raise InvalidInput(
            f"expected an X25519 key of 64 hexadecimal digits in the round key, or a hybrid one of {HYBRID_KEY_HEX}"
        ) from error


def require_pad_key(pad_key: str, *, hybrid: bool) -> None:
    """Check that seeds can be sealed to a public key, before anything rests on it.

    Args:
        pad_key: the public key, as its owner signed it.
        hybrid: whether it has to be of X25519 and ML-KEM-768 together, as in a study with helpers.

    Raises:
        InvalidInput: it is of the other kind, in another spelling, a point of small order, or no key.
    """
    if len(pad_key) != (HYBRID_KEY_HEX if hybrid else 2 * PRIVATE_BYTES) or not set(pad_key) <= _DIGITS:
        kind = "X25519 and ML-KEM-768 together in a study with helpers" if hybrid else "X25519"
        raise InvalidInput(f"expected pad keys of {kind}, in hexadecimal digits")
    seal_seed(bytes(SEED_BYTES), pad_key, PadLabel(study="", round=0, plan_hash="", site=""))


def open_seed(sealed: str, private: bytes, label: PadLabel, *, seeds: int = 1) -> bytes:
    """Return what a site sealed: ``seeds`` seeds in one string.

    Raises:
        Refused: it was sealed for another key, study, round, plan, site or holder, or changed.
    """
    refused = f"the pad of {label.site} does not open: it is not sealed for this round, plan and site"
    hybrid = len(private) == HYBRID_PRIVATE_BYTES
    if len(sealed) != SEALED_HEX + 2 * SEED_BYTES * (seeds - 1) + 2 * _MLKEM_SEALED_BYTES * hybrid:
        raise Refused(refused)
    try:
        raw = bytes.fromhex(sealed)
        require_x25519(raw[hybrid * _MLKEM_SEALED_BYTES :][:32])
        key = X25519PrivateKey.from_private_bytes(private[-32:])
        if hybrid:
            both = MLKEM768X25519PrivateKey(MLKEM768PrivateKey.from_seed_bytes(private[:-32]), key)
            return bytes(_HYBRID.decrypt(raw, both, info=label.info()))
        return bytes(_SUITE.decrypt(raw, key, info=label.info()))
    except (InvalidTag, ValueError) as error:
        raise Refused(refused) from error


def pad(
    blocks: Mapping[str, Sequence[Buffer]], seed: bytes, parameters: EncryptionParameters
) -> dict[str, list[bytes]]:
    """Return one site's ciphertexts with its pad added.

    Args:
        blocks: ciphertexts by block name.
        seed: used for one update only.
        parameters: the study's parameters.

    Raises:
        InvalidInput: a ciphertext is malformed.
    """
    prime = np.uint64(parameters.data_prime)
    padded = {}
    for name, ciphertexts in blocks.items():
        drawn = stream(seed, name)
        arrays = [coefficients(ciphertext, parameters).copy() for ciphertext in ciphertexts]
        for array in arrays:
            array[0] += below(drawn, parameters)  # below 2**61: no wrap
            reduce_once(array[0], prime)
        padded[name] = [array.tobytes() for array in arrays]
    return padded


def remove(
    blocks: Mapping[str, Sequence[Buffer]],
    seeds: Mapping[str, bytes],
    contributors: Mapping[str, Collection[str]],
    parameters: EncryptionParameters,
) -> dict[str, list[bytes]]:
    """Return a sum without the pads of its contributors.

    Args:
        blocks: the sum's ciphertexts by block name.
        seeds: by site.
        contributors: the sites in each block, by block name.
        parameters: the study's parameters.

    Raises:
        InvalidInput: a ciphertext is malformed.
    """
    prime = np.uint64(parameters.data_prime)
    bare = {}
    for name, ciphertexts in blocks.items():
        sums = summed([seeds[site] for site in sorted(contributors[name])], name, len(ciphertexts), parameters)
        arrays = [coefficients(ciphertext, parameters).copy() for ciphertext in ciphertexts]
        for array, total in zip(arrays, sums, strict=True):
            array[0] += prime - total  # below 2**61: no wrap
            reduce_once(array[0], prime)
        bare[name] = [array.tobytes() for array in arrays]
    return bare


def summed(
    seeds: Collection[bytes], block: str, ciphertexts: int, parameters: EncryptionParameters
) -> NDArray[np.uint64]:
    """Return the sum of the pads of several seeds over one block.

    Returns:
        uint64[ciphertexts, N], below the data prime.
    """
    prime = np.uint64(parameters.data_prime)
    total = np.zeros((ciphertexts, parameters.poly_modulus_degree), np.uint64)
    for count, seed in enumerate(seeds, 1):
        drawn = stream(seed, block)
        for row in total:
            row += below(drawn, parameters)  # at most 15 numbers below 2**60: no wrap
        if count % _AT_ONCE == 0:
            total %= prime
    total %= prime
    return total


def reduce_once(values: NDArray[np.uint64], modulus: np.uint64) -> None:
    """Subtract ``modulus`` in place where a value is not below it; what wraps around is larger than the value."""
    np.minimum(values, values - modulus, out=values)


def stream(seed: bytes, block: str) -> Randomness:
    """Return the stream of one seed's pads over one block."""
    return Randomness(seed, study="pad", round=0, plan_hash="", dataset_fingerprint="").child(block)


def below(source: Randomness, parameters: EncryptionParameters) -> NDArray[np.uint64]:
    """Return one polynomial of coefficients exactly uniform below the data prime; larger draws are repeated."""
    prime = parameters.data_prime
    mask = np.uint64((1 << prime.bit_length()) - 1)
    drawn = source.uniform_words(parameters.poly_modulus_degree) & mask
    while int(drawn.max()) >= prime:
        again = np.flatnonzero(drawn >= prime)
        drawn[again] = source.uniform_words(again.size) & mask
    return drawn
