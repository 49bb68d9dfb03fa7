"""Two names of studies whose hashes begin with the same 64 bits, as somebody can find in hours."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from datasites.node import places
from datasites.node.home import Home
from datasites.node.places import hashed_place, is_of_study
from privacy.canonical import sha256_hex


@pytest.fixture
def colliding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "sha256_hex", lambda data: "ab" * 8 + sha256_hex(data)[16:])


@pytest.mark.usefixtures("colliding")
def test_rounds_of_names_that_collide_in_64_bits_lie_apart(tmp_path: Path) -> None:
    home = Home(folder=tmp_path)
    assert home.round_folder("first", 1) != home.round_folder("second", 1)


@pytest.mark.usefixtures("colliding")
def test_a_folder_from_before_is_taken_over_by_the_study_in_it_and_by_no_other(tmp_path: Path) -> None:
    home = Home(folder=tmp_path)
    old = tmp_path / "rounds" / ("ab" * 8) / "1"
    old.mkdir(parents=True)
    (old / "plan.json").write_text(json.dumps({"study": "first", "round": 1}))
    assert not (home.round_folder("second", 1) / "plan.json").exists()
    assert (home.round_folder("first", 1) / "plan.json").exists()
    assert not old.exists()
    assert not (home.round_folder("second", 1) / "plan.json").exists()


@pytest.mark.parametrize("content", [b"", b"[1]", b"{}", b'{"study": 1}', b"\xff", b'{"study": {"x": 1}}'])
def test_a_file_that_names_no_study_is_nobodys(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(content)
    assert not is_of_study(path, "first", "study")
    assert not is_of_study(tmp_path / "missing.json", "first", "study")


def test_the_whole_hash_names_a_place(tmp_path: Path) -> None:
    place = hashed_place(tmp_path, "pilot", ".json", is_of=lambda _: True)
    assert place.name == f"{sha256_hex(b'pilot')}.json"
