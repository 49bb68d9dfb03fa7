"""A letter opens for one writer and one place, or not at all."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasites.node.letters import BOXES, Place, open_letter, seal_letter
from privacy.errors import InvalidInput, Tampered, TesseraError
from privacy.identity import Identity

NORTH = Identity.from_seed(b"n" * 32)
PLACE = Place(owner="north", box="bundle", folder="lab", name="bundle.json")

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)
places = st.builds(Place, owner=names, box=st.sampled_from(BOXES), folder=names, name=names)


@given(places, st.binary(max_size=2000))
def test_opening_what_was_sealed_is_the_identity(place: Place, data: bytes) -> None:
    assert open_letter(seal_letter(NORTH, place, data), place, NORTH.public_key) == data


@given(st.binary(max_size=300), st.integers(0, 10_000), st.integers(1, 255))
def test_a_changed_byte_is_noticed(data: bytes, position: int, flip: int) -> None:
    letter = bytearray(seal_letter(NORTH, PLACE, data))
    letter[position % len(letter)] ^= flip
    with pytest.raises(TesseraError):
        open_letter(bytes(letter), PLACE, NORTH.public_key)


@pytest.mark.parametrize("change", [{"owner": "south"}, {"box": "outbox"}, {"folder": "rival"}, {"name": "b.json"}])
def test_a_letter_that_was_moved_does_not_open(change: dict[str, Any]) -> None:
    letter = seal_letter(NORTH, PLACE, b"keys")
    with pytest.raises(Tampered, match="another place"):
        open_letter(letter, dataclasses.replace(PLACE, **change), NORTH.public_key)


def test_another_writer_is_refused() -> None:
    with pytest.raises(Tampered, match="another key"):
        open_letter(seal_letter(Identity.generate(), PLACE, b"keys"), PLACE, NORTH.public_key)


@pytest.mark.parametrize(
    "change",
    [
        {"box": "attic"},
        {"owner": "a b"},
        {"owner": "../north"},
        {"folder": "no/slash"},
        {"folder": ""},
        {"name": ".."},
        {"name": ""},
        {"name": "a/b"},
        {"name": "x\0"},
    ],
)
def test_places_that_do_not_exist_are_invalid(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        dataclasses.replace(PLACE, **change)


def test_who_writes_follows_from_the_box() -> None:
    assert {box: dataclasses.replace(PLACE, box=box).writer for box in BOXES} == {
        "own": "north",
        "version": "north",
        "bundle": "north",
        "collection": "north",
        "outbox": "north",
        "request": "lab",
        "inbox": "lab",
    }
