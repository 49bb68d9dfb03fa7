"""Ciphertexts as they travel and add up: plain arrays of integers, without any library's parser.

A ciphertext is 2 N little-endian 64-bit coefficients below the data prime (two polynomials in number-theoretic form)
and nothing else: no header, no length, no compression. A sender can therefore only choose numbers, and the sum of
ciphertexts is the sum of their coefficients modulo the prime, exactly what SEAL's evaluator computes. All ciphertexts
of an update or of a sum travel in one body (:func:`pack`), whose length follows from the signed header.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from privacy.encryption.parameters import EncryptionParameters
from privacy.errors import InvalidInput

MAGIC = b"tessera-sum-1\n\0\0"


Buffer = bytes | bytearray | memoryview


def coefficients(ciphertext: Buffer, parameters: EncryptionParameters) -> NDArray[np.uint64]:
    """Check the structure of one ciphertext and return its coefficients.

    Args:
        ciphertext: exactly ``parameters.ciphertext_bytes`` bytes.
        parameters: the study's parameters.

    Returns:
        uint64[2, N], read-only, all below the data prime.

    Raises:
        InvalidInput: wrong length, a coefficient out of range, or a second polynomial that hides nothing.
    """
    if len(ciphertext) != parameters.ciphertext_bytes:
        raise InvalidInput(
            f"expected a ciphertext of {parameters.ciphertext_bytes} bytes, got {len(ciphertext)}; "
            "encrypt with the parameters of the proposal"
        )
    array = np.frombuffer(ciphertext, "<u8").reshape(2, parameters.poly_modulus_degree)
    if int(array.max()) >= parameters.data_prime:
        raise InvalidInput("a ciphertext coefficient is not below the data prime; encrypt it again")
    if not array[1].any():
        raise InvalidInput("the ciphertext is transparent: its second polynomial is zero; encrypt it again")
    return array


class RunningSum:
    """The sum of one block's ciphertexts, grown as they arrive; holds one array whatever the number of sites.

        >>> total = RunningSum(parameters, ciphertexts=57)
        >>> total.add(update)
        >>> total.to_ciphertexts()

    Args:
        parameters: the study's parameters; at most ``parameters.sites`` updates are added.
        ciphertexts: how many ciphertexts carry the block.
    """

    def __init__(self, parameters: EncryptionParameters, *, ciphertexts: int) -> None:
        if ciphertexts < 1:
            raise InvalidInput(f"expected at least one ciphertext, got {ciphertexts}")
        self.parameters = parameters
        self.contributors = 0
        self._total = np.zeros((ciphertexts, 2, parameters.poly_modulus_degree), np.uint64)

    def add(self, ciphertexts: Sequence[Buffer]) -> None:
        """Add one site's block; on any error the sum is as it was.

        Raises:
            InvalidInput: another number of ciphertexts, a malformed one, or more sites than the packing carries.
        """
        if len(ciphertexts) != len(self._total):
            raise InvalidInput(f"expected {len(self._total)} ciphertexts, got {len(ciphertexts)}")
        if self.contributors >= self.parameters.sites:
            raise InvalidInput(f"the packing carries {self.parameters.sites} sites, one more would overflow it")
        checked = [coefficients(ciphertext, self.parameters) for ciphertext in ciphertexts]
        prime = np.uint64(self.parameters.data_prime)
        for total, array in zip(self._total, checked, strict=True):
            total += array  # below 2**61: no wrap
            np.subtract(total, prime, out=total, where=total >= prime)
        self.contributors += 1

    def to_ciphertexts(self) -> list[bytes]:
        """Return the sum as it travels, one byte string per ciphertext."""
        return [chunk.astype("<u8", copy=False).tobytes() for chunk in self._total]

    def to_bytes(self) -> bytes:
        """Return the state for a checkpoint: the number of contributors and the coefficients."""
        return self.contributors.to_bytes(8, "little") + b"".join(self.to_ciphertexts())

    @classmethod
    def from_bytes(cls, data: bytes, parameters: EncryptionParameters) -> RunningSum:
        """Read what :meth:`to_bytes` returned.

        Raises:
            InvalidInput: the length does not fit or a coefficient is out of range.
        """
        ciphertexts, rest = divmod(len(data) - 8, parameters.ciphertext_bytes)
        if rest or ciphertexts < 1:
            raise InvalidInput("expected the bytes of a running sum; rebuild it from the stored ciphertexts")
        running = cls(parameters, ciphertexts=ciphertexts)
        running.contributors = int.from_bytes(data[:8], "little")
        array = np.frombuffer(data, "<u8", offset=8)
        if running.contributors > parameters.sites or int(array.max()) >= parameters.data_prime:
            raise InvalidInput("the running sum is out of range; rebuild it from the stored ciphertexts")
        running._total[:] = array.reshape(running._total.shape)
        return running


def body_bytes(counts: Mapping[str, int], parameters: EncryptionParameters) -> int:
    """Return the only length that a body with these ciphertexts per block can have."""
    return len(MAGIC) + sum(counts.values()) * parameters.ciphertext_bytes


def pack(blocks: Mapping[str, Sequence[bytes]]) -> bytes:
    """Return the body of an update or a sum: ``{block name: its ciphertexts}``."""
    return MAGIC + b"".join(ciphertext for name in sorted(blocks) for ciphertext in blocks[name])


def unpack(body: bytes, counts: Mapping[str, int], parameters: EncryptionParameters) -> dict[str, list[bytes]]:
    """Check a body against its signed shape and return each block's ciphertexts, every one structurally checked.

    Args:
        body: what arrived.
        counts: ciphertexts per block, from the signed header.
        parameters: the study's parameters.

    Raises:
        InvalidInput: wrong length, wrong magic, or a malformed ciphertext.
    """
    if not counts or min(counts.values()) < 1:
        raise InvalidInput("expected at least one block and one ciphertext in each")
    expected = body_bytes(counts, parameters)
    if len(body) != expected:
        raise InvalidInput(f"expected a body of {expected} bytes for the signed shape, got {len(body)}")
    if body[: len(MAGIC)] != MAGIC:
        raise InvalidInput("expected a body of encrypted blocks; this one starts with something else")
    blocks: dict[str, list[bytes]] = {}
    position = len(MAGIC)
    for name in sorted(counts):
        blocks[name] = []
        for _ in range(counts[name]):
            ciphertext = body[position : position + parameters.ciphertext_bytes]
            coefficients(ciphertext, parameters)
            blocks[name].append(ciphertext)
            position += parameters.ciphertext_bytes
    return blocks
