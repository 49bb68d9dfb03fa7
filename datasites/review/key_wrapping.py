"""A person's signing key under their password: Argon2id (RFC 9106), then ChaCha20-Poly1305 with the name as context."""

from __future__ import annotations

import os
from base64 import b64encode
from dataclasses import dataclass

from argon2 import PasswordHasher
from argon2.low_level import ARGON2_VERSION, Type, hash_secret_raw
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from privacy.errors import Refused
from privacy.sentences import say

_NONCE_BYTES = 12


@dataclass(frozen=True, kw_only=True)
class Hardness:
    """The cost of Argon2id: passes, memory in KiB, lanes (RFC 9106's second recommendation by default)."""

    passes: int = 3
    memory_kib: int = 65536
    lanes: int = 4


def hash_of_nothing(hasher: PasswordHasher) -> str:
    """Return a hash that no password has, and that takes as long to check as one that ``hasher`` makes.

    Salt and value are drawn, so nothing is derived here: opening the accounts costs no command a tenth of a second.
    """
    salt, value = (b64encode(os.urandom(n)).rstrip(b"=").decode() for n in (hasher.salt_len, hasher.hash_len))
    cost = f"m={hasher.memory_cost},t={hasher.time_cost},p={hasher.parallelism}"
    return f"$argon2id$v={ARGON2_VERSION}${cost}${salt}${value}"


def wrap(seed: bytes, name: str, password: str, salt: bytes, hardness: Hardness) -> bytes:
    """Return ``seed`` so that only ``password`` opens it again, and only as the key of ``name``."""
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + _cipher(password, salt, hardness).encrypt(nonce, seed, name.encode())


def unwrap(wrapped: bytes, name: str, password: str, salt: bytes, hardness: Hardness) -> bytes:
    """Return the seed again.

    Raises:
        Refused: the password does not open it, or there is nothing to open.
    """
    try:
        if not wrapped:
            raise InvalidTag
        return _cipher(password, salt, hardness).decrypt(wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:], name.encode())
    except InvalidTag as error:
        raise Refused(say("the name and the password do not go together")) from error


def _cipher(password: str, salt: bytes, cost: Hardness) -> ChaCha20Poly1305:
    # argon2-cffi, not cryptography: OpenSSL's Argon2id never returns when two threads derive a key at the same time.
    key = hash_secret_raw(
        b"reviewer-key\0" + password.encode(),
        salt,
        time_cost=cost.passes,
        memory_cost=cost.memory_kib,
        parallelism=cost.lanes,
        hash_len=32,
        type=Type.ID,
    )
    return ChaCha20Poly1305(key)
