"""One body for all ciphertexts of an update or of a sum.

The body is a short magic line, then the ciphertexts of every block, blocks in alphabetical order. It has no lengths of
its own: the signed header says how many ciphertexts each block has, so the only possible length is known before the
first byte is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from privacy.ciphertexts import coefficients
from privacy.encryption_parameters import EncryptionParameters
from privacy.errors import InvalidInput

MAGIC = b"tessera-sum-1\n\0\0"


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
