from __future__ import annotations

import itertools
import sqlite3
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from privacy.errors import InvalidInput, Refused, Tampered
from privacy.identity import Identity
from privacy.ledger.journal import Journal

IDENTITY = Identity.from_seed(bytes(32))
OTHER = Identity.from_seed(bytes([1]) * 32)


def journal(tmp_path: Path, name: str = "journal.sqlite") -> Journal:
    return Journal(tmp_path / name, IDENTITY)


def test_entries_come_back_in_order_with_their_chain(tmp_path: Path) -> None:
    j = journal(tmp_path)
    written = [j.append("round-charged", {"round": n, "share": 0.1 * n}) for n in range(1, 6)]
    assert list(j.entries()) == written
    assert [e.index for e in j.entries(since=3)] == [4, 5]
    assert all(b.previous_hash == a.hash and b.at > a.at for a, b in itertools.pairwise(written))
    j.verify()


def test_entries_of_one_kind_are_found(tmp_path: Path) -> None:
    j = journal(tmp_path)
    for n in range(4):
        j.append("even" if n % 2 == 0 else "odd", {"n": n})
    assert [e.body["n"] for e in j.entries(kind="odd")] == [1, 3]


def test_several_entries_are_written_together_or_not_at_all(tmp_path: Path) -> None:
    kept = journal(tmp_path)
    kept.append_all([("opened", {"round": 1}), ("decrypted", {"round": 1})])
    with pytest.raises(InvalidInput):
        kept.append_all([("opened", {"round": 2}), ("decrypted", {"round": float("nan")})])
    assert [(e.index, e.kind, e.body["round"]) for e in kept.entries()] == [(1, "opened", 1), (2, "decrypted", 1)]
    kept.verify()
    assert kept.head is kept.head and kept.head.index == 2  # signed once
    kept.head.check()
    kept.append("opened", {"round": 2})
    assert kept.head.index == 3
    kept.head.check()


def test_an_entry_is_neither_changed_nor_deleted_nor_replaced_through_sqlite(tmp_path: Path) -> None:
    j = journal(tmp_path)
    j.append("a", {})
    with sqlite3.connect(j.path) as connection:
        for statement in (
            "UPDATE entries SET kind = 'b'",
            "DELETE FROM entries",
            "INSERT OR REPLACE INTO entries SELECT number, 'b', body, at, previous_hash, hash, signature FROM entries",
        ):
            with pytest.raises(sqlite3.IntegrityError):
                connection.execute(statement)
    connection.close()
    assert [e.kind for e in j.entries()] == ["a"]


def test_a_clock_set_back_does_not_turn_the_journal_back(tmp_path: Path) -> None:
    times = iter([datetime(2026, 5, 1, tzinfo=UTC), datetime(2025, 1, 1, tzinfo=UTC), datetime(2025, 1, 1, tzinfo=UTC)])
    j = Journal(tmp_path / "j.sqlite", IDENTITY, clock=lambda: next(times))
    j.append("a", {})
    j.append("b", {})
    assert [e.at for e in j.entries()] == ["2026-05-01T00:00:00.000000Z", "2026-05-01T00:00:00.000001Z"]
    assert j.now() == datetime(2026, 5, 1, tzinfo=UTC) + timedelta(microseconds=1)
    j.verify()


def test_the_chain_of_another_owner_is_refused(tmp_path: Path) -> None:
    journal(tmp_path).append("a", {})
    with pytest.raises(InvalidInput, match="another owner"):
        Journal(tmp_path / "journal.sqlite", OTHER)


def test_without_an_identity_a_journal_is_read_only(tmp_path: Path) -> None:
    journal(tmp_path).append("a", {"n": 1})
    reader = Journal(tmp_path / "journal.sqlite", None)
    reader.verify()
    assert reader.public_key == IDENTITY.public_key
    with pytest.raises(Refused, match="reading only"):
        reader.append("b", {})
    with pytest.raises(InvalidInput, match="found none"):
        Journal(tmp_path / "missing.sqlite", None)


def test_a_file_that_is_no_journal_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.sqlite").write_bytes(b"hello" * 1000)
    with pytest.raises(InvalidInput, match="not a journal"):
        Journal(tmp_path / "x.sqlite", None)


def test_a_body_that_json_cannot_carry_leaves_nothing_behind(tmp_path: Path) -> None:
    j = journal(tmp_path)
    with pytest.raises(InvalidInput):
        j.append("a", {"x": float("nan")})
    assert j.head.index == 0
    j.append("a", {"x": 1.0})
    assert j.head.index == 1


def test_signed_heads_are_checked(tmp_path: Path) -> None:
    theirs = Journal(tmp_path / "theirs.sqlite", OTHER)
    theirs.append("a", {})
    head = theirs.head
    head.check()
    with pytest.raises(Tampered):
        replace(head, index=7).check()


def test_a_journal_restored_from_an_old_copy_is_noticed_by_a_peers_head(tmp_path: Path) -> None:
    j = journal(tmp_path)
    for n in range(5):
        j.append("a", {"n": n})
        if n == 2:
            j.close()
            backup = j.path.read_bytes()
    seen = j.head
    j.check_not_rolled_back([seen, seen.hash])
    j.close()
    j.path.write_bytes(backup)
    restored = journal(tmp_path)
    restored.verify()  # an old copy is consistent in itself
    with pytest.raises(Tampered, match="rolled back"):
        restored.check_not_rolled_back([seen])


def test_entries_are_found_by_study_and_round_also_those_that_come_later(tmp_path: Path) -> None:
    path, identity = tmp_path / "journal.sqlite", Identity.from_seed(b"j" * 32)
    journal, other = Journal(path, identity), Journal(path, identity)
    journal.append("attested", {"study": "pilot", "round": 1, "list_hash": "a", "heads": {}})
    journal.append("attested", {"study": "other", "round": 1, "list_hash": "b"})
    journal.append("round-plan", {"study": "pilot", "round": 1, "plan_hash": "p"})
    journal.append("attested", {"reason": "of no round"})
    assert journal.by_round("attested") == {
        ("pilot", 1): ({"list_hash": "a"},),
        ("other", 1): ({"list_hash": "b"},),
    }
    other.append("attested", {"study": "pilot", "round": 1, "list_hash": "c"})  # another process of this home
    assert journal.by_round("attested")[("pilot", 1)] == ({"list_hash": "a"}, {"list_hash": "c"})
    assert journal.by_round("round-plan") == {("pilot", 1): ({"plan_hash": "p"},)}
    assert journal.by_round("confirmed") == {}
    for one in (journal, other):
        one.close()
    assert journal.by_round("attested") == other.by_round("attested")
    for one in (journal, other):
        one.close()
