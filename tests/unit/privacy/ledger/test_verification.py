from __future__ import annotations

import base64
import contextlib
import json
import random
import shutil
import sqlite3
import string
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from privacy.identity import Identity
from privacy.ledger import verification
from privacy.ledger.costs import StudyCost, gaussian_cost
from privacy.ledger.head_file import head_file
from privacy.ledger.journal import Journal
from privacy.ledger.ledger import Ledger, case_hash
from privacy.ledger.links import problems
from privacy.ledger.verification import Verification, heads_seen_by, verify_folder

IDENTITY = Identity.from_seed(bytes(32))
PEER = Identity.from_seed(bytes([7]) * 32)
COLUMNS = ("number", "kind", "body", "at", "previous_hash", "hash", "signature")
PROPOSAL = "ab" * 32


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small honest folder: eight ledger entries, three journal entries, all checkpointed into the main file."""
    folder = tmp_path_factory.mktemp("whole")
    ledger = Ledger(folder / "ledger.sqlite", IDENTITY)
    population = ledger.register_dataset("brca", 1, [case_hash(b"k" * 32, "a"), case_hash(b"k" * 32, "b")])
    ledger.set_cap(population, epsilon=9.0, delta=1e-4, by="B. Steward", reason="board")
    plan = StudyCost(rounds=4, round=gaussian_cost(9.0))
    ledger.reserve(population, study="pilot", proposal_hash=PROPOSAL, plan=plan)
    for number in (1, 2):
        ledger.charge(PROPOSAL, number)
    ledger.release_reservation(PROPOSAL, by="daemon", reason="late", round_number=3)
    ledger.release(population, name="count", cost=gaussian_cost(30.0), by="daemon", reason="published")
    ledger.import_spend(population, name="survey", cost=gaussian_cost(40.0), by="B. Steward", reason="2019")
    journal = Journal(folder / "journal.sqlite", IDENTITY)
    journal.append("round-charged", {"round": 1})
    journal.append("attested", {"heads": {"hospital-b": {"ledger": ledger.head.hash}}})
    journal.append("attested", {"heads": {"hospital-a": {"ledger": ledger.head.hash, "journal": journal.head.hash}}})
    for chain in (ledger, journal):
        chain.close()
        with contextlib.closing(sqlite3.connect(chain.path)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            connection.execute("PRAGMA journal_mode = DELETE")
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "folder"))


def edit(folder: Path, *statements: tuple[str, tuple[object, ...]], file: str = "ledger.sqlite") -> None:
    """Edit a chain as somebody who owns the file could: without its triggers, putting them back afterwards."""
    with contextlib.closing(sqlite3.connect(folder / file)) as connection:
        triggers = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        for sql, values in statements:
            connection.execute(sql, values)
        for _, sql in triggers:
            connection.execute(sql)
        connection.commit()


def messages(result: Verification) -> str:
    return "; ".join(finding.message for finding in result.findings)


def test_an_honest_folder_holds(folder: Path) -> None:
    result = verify_folder(folder, public_key=IDENTITY.public_key, name="hospital-a")
    assert result.holds
    assert {chain.file: chain.entries for chain in result.chains} == {"journal.sqlite": 3, "ledger.sqlite": 8}
    assert result.heads_compared == 2
    assert not (folder / "ledger.sqlite-wal").exists()  # looking changed nothing


def test_a_folder_in_use_holds(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite", IDENTITY)
    ledger.register_dataset("brca", 1, ["00" * 16])
    assert verify_folder(tmp_path).holds  # its entries lie in the write-ahead log


def test_an_entry_added_during_the_check_is_no_finding(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(folder / "journal.sqlite", IDENTITY)

    def copy_while_the_role_works(path: Path, scratch: Path) -> Path:
        copied = copy(path, scratch)
        journal.append("meanwhile", {"file": path.name})
        return copied

    copy = verification._copy
    monkeypatch.setattr(verification, "_copy", copy_while_the_role_works)
    assert verify_folder(folder).findings == ()
    journal.close()


def test_an_empty_folder_and_another_owner_do_not_hold(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "found neither" in messages(verify_folder(tmp_path / "empty"))
    assert "expected the chain of" in messages(verify_folder(folder, public_key=PEER.public_key))


def _single_byte_edits(text: str) -> Iterator[str]:
    """Each position once: another digit, another letter, another case, another bit."""
    for position, character in enumerate(text):
        other = chr(ord(character) ^ 1) if character not in "\x7f" else "a"
        yield text[:position] + other + text[position + 1 :]


def test_every_single_byte_edit_of_every_field_is_detected(folder: Path) -> None:
    """Rows are checked as SQLite returns them; the same edits through a file follow in the next tests."""
    with contextlib.closing(sqlite3.connect(folder / "ledger.sqlite")) as connection:
        rows = connection.execute("SELECT * FROM entries ORDER BY number").fetchall()
    assert list(problems(rows, "ledger", IDENTITY.public_key)) == []
    tried = 0
    for index in (1, 4, 7):  # a cap, a charge and an import; every byte of every column
        row = rows[index]
        for column in range(len(COLUMNS)):
            values = [row[0] + 1, row[0] - 1, -row[0]] if column == 0 else _single_byte_edits(row[column])
            for value in values:
                edited = [*rows[:index], (*row[:column], value, *row[column + 1 :]), *rows[index + 1 :]]
                tried += 1
                assert next(problems(edited, "ledger", IDENTITY.public_key), None), (index, column, value)
    assert tried > 2000


def test_every_byte_of_the_file_counts_or_changes_no_entry(folder: Path) -> None:
    """Flip bits anywhere in the file: either it is found, or every entry still reads exactly as it was written."""
    path = folder / "ledger.sqlite"
    original = path.read_bytes()
    before = _rows(path)
    generator = random.Random(5)  # noqa: S311, a reproducible choice of positions
    found = 0
    for _ in range(200):
        position = generator.randrange(len(original))
        flipped = bytearray(original)
        flipped[position] ^= 1 << generator.randrange(8)
        path.write_bytes(flipped)
        if verify_folder(folder, public_key=IDENTITY.public_key).holds:
            assert _rows(path) == before, position
        else:
            found += 1
    assert found > 40


def _rows(path: Path) -> list[tuple[object, ...]]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT * FROM entries ORDER BY number").fetchall()


RENUMBER = "UPDATE entries SET number = ? WHERE number = ?"
SWAP = [(RENUMBER, (100, 4)), (RENUMBER, (4, 5)), (RENUMBER, (5, 100))]
COPY = "INSERT INTO entries SELECT 9, kind, body, at, previous_hash, 'x' || substr(hash, 2), signature FROM entries"


@pytest.mark.parametrize(
    "statements",
    [
        [("DELETE FROM entries WHERE number = 5", ())],
        [("DELETE FROM entries WHERE number = 1", ())],
        [("DELETE FROM entries WHERE number = 5", ()), *[(RENUMBER, (n - 1, n)) for n in (6, 7, 8)]],
        SWAP,
        [(f"{COPY} WHERE number = 5", ())],
        [("UPDATE entries SET body = replace(body, '9', '99') WHERE kind = 'cap'", ())],
        [("UPDATE entries SET body = body || ' ' WHERE number = 3", ())],
        [("DELETE FROM entries WHERE number = 8", ())],
        [("DELETE FROM entries", ())],
        [("UPDATE owner SET public_key = ?", (PEER.public_key,))],
    ],
    ids=[
        "delete",
        "delete first",
        "delete and renumber",
        "reorder",
        "insert",
        "raise a cap",
        "pad",
        "cut",
        "empty",
        "owner",
    ],
)
def test_deletion_insertion_and_reorder_are_detected(
    folder: Path, statements: list[tuple[str, tuple[object, ...]]]
) -> None:
    edit(folder, *statements)
    assert not verify_folder(folder).holds


def test_a_dropped_trigger_is_detected(folder: Path) -> None:
    with contextlib.closing(sqlite3.connect(folder / "ledger.sqlite")) as connection:
        connection.execute("DROP TRIGGER entries_are_never_deleted")
    assert "triggers" in messages(verify_folder(folder))


def test_a_signature_in_another_spelling_is_detected(folder: Path) -> None:
    """The last base64 digit before the padding carries four bits that decoding ignores."""
    signature = str(_rows(folder / "ledger.sqlite")[2][6])
    digits = string.ascii_uppercase + string.ascii_lowercase + string.digits + "+/"
    spelt = signature[:-3] + digits[digits.index(signature[-3]) ^ 1] + "=="
    assert base64.b64decode(spelt, validate=True) == base64.b64decode(signature)
    edit(folder, ("UPDATE entries SET signature = ? WHERE number = 3", (spelt,)))
    assert not verify_folder(folder).holds


def test_a_cut_off_tail_is_detected_by_the_head_file_and_by_a_peers_head(folder: Path) -> None:
    seen = str(_rows(folder / "ledger.sqlite")[7][5])
    edit(folder, ("DELETE FROM entries WHERE number > 6", ()))
    assert "tail is cut off" in messages(verify_folder(folder))
    head_file(folder / "ledger.sqlite").unlink()
    assert "head file is missing" in messages(verify_folder(folder))
    old = Ledger(folder / "ledger.sqlite", IDENTITY)  # whoever holds the key can forge the head file as well
    old._chain._write_head_file(old.head)
    old.close()
    (folder / "journal.sqlite").unlink()
    assert verify_folder(folder).holds
    assert "rolled back" in messages(verify_folder(folder, heads=[seen]))


def test_heads_that_a_peer_remembers_are_found_in_its_folder(folder: Path, tmp_path: Path) -> None:
    ledger = Ledger(folder / "ledger.sqlite", IDENTITY)
    peer = Journal(tmp_path / "peer" / "journal.sqlite", PEER)
    peer.append("attested", {"heads": {"hospital-a": {"ledger": ledger.head.hash}}})
    later = {"hospital-a": {"journal": "cd" * 32, "ledger": ledger.head.hash}, "hospital-b": {"ledger": "ef" * 32}}
    peer.append("attested", {"heads": later})
    heads = heads_seen_by(tmp_path / "peer", "hospital-a")
    assert heads == (ledger.head.hash, "cd" * 32)
    assert verify_folder(folder, heads=heads[:1]).holds
    assert "cdcdcdcdcdcd" in messages(verify_folder(folder, heads=heads))


def test_a_torn_last_write_is_detected_wherever_it_tore(folder: Path) -> None:
    path = folder / "ledger.sqlite"
    ledger = Ledger(path, IDENTITY)
    ledger.charge(PROPOSAL, 4)
    log = path.with_name(path.name + "-wal")
    database, journal = path.read_bytes(), log.read_bytes()  # before closing, which would checkpoint
    ledger.close()
    shutil.rmtree(folder / "journal.sqlite", ignore_errors=True)
    for extra in ("-wal", "-shm"):
        path.with_name(path.name + extra).unlink(missing_ok=True)
    for length in [*range(0, len(journal), 997), len(journal) - 1]:
        path.write_bytes(database)
        log.write_bytes(journal[:length])
        assert "tail is cut off" in messages(verify_folder(folder)), length
    log.write_bytes(journal)
    assert verify_folder(folder).holds
    log.unlink()
    for length in range(0, len(database), 1531):
        path.write_bytes(database[:length])
        assert not verify_folder(folder).holds, length


@pytest.mark.parametrize(
    ("kind", "change", "expected"),
    [
        ("charge", {"round": 1}, "charged or freed before"),
        ("charge", {"round": 4, "cost": None}, "cannot follow"),
        ("reserve", {"proposal_hash": "cd" * 32}, "passes the cap"),
    ],
)
def test_a_signed_entry_that_breaks_the_books_is_detected(
    folder: Path, kind: str, change: dict[str, object], expected: str
) -> None:
    ledger = Ledger(folder / "ledger.sqlite", IDENTITY)
    body = next(entry.body for entry in ledger.entries(kind=kind)) | change
    if kind == "reserve":
        body = json.loads(json.dumps(body).replace('"rounds": 4', '"rounds": 4000'))
    ledger._chain.append(kind, body)
    ledger.close()
    assert expected in messages(verify_folder(folder))


def _forget_the_owner(folder: Path) -> None:
    edit(folder, ("DELETE FROM owner", ()))


def _no_database(folder: Path) -> None:
    (folder / "ledger.sqlite").write_bytes(b"not a database" * 100)


def _broken_head_file(folder: Path) -> None:
    head_file(folder / "ledger.sqlite").write_text("[]")


def _head_file_of_the_journal(folder: Path) -> None:
    shutil.copyfile(head_file(folder / "journal.sqlite"), head_file(folder / "ledger.sqlite"))


@pytest.mark.parametrize("damage", [_forget_the_owner, _no_database, _broken_head_file, _head_file_of_the_journal])
def test_damage_is_a_finding_and_not_a_crash(folder: Path, damage: Callable[[Path], None]) -> None:
    damage(folder)
    assert not verify_folder(folder).holds
