"""Which 32 bytes are a public key: one spelling for each point, and no point of small order.

With a key of small order, one signature holds for every message (Ed25519), or everybody knows the shared secret
(X25519). Libraries accept some of them. Sources: RFC 7748 section 5, RFC 8032 section 5.1.3, and the points of small
order in Brendel et al., "The Provable Security of Ed25519", IEEE S&P 2021.

    >>> require_ed25519(bytes([1]) + bytes(31))
    Traceback (most recent call last):
    privacy.errors.InvalidInput: this Ed25519 public key is a point of small order, which anybody can sign for
"""

from __future__ import annotations

from privacy.errors import InvalidInput

_PRIME = 2**255 - 19
_SIGN = 1 << 255
_D = -121665 * pow(121666, -1, _PRIME) % _PRIME
_ORDER_8_Y = int.from_bytes(bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little")
_SMALL_Y = frozenset({0, 1, _PRIME - 1, _ORDER_8_Y, _PRIME - _ORDER_8_Y})
_SMALL_U = frozenset(
    {
        0,
        1,
        _PRIME - 1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
    }
)


def require_ed25519(raw: bytes) -> None:
    """Check that 32 bytes are the one spelling of a point of the curve edwards25519, not of small order.

    Raises:
        InvalidInput: they are not.
    """
    value = int.from_bytes(raw, "little")
    y = value & (_SIGN - 1)
    if len(raw) != 32 or y >= _PRIME or not _has_x(y):
        raise InvalidInput("expected 32 bytes that are an Ed25519 public key, in its one spelling")
    if y in _SMALL_Y:
        raise InvalidInput("this Ed25519 public key is a point of small order, which anybody can sign for")


def require_x25519(raw: bytes) -> None:
    """Check that 32 bytes are the one spelling of an X25519 public key, not of small order.

    Raises:
        InvalidInput: they are not.
    """
    u = int.from_bytes(raw, "little")
    if len(raw) != 32 or u >= _PRIME:
        raise InvalidInput("expected 32 bytes that are an X25519 public key, in its one spelling")
    if u in _SMALL_U:
        raise InvalidInput("this X25519 public key is a point of small order, whose secrets everybody knows")


def _has_x(y: int) -> bool:
    """Return whether a point of the curve has this y: whether (y^2 - 1) / (d y^2 + 1) is a square."""
    square = (y * y - 1) * pow(_D * y * y + 1, -1, _PRIME) % _PRIME
    return square == 0 or pow(square, (_PRIME - 1) // 2, _PRIME) == 1
