"""CKKS by TenSEAL: round keys, encryption at the sites, decryption of sums at the keyholder.

The only module that imports TenSEAL. No byte from another party reaches its parsers: public keys and ciphertexts travel
as fixed-length arrays of integers (:mod:`privacy.encryption.ciphertexts`), are checked, and are framed here for the
library.

    >>> pair = generate_round_key(parameters)
    >>> updates = [encrypt(pair.public, parameters, integers) for integers in per_site]
    >>> total = RunningSum(parameters, ciphertexts=len(updates[0]))
    >>> for update in updates: total.add(update)
    >>> decrypt_sum(pair.secret, parameters, total.to_ciphertexts(), values=n, contributors=3)

What CKKS decryption returns carries ciphertext noise, and noise plus ciphertext gives the secret key away (Li and
Micciancio, "On the Security of Homomorphic Encryption on Approximate Numbers", EUROCRYPT 2021). So raw slots never
leave :func:`decrypt_sum`: every one must lie within :data:`~privacy.encryption.parameters.SLOT_TOLERANCE` of an integer
that an honest sum can reach, or nothing is returned.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import tenseal.sealapi as seal
import zstandard
from numpy.typing import NDArray

from privacy.encryption import round_keys
from privacy.encryption.ciphertexts import Buffer, coefficients
from privacy.encryption.packing import pack, unpack_fields
from privacy.encryption.parameters import SLOT_TOLERANCE, EncryptionParameters, check_security
from privacy.errors import InvalidInput, UnsafeSum

_HEADER = bytes.fromhex("5ea11004030000 00")  # magic, header length 16, SEAL 4.3, no compression, reserved
_LARGEST_OBJECT = 1 << 22


@dataclass(frozen=True, kw_only=True)
class RoundKeyPair:
    """A fresh CKKS key pair: ``secret`` stays with the keyholder, ``public`` goes to every site."""

    secret: bytes = field(repr=False)
    public: bytes = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class BlockSum:
    """One block's sum: one byte string per chunk, its number of values, and how many sites' updates are in it."""

    ciphertexts: Sequence[Buffer]
    values: int
    contributors: int


def generate_round_key(parameters: EncryptionParameters, random_part: NDArray[np.uint64] | None = None) -> RoundKeyPair:
    """Return a new key pair for one round, drawn from the operating system's generator by SEAL.

    Args:
        parameters: the study's parameters.
        random_part: the public key's second polynomial, of :func:`privacy.encryption.round_keys.expanded`; None for the
            one that SEAL draws, as in studies from before it followed from the proposal.

    Raises:
        Refused: the parameters are insecure or unsafe.
    """
    context = _context(parameters)
    generator = seal.KeyGenerator(context)
    drawn = seal.PublicKey()
    generator.create_public_key(drawn)
    secret = _save(generator.secret_key())
    public = _save(drawn)[-public_key_bytes(parameters) :]
    if random_part is not None:
        public = round_keys.bound_public(public, published_secret(secret, parameters), random_part, parameters)
    return RoundKeyPair(secret=secret, public=public)


def public_key_bytes(parameters: EncryptionParameters) -> int:
    """Return the length of a public key as it travels: two polynomials modulo both primes."""
    return 2 * len(parameters.primes) * parameters.poly_modulus_degree * 8


def encrypt(public: bytes, parameters: EncryptionParameters, integers: NDArray[np.int64]) -> list[bytes]:
    """Pack and encrypt quantised values.

    Args:
        public: the round's public key.
        parameters: the study's parameters.
        integers: int64[n] in -levels..levels.

    Returns:
        ``parameters.ciphertexts_for(n)`` ciphertexts of ``parameters.ciphertext_bytes`` each, freshly randomised.

    Raises:
        InvalidInput: a value is out of range or the key is malformed.
        Refused: the parameters are insecure or unsafe.
    """
    encryptor, encoder = _encryptor(public, parameters), _encoder(parameters)
    plaintext, ciphertext = seal.Plaintext(), seal.Ciphertext()
    encrypted = []
    with _scratch_path() as path:
        for slots in pack(integers, parameters):
            encoder.encode(slots.tolist(), parameters.scale, plaintext)
            encryptor.encrypt(plaintext, ciphertext)
            encrypted.append(_saved(ciphertext, path)[-parameters.ciphertext_bytes :])
    return encrypted


def decrypt_sum(
    secret: bytes,
    parameters: EncryptionParameters,
    ciphertexts: Sequence[Buffer],
    *,
    values: int,
    contributors: int,
) -> NDArray[np.int64]:
    """Decrypt one block's sum, check every slot and every field, and return exact integers.

    Args:
        secret: the round's secret key.
        parameters: the study's parameters.
        ciphertexts: the sum, one byte string per chunk.
        values: length of the block.
        contributors: how many sites' updates are in the sum; fields beyond their reach are refused.

    Returns:
        int64[values], each within ``contributors * levels``.

    Raises:
        UnsafeSum: a slot is no honest sum. The error says nothing about the values; destroy the key.
        InvalidInput: the shape is wrong or a ciphertext is malformed.
        Refused: the parameters are insecure or unsafe.
    """
    total = BlockSum(ciphertexts=ciphertexts, values=values, contributors=contributors)
    return decrypt_sums(secret, parameters, [total])[0]


def decrypt_sums(secret: bytes, parameters: EncryptionParameters, sums: Sequence[BlockSum]) -> list[NDArray[np.int64]]:
    """Decrypt the sums of several blocks with one key; see :func:`decrypt_sum`.

    Raises:
        UnsafeSum: a slot of one of them is no honest sum; then none is returned.
        InvalidInput: a shape is wrong or a ciphertext is malformed.
        Refused: the parameters are insecure or unsafe.
    """
    checked = []
    for total in sums:
        if not 1 <= total.contributors <= parameters.sites:
            raise InvalidInput(f"expected 1 to {parameters.sites} contributors, got {total.contributors}")
        expected = parameters.ciphertexts_for(total.values)
        if len(total.ciphertexts) != expected:
            raise InvalidInput(
                f"expected {expected} ciphertexts for {total.values} values, got {len(total.ciphertexts)}"
            )
        checked += [coefficients(ciphertext, parameters) for ciphertext in total.ciphertexts]
    slots = _decrypt(secret, parameters, checked)
    ends = np.cumsum([len(total.ciphertexts) for total in sums])[:-1]
    return [
        _checked_integers(some, parameters, total.values, total.contributors)
        for some, total in zip(np.split(slots, ends), sums, strict=True)
    ]


def secret_key_bytes(parameters: EncryptionParameters) -> int:
    """Return the length of a published secret key: one polynomial modulo both primes."""
    return len(parameters.primes) * parameters.poly_modulus_degree * 8


def published_secret(secret: bytes, parameters: EncryptionParameters) -> bytes:
    """Return a round's secret key as it is published once its one sum is answered: plain coefficients."""
    return secret[-secret_key_bytes(parameters) :]


def secret_of(published: Buffer, public: bytes, parameters: EncryptionParameters) -> bytes:
    """Return the secret key that :func:`decrypt_sum` takes, after checking that it is the public key's.

    Args:
        published: of :func:`published_secret`, from another party.
        public: the round's public key.
        parameters: the study's parameters.

    Raises:
        InvalidInput: as :func:`privacy.encryption.round_keys.require_opening`.
    """
    round_keys.require_opening(published, public, parameters)
    return _secret_key_prefix(parameters) + bytes(published)


def _decrypt(
    secret: bytes, parameters: EncryptionParameters, ciphertexts: Sequence[NDArray[np.uint64]]
) -> NDArray[np.complex128]:
    """Return raw slots complex128[chunks, N/2]; they carry the key's noise and must not leave this module."""
    context = _context(parameters)
    key = _load(seal.SecretKey(), context, secret)
    decryptor, encoder = seal.Decryptor(context, key), _encoder(parameters)
    frame = _framed(_ciphertext_prefix(parameters), parameters.ciphertext_bytes)
    plaintext, ciphertext = seal.Plaintext(), seal.Ciphertext()
    slots = np.empty((len(ciphertexts), parameters.slots), np.complex128)
    with _scratch_path() as path, Path(path).open("wb") as file:
        for row, array in zip(slots, ciphertexts, strict=True):
            file.seek(0)  # all have one length: nothing of the one before is left
            file.write(frame)
            file.write(array.data)
            file.flush()
            ciphertext.load(context, path)
            decryptor.decrypt(ciphertext, plaintext)
            row[:] = np.fromiter(encoder.decode_complex(plaintext), np.complex128, parameters.slots)
    return slots


def _checked_integers(
    slots: NDArray[np.complex128], parameters: EncryptionParameters, values: int, contributors: int
) -> NDArray[np.int64]:
    """Return the integers of an honest sum, or refuse without saying which slot or by how much."""
    parts = slots.view(np.float64)
    rounded = np.rint(parts)
    honest = np.abs(parts - rounded) < SLOT_TOLERANCE  # false for NaN as well
    if not (honest & (np.abs(rounded) <= parameters.largest_slot)).all():
        raise UnsafeSum("the sum is not one of honest updates: the round is refused and its key destroyed")
    fields = unpack_fields(rounded.view(np.complex128), parameters)
    reach = contributors * parameters.levels
    if int(fields.max()) > reach or int(fields.min()) < -reach or fields[values:].any():
        raise UnsafeSum("the sum is not one of honest updates: the round is refused and its key destroyed")
    return fields[:values]


@lru_cache(maxsize=2)
def _encryptor(public: bytes, parameters: EncryptionParameters) -> Any:
    """Return what encrypts under a public key; it is the same for every block of an update."""
    return seal.Encryptor(_context(parameters), _public_key(public, parameters))


def _public_key(public: bytes, parameters: EncryptionParameters) -> Any:
    expected = public_key_bytes(parameters)
    if len(public) != expected:
        raise InvalidInput(f"expected a public key of {expected} bytes, got {len(public)}")
    shape = (2, len(parameters.primes), parameters.poly_modulus_degree)
    array = np.frombuffer(public, "<u8").reshape(shape)
    for index, prime in enumerate(parameters.primes):
        if int(array[:, index].max()) >= prime or not array[:, index].any(axis=1).all():
            raise InvalidInput("the public key's coefficients are out of range; ask the keyholder for it again")
    return _load(seal.PublicKey(), _context(parameters), _public_key_prefix(parameters) + public)


@lru_cache(maxsize=8)
def _context(parameters: EncryptionParameters) -> Any:
    check_security(parameters)
    ring = seal.EncryptionParameters(seal.SCHEME_TYPE.CKKS)
    ring.set_poly_modulus_degree(parameters.poly_modulus_degree)
    moduli = seal.CoeffModulus.Create(parameters.poly_modulus_degree, list(parameters.coeff_mod_bits))
    ring.set_coeff_modulus(moduli)
    context = seal.SEALContext(ring, True, seal.SEC_LEVEL_TYPE.TC128)
    if tuple(modulus.value() for modulus in moduli) != parameters.primes or not context.parameters_set():
        raise InvalidInput("the installed SEAL makes other primes than expected; install the pinned tenseal")
    return context


@lru_cache(maxsize=8)
def _encoder(parameters: EncryptionParameters) -> Any:
    """Return the encoder, whose roots of unity are computed once; it keeps nothing of what it encodes."""
    return seal.CKKSEncoder(_context(parameters))


@lru_cache(maxsize=8)
def _ciphertext_prefix(parameters: EncryptionParameters) -> bytes:
    """Return what SEAL writes before a ciphertext's coefficients: parameter hash, sizes, scale, array header."""
    context = _context(parameters)
    plaintext, ciphertext, public = seal.Plaintext(), seal.Ciphertext(), seal.PublicKey()
    seal.KeyGenerator(context).create_public_key(public)
    _encoder(parameters).encode([0j], parameters.scale, plaintext)
    seal.Encryptor(context, public).encrypt(plaintext, ciphertext)
    return _save(ciphertext)[: -parameters.ciphertext_bytes]


@lru_cache(maxsize=8)
def _public_key_prefix(parameters: EncryptionParameters) -> bytes:
    public = seal.PublicKey()
    seal.KeyGenerator(_context(parameters)).create_public_key(public)
    return _save(public)[: -public_key_bytes(parameters)]


@lru_cache(maxsize=8)
def _secret_key_prefix(parameters: EncryptionParameters) -> bytes:
    secret = _save(seal.KeyGenerator(_context(parameters)).secret_key())
    return secret[: -secret_key_bytes(parameters)]


def _save(value: Any) -> bytes:
    """Return a SEAL object's own bytes, without SEAL's header and compression."""
    with _scratch_path() as path:
        return _saved(value, path)


def _saved(value: Any, path: str) -> bytes:
    value.save(path)  # from the beginning, whatever was there
    raw = Path(path).read_bytes()
    return zstandard.ZstdDecompressor().decompress(raw[16:], max_output_size=_LARGEST_OBJECT)


def _load(empty: Any, context: Any, body: bytes) -> Any:
    """Fill a SEAL object from its own bytes, framed as uncompressed."""
    with _scratch_path() as path:
        Path(path).write_bytes(_framed(body))
        empty.load(context, path)
    return empty


def _framed(body: bytes, more_bytes: int = 0) -> bytes:
    """Return SEAL's header and ``body``, after which ``more_bytes`` are to follow."""
    return _HEADER + (16 + len(body) + more_bytes).to_bytes(8, "little") + body


@contextmanager
def _scratch_path() -> Iterator[str]:
    """Yield a path that SEAL may write to and read from: memory on Linux, a private temporary folder elsewhere."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("seal-object")
        try:
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield str(Path(folder) / "object")
