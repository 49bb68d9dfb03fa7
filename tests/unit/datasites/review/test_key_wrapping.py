"""A reviewer's signing key under a password: what opens it, and that many people can sign at the same moment."""

from __future__ import annotations

import pytest

from datasites.review.key_wrapping import Hardness, unwrap, wrap
from privacy.errors import Refused

CHEAP = Hardness(passes=1, memory_kib=64, lanes=1)
SALT = bytes(range(16))


def test_only_the_password_and_the_name_open_a_key() -> None:
    wrapped = wrap(b"s" * 32, "ana", "right", SALT, CHEAP)
    assert unwrap(wrapped, "ana", "right", SALT, CHEAP) == b"s" * 32
    for name, password in (("ana", "wrong"), ("ben", "right")):
        with pytest.raises(Refused, match="do not go together"):
            unwrap(wrapped, name, password, SALT, CHEAP)


def test_a_key_that_was_wrapped_by_openssl_still_opens() -> None:
    """Wrapped by commit 4c19b18, which derived the key with cryptography's Argon2id."""
    wrapped = bytes.fromhex(
        "c897fbbfe7b1bd7e35a5d096a5af9df4f6ca66659312cb02ac5278c0d34cf92a0386855b60a0215e1ac13c0ad75367cef572173ffc346e84d42163e7"
    )
    assert unwrap(wrapped, "ana", "right", SALT, CHEAP) == b"s" * 32
