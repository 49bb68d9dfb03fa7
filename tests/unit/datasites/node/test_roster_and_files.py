"""The roster names institutions once; files are written whole; envelopes carry header and body."""

from __future__ import annotations

import os
import stat
from dataclasses import replace

import pytest

from datasites.node.files import write_atomically
from datasites.node.home import Config, Home
from datasites.node.joining.changes import _change
from datasites.node.joining.documents import Edition
from datasites.node.process import keep_private
from datasites.node.roster import Roster
from datasites.study.proposal import Party
from datasites.study.signing import pack_envelope, seal, unpack_envelope
from privacy.errors import InvalidInput
from privacy.identity import Identity


def party(name: str) -> Party:
    return Party(name=name, institution=name.upper(), public_key=Identity.generate().public_key)


def test_a_roster_is_read_as_it_was_saved(tmp_path):
    roster = Roster(orchestrator=party("o"), keyholder=party("k"), sites=(party("a"), party("b")))
    roster.save(tmp_path / "roster.json")
    assert Roster.load(tmp_path / "roster.json") == roster
    assert roster.by_key(roster.sites[1].public_key) == roster.sites[1]
    assert roster.by_key("00" * 32) is None
    later = replace(roster, keyholder=party("k"))
    later.save(tmp_path / "roster.json")
    assert Roster.load(tmp_path / "roster.json") == later


def test_one_key_under_two_names_is_refused(tmp_path):
    twice = party("a")
    roster = Roster(
        orchestrator=party("o"),
        keyholder=party("k"),
        sites=(twice, Party(name="b", institution="B", public_key=twice.public_key)),
    )
    roster.save(tmp_path / "roster.json")
    with pytest.raises(InvalidInput, match="stands twice"):
        Roster.load(tmp_path / "roster.json")


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def full_disk(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("datasites.node.files.os.fsync", full_disk)
    with pytest.raises(OSError, match="space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_an_envelope_gives_back_header_and_body():
    signed = seal(Identity.generate(), "greeting", party("a"))
    assert unpack_envelope(pack_envelope(signed, b"\x00body")) == (signed, b"\x00body")


@pytest.mark.parametrize(
    "data", [b"", b"\x00\x00", b"\xff\xff\xff\xff{}", b"\x00\x00\x00\x02{}", b"\x00\x00\x00\x09{}"]
)
def test_a_malformed_envelope_is_refused(data):
    with pytest.raises(InvalidInput):
        unpack_envelope(data)


def test_a_home_keeps_its_identity_when_its_settings_change(tmp_path):
    settings = {"name": "a", "institution": "A", "role": "datasite"}
    first = Home.create(tmp_path / "a", Config(**settings, orchestrator_url="http://127.0.0.1:1")).party()
    again = Home.create(tmp_path / "a", Config(**settings, orchestrator_url="http://127.0.0.1:2"))
    assert again.party() == first
    assert again.config().orchestrator_url == "http://127.0.0.1:2"
    assert (tmp_path / "a" / "identity.pem").stat().st_mode & 0o077 == 0


def test_a_role_closes_its_folder_and_what_it_writes_to_other_users(tmp_path):
    folder = tmp_path / "home"
    folder.mkdir()
    folder.chmod(0o755)  # as a backup may have brought it back
    before = os.umask(0o022)
    try:
        keep_private(folder)
        (folder / "journal.sqlite").write_bytes(b"")
        (folder / "rounds").mkdir()
    finally:
        os.umask(before)
    assert [stat.S_IMODE(p.stat().st_mode) for p in (folder, folder / "journal.sqlite", folder / "rounds")] == [
        0o700,
        0o600,
        0o700,
    ]


def test_a_roster_that_adds_a_scientist_shows_them_to_those_who_confirm_it(tmp_path):
    made = Roster(orchestrator=party("o"), keyholder=party("k"), sites=(party("a"), party("b")))
    scientist = party("ada")
    edition = Edition(
        serial=2, previous="", made="2026-11-27T12:00:00+00:00", roster=replace(made, scientists=(scientist,))
    )
    change = _change(edition, made)
    assert change.joins == (scientist,) and change.title == "+ada"
    assert made.by_key(scientist.public_key) is None and edition.roster.by_key(scientist.public_key) is None
    assert edition.roster.known_by_key(scientist.public_key) == scientist == edition.roster.by_name("ada")
    edition.roster.save(tmp_path / "roster.json")
    assert Roster.load(tmp_path / "roster.json") == edition.roster
    with pytest.raises(InvalidInput, match="stands twice"):
        replace(made, scientists=(made.sites[0],)).check()
