"""A chain goes on when its owner's key becomes another one, and nobody with the old key goes on with it."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest

from privacy.errors import InvalidInput, Tampered
from privacy.identity import Identity
from privacy.ledger.chain import Chain
from privacy.ledger.costs import StudyCost, gaussian_cost
from privacy.ledger.head_file import head_file
from privacy.ledger.journal import Journal
from privacy.ledger.ledger import Ledger, case_hash
from privacy.ledger.links import ROTATED, entry_hash, header, problems
from privacy.ledger.verification import verify_folder

OLD = Identity.from_seed(b"o" * 32)
NEW = OLD.successor()
PROPOSAL = "cd" * 32


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with closing(Journal(tmp_path / "journal.sqlite", OLD)) as journal:
        journal.append("started", {})
        journal.rotate(NEW)
        journal.append("started", {})
    with closing(Ledger(tmp_path / "ledger.sqlite", OLD)) as ledger:
        population = ledger.register_dataset("brca", 1, [case_hash(b"k" * 32, "a")])
        ledger.set_cap(population, epsilon=9.0, delta=1e-4, by="B", reason="board")
        ledger.reserve(population, study="s", proposal_hash=PROPOSAL, plan=StudyCost(rounds=2, round=gaussian_cost(9)))
        ledger.charge(PROPOSAL, 1)
    with closing(Chain(tmp_path / "ledger.sqlite", OLD, purpose="ledger")) as chain:
        chain.rotate(NEW)
    return tmp_path


def test_the_chain_is_one_before_and_after_and_verifies_under_the_new_key(folder: Path) -> None:
    with closing(Journal(folder / "journal.sqlite", NEW)) as journal:
        journal.verify()
        assert journal.public_keys == (OLD.public_key, NEW.public_key)
        assert [entry.kind for entry in journal.entries()] == ["started", ROTATED, "started"]
        journal.head.check()
    found = verify_folder(folder, public_key=NEW.public_key)
    assert found.holds, found.findings
    assert {chain.public_key for chain in found.chains} == {NEW.public_key}


def test_a_ledger_charges_on_under_the_new_key_and_forgets_nothing(folder: Path) -> None:
    with closing(Ledger(folder / "ledger.sqlite", NEW)) as ledger:
        ledger.charge(PROPOSAL, 2)
        ledger.verify()
        (population,) = {entry.body["population"] for entry in ledger.entries(kind="charge")}
        assert sum(entry.kind == "charge" for entry in ledger.entries()) == 2
        assert [point.kind for point in ledger.timeline(population)][-2:] == ["charge", "charge"]
    assert verify_folder(folder, public_key=NEW.public_key).holds


@pytest.mark.parametrize("file", ["journal", "ledger"])
def test_the_old_key_opens_neither_for_writing(folder: Path, file: str) -> None:
    with pytest.raises(InvalidInput, match="another owner"):
        Chain(folder / f"{file}.sqlite", OLD, purpose=file)  # type: ignore[arg-type]


def test_a_roster_that_still_names_the_old_key_finds_that_the_chain_has_another(folder: Path) -> None:
    found = verify_folder(folder, public_key=OLD.public_key)
    assert not found.holds and any("expected the chain of" in finding.message for finding in found.findings)


def _forged(rows: list[tuple], author: Identity, kind: str, body: dict) -> tuple:
    number, at, previous = rows[-1][0] + 1, "2999-01-01T00:00:00.000000Z", rows[-1][5]
    digest = entry_hash(header("journal", number, kind, body, at, previous))
    signature = author.sign("journal-entry", {"index": number, "hash": digest}, 1)
    return (number, kind, json.dumps(body, separators=(",", ":"), sort_keys=True), at, previous, digest, signature)


def test_an_entry_that_a_thief_signs_with_the_old_key_is_seen(folder: Path) -> None:
    with closing(Journal(folder / "journal.sqlite", None)) as journal:
        rows = [*journal.rows(0)]
    assert list(problems(rows, "journal", OLD.public_key)) == []
    later = [*rows, _forged(rows, OLD, "started", {})]
    assert any("signature does not hold" in problem for problem in problems(later, "journal", OLD.public_key))


def test_the_old_key_hands_over_once_the_new_one_counts(folder: Path) -> None:
    thief = Identity.generate()
    with closing(Journal(folder / "journal.sqlite", None)) as journal:
        rows = [*journal.rows(0)]
    stolen = [*rows, _forged(rows, OLD, ROTATED, {"new_key": thief.public_key})]
    assert any("signature does not hold" in problem for problem in problems(stolen, "journal", OLD.public_key))
    for body in ({}, {"new_key": 1}, {"new_key": "x"}, {"new_key": "01" + "0" * 62}):
        bad = [*rows, _forged(rows, NEW, ROTATED, body)]
        assert any("malformed" in problem for problem in problems(bad, "journal", OLD.public_key)), body


def test_a_key_does_not_come_back_and_rotating_again_changes_nothing(folder: Path) -> None:
    with closing(Journal(folder / "journal.sqlite", NEW)) as journal:
        journal.rotate(NEW)
        assert journal.head.index == 3
        with pytest.raises(InvalidInput, match="expected a new key"):
            journal.rotate(OLD)


def test_a_head_file_of_the_moment_between_the_two_keys_is_of_this_chain(folder: Path) -> None:
    with closing(Journal(folder / "journal.sqlite", NEW)) as journal:
        entry = next(journal.entries(kind=ROTATED))
    statement = {"index": entry.index, "hash": entry.hash}
    noted = {"chain": "journal", **statement, "public_key": OLD.public_key}
    head_file(folder / "journal.sqlite").write_text(
        json.dumps({**noted, "signature": OLD.sign("journal-head", statement, 1)})
    )
    assert verify_folder(folder, public_key=NEW.public_key).holds


def test_adopted_entries_may_carry_the_new_key(folder: Path, tmp_path: Path) -> None:
    with closing(Journal(folder / "journal.sqlite", None)) as journal:
        rows = [*journal.rows(0)]
    with closing(Journal(tmp_path / "other.sqlite", OLD)) as other:
        other.adopt(rows[:1])
        with pytest.raises(Tampered):
            other.adopt([_forged(rows[:1], NEW, "started", {})])
