"""A document that was checked is not checked again, and nothing that differs from it by a byte counts as the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from datasites.study import signing
from datasites.study.messages import LostRound, Refusal, SumResult
from datasites.study.signing import Signed, open_sealed, seal
from privacy.errors import InvalidInput, Tampered
from privacy.identity import Identity

AUTHOR, OTHER = Identity.from_seed(b"a" * 32), Identity.from_seed(b"b" * 32)
LOST = LostRound(study="pilot", proposal_hash="0" * 64, round=1, reason="a test")


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kinds of the signatures that are really checked."""
    seen: list[str] = []
    real = signing.verify

    def counted(public_key: str, kind: str, *more: Any) -> None:
        seen.append(kind)
        real(public_key, kind, *more)

    monkeypatch.setattr(signing, "verify", counted)
    monkeypatch.setattr(signing, "_CHECKED", signing._Checked(10_000))
    return seen


def opened(signed: Signed, kind: str = "round-lost", key: str = AUTHOR.public_key) -> LostRound:
    return open_sealed(signed, kind, key, LostRound)


def test_the_same_document_is_checked_once(checks: list[str]) -> None:
    signed = seal(AUTHOR, "round-lost", LOST)
    again = Signed(**{**vars(signed), "payload": dict(signed.payload)})
    assert opened(signed) == opened(again) == LOST
    assert checks == ["round-lost"]
    turned = replace(signed, payload=dict(reversed(signed.payload.items())))
    assert opened(turned) == LOST  # the same document, which was found again at the price of another check


@pytest.mark.parametrize("value", [True, 1.0, "1", 2, None], ids=["true", "float", "text", "two", "null"])
def test_a_payload_that_python_calls_equal_is_another_document(checks: list[str], value: Any) -> None:
    signed = seal(AUTHOR, "round-lost", LOST)
    opened(signed)
    with pytest.raises((Tampered, InvalidInput)):
        opened(replace(signed, payload={**signed.payload, "round": value}))
    assert len(checks) == 2


def test_another_signature_key_kind_or_version_is_checked(checks: list[str]) -> None:
    signed = seal(AUTHOR, "round-lost", LOST)
    opened(signed)
    for changed, kind, key in (
        (replace(signed, signature=seal(OTHER, "round-lost", LOST).signature), "round-lost", AUTHOR.public_key),
        (replace(signed, public_key=OTHER.public_key), "round-lost", OTHER.public_key),
        (replace(signed, kind="refusal"), "refusal", AUTHOR.public_key),
        (replace(signed, canonical=1), "round-lost", AUTHOR.public_key),
    ):
        with pytest.raises(Tampered):
            opened(changed, kind, key)
    assert len(checks) == 5
    for wrong in (Refusal, SumResult):
        with pytest.raises(InvalidInput):
            open_sealed(signed, "round-lost", AUTHOR.public_key, wrong)
    with pytest.raises(InvalidInput, match="version 2"):
        open_sealed(replace(signed, canonical=1), "round-lost", AUTHOR.public_key, LostRound, since=2)


def test_what_was_refused_is_refused_again(checks: list[str]) -> None:
    forged = replace(seal(AUTHOR, "round-lost", LOST), signature=seal(OTHER, "round-lost", LOST).signature)
    for _ in range(2):
        with pytest.raises(Tampered):
            opened(forged)
    assert len(checks) == 2


def test_the_oldest_ones_make_room(checks: list[str]) -> None:
    long = [seal(AUTHOR, "round-lost", replace(LOST, reason=letter * 4_000)) for letter in "abc"]
    for signed in (*long, long[2], long[1], long[0]):
        opened(signed)
    assert len(checks) == 4  # of three, two have room
