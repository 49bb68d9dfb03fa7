"""A signed message and the bytes it speaks of, in one body: 4-byte big-endian length, JSON, then the bytes."""

from __future__ import annotations

from datasites.contract import Signed, dump, parse
from privacy.canonical import canonical_json
from privacy.errors import InvalidInput

_HEADER_LIMIT_BYTES = 1 << 20


def pack_envelope(signed: Signed, body: bytes) -> bytes:
    """Return one byte string that carries both."""
    header = canonical_json(dump(signed))
    return len(header).to_bytes(4, "big") + header + body


def unpack_envelope(data: bytes) -> tuple[Signed, bytes]:
    """Split what :func:`pack_envelope` made.

    Raises:
        InvalidInput: too short, a header above 1 MiB, or a header that is no signed message.
    """
    if len(data) < 4:
        raise InvalidInput(f"expected a signed header and a body, got {len(data)} bytes")
    length = int.from_bytes(data[:4], "big")
    if length > _HEADER_LIMIT_BYTES or length > len(data) - 4:
        raise InvalidInput(f"expected a header of at most {_HEADER_LIMIT_BYTES} bytes inside the body, got {length}")
    return parse(Signed, data[4 : 4 + length]), data[4 + length :]
