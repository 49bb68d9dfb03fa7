"""One round, one key, one sum: round keys are made once, used once and destroyed; answers repeat from the record.

A round passes through these states, each durable before anything leaves::

    (none) --open_round--> open --answer--> deciding --> answered    the key is destroyed
                             |                  `------> unsafe      a slot was no honest sum: the key is destroyed
                             `--forget--> forgotten                  the study is over: the key is destroyed

From ``deciding`` on the round knows one sum hash and will never look at another; after a crash there, the same sum is
decided again. At rest each secret key is one encrypted file, destroyed when its round is over.

    >>> custody = KeyCustody(home / "keys", identity)
    >>> round_key, public = custody.open_round(proposal, 1)
    >>> checked = check_sum_request(proposal, round_key, request, answered_sum=custody.answered_sum("pilot", 1))
    >>> custody.answer(checked).integers_hash
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from datasites.keyholder import opened
from datasites.keyholder.checks import CheckedSum
from datasites.keyholder.key_files import KeyFiles
from datasites.keyholder.opened import BadPads, HelperAnswer, integers_to_bytes
from datasites.study.messages import RoundKey
from datasites.study.proposal import Proposal
from privacy.canonical import sha256_hex
from privacy.encryption import ckks, pads, shares
from privacy.errors import Refused, UnsafeSum
from privacy.identity import Identity
from privacy.storage import Schema, open_sqlite, sql

__all__ = ["BadPads", "HelperAnswer", "KeyCustody", "integers_to_bytes"]

UNSAFE_SUMS_UNTIL_PAUSE = 2
"""So many sums with unsafe slots pause a study: each such refusal tells an attacker at most one bit."""

_SCHEMA = Schema(
    "answers",
    table="rounds",
    migrations=(
        sql("""
CREATE TABLE IF NOT EXISTS rounds (
    study TEXT NOT NULL, round INTEGER NOT NULL, proposal_hash TEXT NOT NULL,
    key_hash TEXT NOT NULL, public BLOB NOT NULL, pad_key TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('open', 'deciding', 'answered', 'unsafe', 'forgotten')),
    sum_hash TEXT, integers BLOB,
    PRIMARY KEY (study, round));
CREATE TABLE IF NOT EXISTS resumed (study TEXT PRIMARY KEY, unsafe INTEGER NOT NULL);
"""),
        sql("""
ALTER TABLE rounds ADD COLUMN list_hash TEXT;
ALTER TABLE rounds ADD COLUMN opening BLOB;
CREATE TABLE IF NOT EXISTS voids (
    study TEXT NOT NULL, round INTEGER NOT NULL, list_hash TEXT NOT NULL, PRIMARY KEY (study, round, list_hash));
"""),
    ),
)
_NEW_ROUND = """
INSERT INTO rounds (study, round, proposal_hash, key_hash, public, pad_key, state) VALUES (?, ?, ?, ?, ?, ?, 'open')
RETURNING *"""
_CLOSED_ROUND = """
INSERT OR REPLACE INTO rounds (study, round, proposal_hash, key_hash, public, pad_key, state, sum_hash)
VALUES (?, ?, ?, ?, ?, ?, 'forgotten', ?)"""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The integers of one sum: safetensors with one signed-integer vector per block, and their SHA-256.

    ``opening`` is what is published of the round (:mod:`datasites.keyholder.opened`), where the study publishes.
    """

    sum_hash: str
    integers: bytes
    integers_hash: str
    opening: bytes | None = None


class KeyCustody:
    """The round keys and answers of one keyholder.

    Args:
        folder: where keys and record lie; made with mode 0700.
        identity: the keyholder.
    """

    def __init__(self, folder: Path, identity: Identity) -> None:
        self._keys = KeyFiles(folder, identity)
        self._lock = threading.RLock()
        self._made_now: set[tuple[str, int]] = set()
        self._record = open_sqlite(folder / "answers.sqlite", _SCHEMA, pragmas={"synchronous": "FULL"})
        self._record.row_factory = sqlite3.Row
        self._sweep()

    def close(self) -> None:
        """Close the record."""
        self._record.close()

    def open_round(self, proposal: Proposal, number: int) -> tuple[RoundKey, bytes]:
        """Return a round's key record and public key, made at the first call and the same ever after.

        Args:
            proposal: as :func:`datasites.keyholder.checks.check_study` returned it.
            number: the round, 1 to ``proposal.rounds``.

        Raises:
            Refused: no such round, the round is over, or the study is paused.
        """
        if not 1 <= number <= proposal.rounds:
            raise Refused(f"expected a round between 1 and {proposal.rounds}, got {number}")
        with self._transaction():
            self._require_running(proposal.study)
            row = self._row(proposal.study, number) or self._make_key(proposal, number)
            if row["proposal_hash"] != proposal.proposal_hash:
                raise Refused(f"round {number} has a key for another proposal of the same name")
            if row["state"] not in ("open", "deciding"):
                raise Refused(f"round {number} is over and its key destroyed")
            return _round_key(row), bytes(row["public"])

    def round_key(self, study: str, number: int) -> RoundKey:
        """Return the key record of a round, also after its key was destroyed.

        Raises:
            Refused: this keyholder made no key for it.
        """
        row = self._row(study, number)
        if row is None:
            raise Refused(f"no key was made here for round {number} of this study")
        return _round_key(row)

    def answered_sum(self, study: str, number: int) -> str | None:
        """Return the hash of the one sum this round is bound to, or None while it is open."""
        row = self._row(study, number)
        return None if row is None else row["sum_hash"]

    def answer(self, checked: CheckedSum, helped: Sequence[HelperAnswer] = ()) -> Answer:
        """Decrypt a checked sum, or repeat the answer it was given before; afterwards the key is gone.

        Args:
            checked: the sum.
            helped: what the study's helpers answered about the same list; one is enough, or both where the key is from
                before this start.

        Raises:
            BadPads: a listed site's pad does not open; the round is not bound to this sum.
            HelpersWanted: not enough helpers answered; the round is not bound to this sum.
            UnsafeSum: a slot is no honest sum; nothing leaves, the key is destroyed, the round is over.
            Refused: the round is bound to another sum, is over, or the study is paused.
            Tampered: the stored key was changed or belongs to another keyholder.
        """
        study, number = checked.proposal.study, checked.round
        with self._lock:
            parts = self._parts(checked, helped)
            row = self._claim(checked)
            if row["state"] == "answered":
                return _answer(row)
            try:
                integers, opening = self._decrypt(checked, _round_key(row), parts)
            except UnsafeSum:
                self._finish(study, number, "unsafe", None)
                raise
            self._finish(study, number, "answered", integers, opening)
            return Answer(
                sum_hash=checked.sum_hash, integers=integers, integers_hash=sha256_hex(integers), opening=opening
            )

    def void(self, study: str, number: int, list_hash: str) -> RoundKey:
        """Bind this keyholder never to answer a list of a round, and return the round's key; twice does no harm.

        Raises:
            Refused: there is no key of the round, the list was answered, or the key is from before this start: then
                the record may be an older one, which does not know of an answer.
        """
        with self._transaction():
            row, place = self._row(study, number), (study, number, list_hash)
            if row is None:
                raise Refused(f"no key was made here for round {number} of this study")
            if self._voided(*place):
                return _round_key(row)
            if (study, number) not in self._made_now:
                raise Refused(f"round {number}: started anew since the key was made; no list of it is declared void")
            if row["sum_hash"] is not None and row["list_hash"] in (None, list_hash):
                raise Refused(f"round {number}: this list was answered; it cannot be void")
            self._record.execute("INSERT INTO voids VALUES (?, ?, ?)", place)
            return _round_key(row)

    def _voided(self, study: str, number: int, list_hash: str) -> bool:
        query = "SELECT 1 FROM voids WHERE study = ? AND round = ? AND list_hash = ?"
        return self._record.execute(query, (study, number, list_hash)).fetchone() is not None

    def unsafe_sums(self, study: str) -> int:
        """Return how many sums of ``study`` had unsafe slots since its operator last resumed it."""
        query = "SELECT COUNT(*) - COALESCE((SELECT unsafe FROM resumed WHERE study = ?), 0) FROM rounds"
        row = self._record.execute(f"{query} WHERE study = ? AND state = 'unsafe'", (study, study)).fetchone()
        return int(row[0])

    def resume(self, study: str) -> None:
        """Let a paused study go on: for the keyholder's operator, after looking into it."""
        with self._lock:
            self._record.execute(
                "INSERT OR REPLACE INTO resumed SELECT ?, COUNT(*) FROM rounds WHERE study = ? AND state = 'unsafe'",
                (study, study),
            )

    def forget(self, study: str) -> None:
        """Destroy the remaining keys of a study that is over; its answers stay on record."""
        left = "study = ? AND state IN ('open', 'deciding')"
        with self._lock:
            if self._record.execute(f"SELECT 1 FROM rounds WHERE {left}", (study,)).fetchone():  # noqa: S608 - a constant
                self._record.execute(f"UPDATE rounds SET state = 'forgotten' WHERE {left}", (study,))  # noqa: S608
            self._sweep()

    def answered(self) -> list[tuple[str, int]]:
        """Return every (study, round) that was answered here."""
        rows = self._record.execute("SELECT study, round FROM rounds WHERE state = 'answered'").fetchall()
        return [(row["study"], row["round"]) for row in rows]

    def lacks(self, key: RoundKey, sum_hash: str | None = None) -> bool:
        """Return whether this record does not know a key that was signed here, or the sum it was used for."""
        row = self._row(key.study, key.round)
        if row is None or row["key_hash"] != key.key_hash:
            return True
        return sum_hash is not None and (row["sum_hash"], row["state"]) != (sum_hash, "answered")

    def close_round(self, key: RoundKey, sum_hash: str | None = None) -> None:
        """Write a round down as over whose key or answer this record has forgotten; its key is destroyed."""
        with self._transaction():
            self._record.execute(
                _CLOSED_ROUND,
                (key.study, key.round, key.proposal_hash, key.key_hash, b"", key.pad_key, sum_hash),
            )
        self._sweep()

    def _make_key(self, proposal: Proposal, number: int) -> sqlite3.Row:
        pair = ckks.generate_round_key(proposal.encryption)
        pad = pads.generate_pad_key(hybrid=True) if proposal.helpers else pads.generate_pad_key()
        row: sqlite3.Row = self._record.execute(
            _NEW_ROUND,
            (proposal.study, number, proposal.proposal_hash, sha256_hex(pair.public), pair.public, pad.public),
        ).fetchone()
        self._keys.store(_round_key(row), pad.private + pair.secret)
        self._made_now.add((proposal.study, number))
        return row

    def _parts(self, checked: CheckedSum, helped: Sequence[HelperAnswer]) -> list[shares.PartSum] | dict[str, bytes]:
        """Return what takes the listed pads off: the seeds, or with helpers the sums of the three parts.

        Nothing where the round is over and its key destroyed.
        """
        proposal = checked.proposal
        row = self._row(proposal.study, checked.round)
        if row is None or row["state"] not in ("open", "deciding"):
            return {}
        private = self._keys.load(_round_key(row))[: pads.private_bytes(row["pad_key"])]
        label = pads.PadLabel(study=row["study"], round=row["round"], plan_hash=checked.plan_hash, site="")
        if not proposal.helpers:
            return opened.open_seeds(checked.pads, private, label)
        sites = replace(label, holder=proposal.keyholder.public_key)
        seeds = opened.open_parts(checked.headers, checked.pads, shares.KEYHOLDER_PARTS, private, sites)
        counts = opened.counts_of(proposal)
        own = {
            part: shares.part_sum(seeds[part], checked.contributors, counts, proposal.encryption)
            for part in shares.KEYHOLDER_PARTS
        }
        everybody = (proposal.study, checked.round) not in self._made_now  # a restored record knows of no other answer
        missing = opened.missing_part(proposal, checked.list_hash, helped, own, everybody=everybody)
        return [*own.values(), missing]

    def _claim(self, checked: CheckedSum) -> sqlite3.Row:
        """Bind the round to this sum, durably and before any decryption; another sum is refused for ever."""
        study, number = checked.proposal.study, checked.round
        with self._transaction():
            row = self._row(study, number)
            if row is None or row["proposal_hash"] != checked.proposal.proposal_hash:
                raise Refused(f"no key was made here for round {number} of this proposal")
            if row["sum_hash"] not in (None, checked.sum_hash):
                raise Refused(f"round {number} was answered with another sum; one sum per round")
            if checked.proposal.helpers:
                self._require_this_list(row, checked.list_hash)
            if row["state"] in ("unsafe", "forgotten"):
                raise Refused(f"round {number} is over and its key destroyed")
            if row["state"] != "answered":
                self._require_running(study)
                if not checked.proposal.helpers:
                    self._require_first_list(row, checked)
                self._record.execute(
                    "UPDATE rounds SET state = 'deciding', sum_hash = ?, list_hash = ? WHERE study = ? AND round = ?",
                    (checked.sum_hash, checked.list_hash, study, number),
                )
            return row

    def _require_this_list(self, row: sqlite3.Row, list_hash: str) -> None:
        """Refuse a list that was declared void, and any but the one this round is bound to."""
        if self._voided(row["study"], row["round"], list_hash):
            raise Refused(f"round {row['round']}: this list was declared void and is never answered")
        if row["sum_hash"] is not None and row["list_hash"] != list_hash:
            raise Refused(f"round {row['round']} was answered with another list; one list per round")

    def _require_first_list(self, row: sqlite3.Row, checked: CheckedSum) -> None:
        """Refuse a redone list under a key from before this start: restored from a backup, we would not know of a sum.

        Whoever could be singled out by a second sum of the round attested both lists, and says so.
        """
        if row["state"] == "open" and checked.redone and (row["study"], row["round"]) not in self._made_now:
            raise Refused(
                f"round {row['round']}: sites attested another list before, and this keyholder was started anew since "
                "it made the key; it cannot know that it answered no other sum, so this round gets none"
            )

    def _decrypt(
        self, checked: CheckedSum, key: RoundKey, parts: list[shares.PartSum] | dict[str, bytes]
    ) -> tuple[bytes, bytes | None]:
        """Return the integers, and what is published of the round."""
        proposal, secret = checked.proposal, self._keys.load(key)[pads.private_bytes(key.pad_key) :]
        if isinstance(parts, dict):
            bare = pads.remove(checked.ciphertexts, parts, checked.contributors, proposal.encryption)
        else:
            bare = shares.subtract(checked.ciphertexts, parts, proposal.encryption)
        integers = opened.integers_of(proposal, secret, bare, checked.contributors)
        if isinstance(parts, dict) or not proposal.published:
            return integers, None
        return integers, opened.pack_opening(proposal, secret, parts[:2])

    def _finish(
        self, study: str, number: int, state: str, integers: bytes | None, opening: bytes | None = None
    ) -> None:
        self._record.execute(
            "UPDATE rounds SET state = ?, integers = ?, opening = ? WHERE study = ? AND round = ?",
            (state, integers, opening, study, number),
        )
        self._sweep()

    def _sweep(self) -> None:
        """Destroy every key whose round is over, or whose record a crash kept from being written."""
        rows = self._record.execute("SELECT study, round FROM rounds WHERE state IN ('open', 'deciding')")
        self._keys.destroy_all_but({(row["study"], row["round"]) for row in rows})

    def _require_running(self, study: str) -> None:
        if self.unsafe_sums(study) >= UNSAFE_SUMS_UNTIL_PAUSE:
            raise Refused("the study is paused after sums with unsafe slots; the keyholder's operator has to resume it")

    def _row(self, study: str, number: int) -> sqlite3.Row | None:
        with self._lock:
            query = "SELECT * FROM rounds WHERE study = ? AND round = ?"
            row: sqlite3.Row | None = self._record.execute(query, (study, number)).fetchone()
            return row

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock:
            self._record.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._record.execute("COMMIT")
            except BaseException:
                if self._record.in_transaction:  # SQLite itself ends some that fail, on a full disk for one
                    self._record.execute("ROLLBACK")
                raise


def _round_key(row: sqlite3.Row) -> RoundKey:
    return RoundKey(
        study=row["study"],
        proposal_hash=row["proposal_hash"],
        round=row["round"],
        key_hash=row["key_hash"],
        key_bytes=len(row["public"]),
        pad_key=row["pad_key"],
    )


def _answer(row: sqlite3.Row) -> Answer:
    integers = bytes(row["integers"])
    opening = None if row["opening"] is None else bytes(row["opening"])
    return Answer(sum_hash=row["sum_hash"], integers=integers, integers_hash=sha256_hex(integers), opening=opening)
