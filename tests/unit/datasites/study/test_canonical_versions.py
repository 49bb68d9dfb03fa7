"""Documents signed and hashed before RFC 8785 keep their hashes and signatures; new ones are of version 2."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from pathlib import Path

import pytest

from datasites.study.messages import Attestation, Commitments, RoundPlan, UpdateHeader
from datasites.study.proposal import Proposal
from datasites.study.signing import Signed, dump, open_sealed, pack_envelope, parse, seal, unpack_envelope
from privacy.canonical import plain_json
from privacy.errors import InvalidInput, Tampered
from privacy.identity import Identity
from privacy.ledger import chain as chains
from privacy.ledger.journal import Journal

OLD = json.loads(Path(__file__).with_name("documents-before-rfc8785.json").read_text())  # written by commit 4c19b18
KINDS = {
    "proposal": Proposal,
    "round-plan": RoundPlan,
    "update": UpdateHeader,
    "commitments": Commitments,
    "attestation": Attestation,
}
SIGNER = Identity.from_seed(b"k" * 32)


def opened(kind: str) -> object:
    return open_sealed(parse(Signed, OLD["signed"][kind]), kind, SIGNER.public_key, KINDS[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_an_old_signature_holds_also_after_storage_and_travel(kind: str) -> None:
    signed = parse(Signed, OLD["signed"][kind])
    assert signed.canonical == 1
    assert dump(signed) == OLD["signed"][kind]
    travelled, _ = unpack_envelope(pack_envelope(parse(Signed, plain_json(dump(signed))), b""))
    assert open_sealed(travelled, kind, SIGNER.public_key, KINDS[kind]) == opened(kind)


@pytest.mark.parametrize("kind", KINDS)
def test_nobody_can_show_a_document_under_another_version(kind: str) -> None:
    old = parse(Signed, OLD["signed"][kind])
    new = seal(SIGNER, kind, opened(kind))
    for signed, other in ((old, 2), (new, 1)):
        with pytest.raises((Tampered, InvalidInput)):
            open_sealed(dataclasses.replace(signed, canonical=other), kind, SIGNER.public_key, KINDS[kind])


def test_old_hashes_keep_their_values() -> None:
    proposal, plan, closed = opened("proposal"), opened("round-plan"), opened("commitments")
    assert proposal.proposal_hash == OLD["hashes"]["proposal_hash"]
    assert proposal.plan_hash == OLD["hashes"]["proposal_plan_hash"]
    assert plan.plan_hash == OLD["hashes"]["plan_hash"]
    assert closed.list_hash == OLD["hashes"]["list_hash"]
    for value, name in ((proposal, "proposal_hash"), (plan, "plan_hash"), (closed, "list_hash")):
        again = parse(type(value), plain_json(dump(value)))
        assert getattr(again, name) == getattr(value, name)


def test_the_version_is_part_of_what_is_hashed() -> None:
    for kind, name in (("proposal", "proposal_hash"), ("round-plan", "plan_hash"), ("commitments", "list_hash")):
        value = opened(kind)
        newer = dataclasses.replace(value, canonical=2)
        assert getattr(newer, name) != getattr(value, name)
        assert dump(newer)["canonical"] == 2
        assert "canonical" not in dump(value)


def test_both_sides_hash_a_list_alike_whatever_json_made_of_its_floats() -> None:
    header = dataclasses.replace(opened("update"), releases={"loss": 2.0, "large": 1e16, "small": 1e-05})
    updates = (seal(SIGNER, "update", header),)
    closed = dataclasses.replace(opened("commitments"), canonical=2, updates=updates)
    sealed = seal(SIGNER, "commitments", closed)
    for text in (plain_json(dump(sealed)), json.dumps(dump(sealed)).encode(), _rewritten(dump(sealed))):
        received = open_sealed(parse(Signed, text), "commitments", SIGNER.public_key, Commitments)
        assert received.list_hash == closed.list_hash
        assert open_sealed(received.updates[0], "update", SIGNER.public_key, UpdateHeader) == header


def _rewritten(value: object) -> bytes:
    """Return JSON as a writer would give it that knows doubles only: 2.0 as 2, 1e16 as its digits."""
    return json.dumps(value).replace("2.0", "2").replace("1e+16", "10000000000000000").encode()


def test_tags_of_any_size_travel_as_digits_and_old_ones_as_numbers() -> None:
    old = opened("attestation")
    assert old.tags == (str(2**53 + 1), str(2**60 - 1), "7", "0")
    sealed = parse(Signed, plain_json(dump(seal(SIGNER, "attestation", old))))
    assert sealed.payload["tags"] == list(old.tags)
    assert open_sealed(sealed, "attestation", SIGNER.public_key, Attestation) == old


@pytest.mark.parametrize("tag", [1.0, True, None, "", "-0", "01", "+1", " 1", "1\n", "1_0", "1.0", "9" * 31])
def test_a_tag_has_one_spelling(tag: object) -> None:
    with pytest.raises(InvalidInput, match="tags"):
        parse(Attestation, {**OLD["signed"]["attestation"]["payload"], "tags": [tag]})


def test_an_old_journal_verifies_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    with sqlite3.connect(path) as connection:
        for statement in OLD["tables"]:
            connection.execute(statement)
        connection.execute("INSERT INTO owner VALUES ('journal', ?)", (OLD["public_key"],))
        connection.executemany("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?)", OLD["rows"])
    connection.close()
    journal = Journal(path, SIGNER)
    journal.verify()
    journal.check_not_rolled_back([chains.Head(**OLD["head"])])
    assert next(iter(journal.entries())).body["values"] == [1.0, 1e-05, 1e16, 0.0, 1e21]
    journal.append("floats", {"values": [1.0, 1e-05, 1e16, -0.0, 1e21]})
    journal.verify()
    *_, newest = journal.entries()
    assert newest.body == {"values": [1, 1e-05, 10**16, 0, 1e21]}
    journal.close()


@pytest.mark.parametrize("row", range(4))
def test_an_old_entry_rewritten_as_rfc_8785_is_noticed(row: int) -> None:
    rows = [tuple(r) for r in OLD["rows"]]
    assert list(chains.problems(rows, "journal", OLD["public_key"])) == []
    number, kind, text, *rest = rows[row]
    changed = text.replace("1.0", "1").replace("1e-05", "0.00001") if row == 0 else text.replace("{", "{ ")
    rows[row] = (number, kind, changed, *rest)
    assert list(chains.problems(rows, "journal", OLD["public_key"]))
