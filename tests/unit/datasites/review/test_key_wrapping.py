"""A reviewer's signing key under a password: what opens it, and that many people can sign at the same moment."""

from __future__ import annotations

import argon2
import pytest

from datasites.review.accounts import AccountStore
from datasites.review.key_wrapping import Hardness, hash_of_nothing, unwrap, wrap
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


def test_the_hash_of_nothing_is_checked_like_any_other_and_holds_for_no_password() -> None:
    hasher = argon2.PasswordHasher(CHEAP.passes, CHEAP.memory_kib, CHEAP.lanes)
    nothing = hash_of_nothing(hasher)
    assert argon2.extract_parameters(nothing) == argon2.extract_parameters(hasher.hash("a password"))
    for password in ("", "a password", nothing):
        with pytest.raises(argon2.exceptions.VerifyMismatchError):  # and not that it is no hash
            hasher.verify(nothing, password)
    assert hash_of_nothing(hasher) != nothing


def test_opening_the_accounts_derives_nothing(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(argon2.PasswordHasher, "hash", lambda *_, **__: pytest.fail("a tenth of a second"))
    AccountStore(tmp_path / "accounts.sqlite").close()
