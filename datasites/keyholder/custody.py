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

import hmac
import secrets
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from datasites.keyholder import opened
from datasites.keyholder.checks import CheckedList, CheckedSum
from datasites.keyholder.key_files import KeyFiles
from datasites.keyholder.opened import BadPads, HelperAnswer, ListedPads, Updates, clearance_of, integers_to_bytes
from datasites.keyholder.record import CLOSED_ROUND, NEW_ROUND, SCHEMA, Answer, answer_of, round_key_of
from datasites.keyholder.vouched import OwnParts, commit_to
from datasites.study.messages import Arrival, Clearance, PadCommitment, RoundKey
from datasites.study.proposal import Proposal
from datasites.study.recomputed.checks import random_part
from privacy.canonical import sha256_hex
from privacy.encryption import ckks, pads, shares
from privacy.errors import Refused, UnsafeSum
from privacy.identity import Identity
from privacy.storage import open_sqlite

__all__ = ["BadPads", "HelperAnswer", "KeyCustody", "integers_to_bytes"]

UNSAFE_SUMS_UNTIL_PAUSE = 2
"""So many sums with unsafe slots pause a study: each such refusal tells an attacker at most one bit."""


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
        self._opened: dict[str, tuple[str, OwnParts]] = {}
        self._updates: dict[tuple[str, int], Updates] = {}
        self._start = secrets.token_hex(16)
        self._record = open_sqlite(folder / "answers.sqlite", SCHEMA, pragmas={"synchronous": "FULL"})
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
            return round_key_of(row), bytes(row["public"])

    def round_key(self, study: str, number: int) -> RoundKey:
        """Return the key record of a round, also after its key was destroyed.

        Raises:
            Refused: this keyholder made no key for it.
        """
        row = self._row(study, number)
        if row is None:
            raise Refused(f"no key was made here for round {number} of this study")
        return round_key_of(row)

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
            FreshWanted: without helpers, the key is from before this start; the round is not bound to this sum.
            UnsafeSum: a slot is no honest sum; nothing leaves, the key is destroyed, the round is over.
            Refused: the round is bound to another sum, is over, or the study is paused.
            Tampered: the stored key was changed or belongs to another keyholder.
        """
        study, number = checked.proposal.study, checked.round
        with self._lock:
            parts = self._parts(checked, helped)
            row = self._claim(checked)
            if row["state"] == "answered":
                return answer_of(row)
            try:
                integers, opening = self._decrypt(checked, round_key_of(row), parts)
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
                return round_key_of(row)
            if (study, number) not in self._made_now:
                raise Refused(f"round {number}: started anew since the key was made; no list of it is declared void")
            if row["sum_hash"] is not None and row["list_hash"] in (None, list_hash):
                raise Refused(f"round {number}: this list was answered; it cannot be void")
            self._record.execute("INSERT INTO voids VALUES (?, ?, ?)", place)
            return round_key_of(row)

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
            self._opened.pop(study, None)
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
                CLOSED_ROUND,
                (key.study, key.round, key.proposal_hash, key.key_hash, b"", key.pad_key, sum_hash),
            )
        self._sweep()

    def _make_key(self, proposal: Proposal, number: int) -> sqlite3.Row:
        pair = ckks.generate_round_key(proposal.encryption, random_part(proposal, number))
        pad = pads.generate_pad_key(hybrid=True) if proposal.helpers else pads.generate_pad_key()
        row: sqlite3.Row = self._record.execute(
            NEW_ROUND,
            (proposal.study, number, proposal.proposal_hash, sha256_hex(pair.public), pair.public, pad.public),
        ).fetchone()
        self._keys.store(round_key_of(row), pad.private + pair.secret)
        self._made_now.add((proposal.study, number))
        return row

    def _parts(self, checked: CheckedSum, helped: Sequence[HelperAnswer]) -> ListedPads | dict[str, bytes]:
        """Return what takes the listed pads off: the seeds, or with helpers the sums of the three parts.

        Nothing where the round is over and its key destroyed.
        """
        proposal = checked.proposal
        row = self._row(proposal.study, checked.round)
        if row is None or row["state"] not in ("open", "deciding"):
            return {}
        if not proposal.helpers:
            return opened.open_seeds(checked.pads, *self._private(row, checked.plan_hash))
        own = self._own(checked)
        vouched = opened.require_vouched(proposal, checked.vouched, checked.headers, own)
        everybody = (proposal.study, checked.round) not in self._made_now  # a restored record knows of no other answer
        missing, salt = opened.missing_part(proposal, checked.list_hash, helped, own.sums, vouched, everybody=everybody)
        salts = [own.salt(proposal, part, checked.list_hash) for part in shares.KEYHOLDER_PARTS]
        return ListedPads(sums=[*own.sums.values(), missing], salts=[*salts, salt])

    def commit(self, listed: CheckedList, name: str) -> PadCommitment:
        """Return what this keyholder will say about the pads of a list that nobody has signed; it binds no round.

        Raises:
            BadPads: a listed site's seeds do not open, or are not those it signed for.
            Refused: there is no key of the round any more.
        """
        with self._lock:
            return commit_to(listed.proposal, listed.commitments, name, self._own(listed), listed.proposal.encryption)

    def clear(self, arrival: Arrival, name: str) -> Clearance:
        """Bind this keyholder to open no update of a hospital that was sent before it was started anew, and say so.

        Left out are the rounds of which that is not known: as :meth:`datasites.helper.custody.PadCustody.clear`.
        """
        study, without = arrival.study, []
        with self._lock:
            for row in self._record.execute("SELECT round, state FROM rounds WHERE study = ? ORDER BY round", (study,)):
                place = study, int(row["round"])
                updates = self._updates.setdefault(place, Updates())
                if place not in self._made_now or row["state"] != "open" or not updates.clear(arrival):
                    without.append(place[1])
        return clearance_of(arrival, name, without)

    def _own(self, listed: CheckedList | CheckedSum) -> OwnParts:
        """Return this keyholder's parts of a list: its seeds and their sums, kept until the round is answered."""
        proposal = listed.proposal
        self._updates.setdefault((proposal.study, listed.round), Updates()).see(listed.headers)
        if self._opened.get(proposal.study, ("", None))[0] != listed.list_hash:
            row = self._row(proposal.study, listed.round)
            if row is None or row["state"] not in ("open", "deciding"):
                raise Refused(f"round {listed.round} has no key here any more")
            private, label = self._private(row, listed.plan_hash, proposal.keyholder.public_key)
            sealed = {site: header.pad for site, header in listed.headers.items()}
            seeds = opened.open_parts(listed.headers, sealed, shares.KEYHOLDER_PARTS, private, label)
            parts = opened.own_parts(proposal, listed.contributors, seeds)
            self._opened[proposal.study] = listed.list_hash, parts
        return self._opened[proposal.study][1]

    def _private(self, row: sqlite3.Row, plan_hash: str, holder: str = "") -> tuple[bytes, pads.PadLabel]:
        private = self._keys.load(round_key_of(row))[: pads.private_bytes(row["pad_key"])]
        label = pads.PadLabel(study=row["study"], round=row["round"], plan_hash=plan_hash, site="", holder=holder)
        return private, label

    def _claim(self, checked: CheckedSum) -> sqlite3.Row:
        """Bind the round to this sum, durably and before any decryption; another sum is refused for ever."""
        study, number = checked.proposal.study, checked.round
        with self._transaction():
            row = self._row(study, number)
            if row is None or row["proposal_hash"] != checked.proposal.proposal_hash:
                raise Refused(f"no key was made here for round {number} of this proposal")
            if row["sum_hash"] not in (None, checked.sum_hash):
                raise Refused(f"round {number} was answered with another sum; one sum per round")
            self._require_this_list(row, checked.list_hash)
            if row["state"] in ("unsafe", "forgotten"):
                raise Refused(f"round {number} is over and its key destroyed")
            if row["state"] != "answered":
                self._require_running(study)
                if not checked.proposal.helpers:
                    self._require_signed_for_good(row, checked)
                self._record.execute(
                    "UPDATE rounds SET state = 'deciding', sum_hash = ?, list_hash = ? WHERE study = ? AND round = ?",
                    (checked.sum_hash, checked.list_hash, study, number),
                )
            return row

    def _require_this_list(self, row: sqlite3.Row, list_hash: str) -> None:
        """Refuse a list that was declared void, and any but the one this round is bound to."""
        if self._voided(row["study"], row["round"], list_hash):
            raise Refused(f"round {row['round']}: this list was declared void and is never answered")
        if row["sum_hash"] is not None and row["list_hash"] not in (None, list_hash):  # None: of an older version
            raise Refused(f"round {row['round']} was answered with another list; one list per round")

    def _require_signed_for_good(self, row: sqlite3.Row, checked: CheckedSum) -> None:
        """Under a key from before this start, want the list signed once more: after a restore we would know of no sum.

        Whoever could be singled out by a second sum of the round would have signed both lists, and refuses
        (docs/decisions/0019-one-list-without-helpers.md).
        """
        old = row["state"] == "open" and (row["study"], row["round"]) not in self._made_now
        fresh = any(hmac.compare_digest(word.encode(), self._start.encode()) for word in checked.fresh)
        if old and not fresh:
            raise opened.FreshWanted(int(row["round"]), self._start)

    def _decrypt(
        self, checked: CheckedSum, key: RoundKey, parts: ListedPads | dict[str, bytes]
    ) -> tuple[bytes, bytes | None]:
        """Return the integers, and what is published of the round."""
        proposal, secret = checked.proposal, self._keys.load(key)[pads.private_bytes(key.pad_key) :]
        if isinstance(parts, dict):
            bare = pads.remove(checked.ciphertexts, parts, checked.contributors, proposal.encryption)
        else:
            bare = shares.subtract(checked.ciphertexts, parts.sums, proposal.encryption)
        integers = opened.integers_of(proposal, secret, bare, checked.contributors)
        if isinstance(parts, dict) or not proposal.published:
            return integers, None
        return integers, opened.pack_opening(proposal, secret, parts.sums[:2], parts.salts)

    def _finish(
        self, study: str, number: int, state: str, integers: bytes | None, opening: bytes | None = None
    ) -> None:
        self._record.execute(
            "UPDATE rounds SET state = ?, integers = ?, opening = ? WHERE study = ? AND round = ?",
            (state, integers, opening, study, number),
        )
        self._opened.pop(study, None)
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
