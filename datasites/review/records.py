"""The rows behind the approvals of one datasite: requests, signatures, decisions, approvals, confirmed keys."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from datasites.study.messages import ReviewerSignature
from datasites.study.proposal import Proposal
from datasites.study.signing import Signed, dump, open_sealed, parse
from datasites.study.thread import Word
from privacy.canonical import plain_json
from privacy.errors import InvalidInput, Refused, Tampered
from privacy.sentences import say
from privacy.storage import Schema, open_sqlite, read_sqlite, sql

State = Literal["pending", "changes-requested", "approved", "denied", "revoked", "ended"]
_WORDS = {
    "pending": say("waiting for a decision"),
    "changes-requested": say("changes asked for"),
    "approved": say("approved"),
    "denied": say("denied"),
    "revoked": say("revoked"),
    "ended": say("ended"),
}
PROPOSAL = "proposal"

_SCHEMA = Schema(
    "approvals",
    table="requests",
    migrations=(
        sql("""
CREATE TABLE IF NOT EXISTS requests (
    hash TEXT PRIMARY KEY, plan_hash TEXT NOT NULL, study TEXT NOT NULL, sealed TEXT NOT NULL,
    folder TEXT NOT NULL, received TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS signatures (
    hash TEXT NOT NULL REFERENCES requests(hash), reviewer TEXT NOT NULL, body TEXT NOT NULL,
    PRIMARY KEY (hash, reviewer));
CREATE TABLE IF NOT EXISTS decisions (
    number INTEGER PRIMARY KEY AUTOINCREMENT, hash TEXT NOT NULL REFERENCES requests(hash), kind TEXT NOT NULL,
    person TEXT NOT NULL, reason TEXT NOT NULL, at TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS approvals (hash TEXT PRIMARY KEY REFERENCES requests(hash), sealed TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS confirmations (
    public_key TEXT PRIMARY KEY, name TEXT NOT NULL, institution TEXT NOT NULL, person TEXT NOT NULL,
    at TEXT NOT NULL);
"""),
        sql("""
CREATE TABLE words (
    hash TEXT NOT NULL REFERENCES requests(hash), author TEXT NOT NULL, number INTEGER NOT NULL, sealed TEXT NOT NULL,
    place INTEGER, PRIMARY KEY (hash, author, number));
"""),
        sql("ALTER TABLE decisions ADD COLUMN titled TEXT NOT NULL DEFAULT '';"),
    ),
)
"""``words.place`` is a word's place in the orchestrator's thread of the study; NULL while it has not taken it."""


def word(state: str) -> str:
    """Return the state of a request as people read it."""
    return _WORDS.get(state, state)


@dataclass(frozen=True, kw_only=True)
class Decision:
    """One thing a person did about a request: signed, approved, denied, asked, revoked, with their reason.

    What the scientist or another hospital did stands here too where it changes the request: answered, or its end.
    ``titled`` is the person's full name and function at that time, empty where they are not known.
    """

    kind: str
    person: str
    reason: str
    at: str
    titled: str = ""

    @property
    def who(self) -> str:
        """The full name and function where they are known, otherwise the name of the account."""
        return self.titled or self.person

    def says(self, kind: str, person: str, reason: str) -> bool:
        """Return whether it is this person's decision with these very words."""
        return (self.kind, self.person, self.reason) == (kind, person, reason)


@dataclass(frozen=True, kw_only=True)
class Request:
    """A proposal that arrived here, and everything that has been decided about it."""

    proposal_hash: str
    proposal: Proposal
    folder: Path
    received: str
    state: State
    signatures: tuple[ReviewerSignature, ...]
    decisions: tuple[Decision, ...]
    approval: Signed | None
    words: tuple[Word, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Confirmation:
    """Somebody's key, compared out of band by one of the owner's people."""

    public_key: str
    name: str
    institution: str
    person: str
    at: str


class ReviewRecords:
    """One SQLite file; every write happens inside :meth:`transaction`, all of it or nothing.

    Args:
        path: the file, made with its folder when missing.
        read_only: look only, also beside the process that writes it; the file must be there and is not changed.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self._lock = threading.RLock()
        self._kept: tuple[tuple[int, int], tuple[Request, ...]] | None = None
        if read_only:
            self._database = read_sqlite(path, _SCHEMA)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = open_sqlite(path, _SCHEMA, pragmas={"journal_mode": "WAL", "synchronous": "FULL"})

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Keep what is written inside, or nothing when the block raises; transactions do not nest."""
        with self._lock:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:  # SQLite itself ends some that fail, on a full disk for one
                    self._database.execute("ROLLBACK")
                raise

    def add_request(self, signed: Signed, proposal: Proposal, folder: Path, at: str) -> bool:
        """Keep a proposal; return False when it was here already."""
        values = (proposal.proposal_hash, proposal.plan_hash, proposal.study, _text(signed), str(folder), at)
        return self._write("INSERT OR IGNORE INTO requests VALUES (?, ?, ?, ?, ?, ?)", *values) == 1

    def add_signature(self, proposal_hash: str, signature: ReviewerSignature) -> None:
        """Keep one person's signature.

        Raises:
            Refused: this person signed already.
        """
        values = (proposal_hash, signature.reviewer, _text(signature))
        if self._write("INSERT OR IGNORE INTO signatures VALUES (?, ?, ?)", *values) != 1:
            raise Refused(say("{reviewer} signed already; another person has to sign", reviewer=signature.reviewer))

    def add_decision(self, proposal_hash: str, decision: Decision) -> None:
        """Append one decision."""
        values = (proposal_hash, decision.kind, decision.person, decision.reason, decision.at, decision.titled)
        into = "decisions (hash, kind, person, reason, at, titled)"
        self._write(f"INSERT INTO {into} VALUES (?, ?, ?, ?, ?, ?)", *values)  # noqa: S608 - ours

    def add_approval(self, proposal_hash: str, approval: Signed) -> None:
        """Keep the datasite's sealed approval."""
        self._write("INSERT INTO approvals VALUES (?, ?)", proposal_hash, _text(approval))

    def add_word(self, proposal_hash: str, word: Word, signed: Signed, place: int | None = None) -> bool:
        """Keep one word of a study's thread, with its place there once it has one; return False if it was here."""
        row = (proposal_hash, word.author, word.number)
        new = self._write("INSERT OR IGNORE INTO words VALUES (?, ?, ?, ?, NULL)", *row, _text(signed)) == 1
        if place is not None:
            known = "UPDATE words SET place = ? WHERE hash = ? AND author = ? AND number = ?"
            self._write(known, place, *row)
        return new

    def unsent_words(self, site: str) -> tuple[tuple[str, Signed], ...]:
        """Return this site's words that the orchestrator has not taken, with their proposal's hash, oldest first."""
        query = "SELECT hash, sealed FROM words WHERE author = ? AND place IS NULL ORDER BY rowid"
        return tuple((row[0], _signed(row[1])) for row in self._read(query, site))

    def words(self, proposal_hash: str) -> tuple[Word, ...]:
        """Return the thread of a request in the order in which it became known here."""
        query = "SELECT sealed FROM words WHERE hash = ? ORDER BY rowid"
        return tuple(parse(Word, dict(_signed(row[0]).payload)) for row in self._read(query, proposal_hash))

    def last_place(self, proposal_hash: str) -> int:
        """Return the last place of the orchestrator's thread that is known here; 0 before there is one."""
        return int(self._read("SELECT COALESCE(MAX(place), 0) FROM words WHERE hash = ?", proposal_hash)[0][0])

    def add_confirmation(self, value: Confirmation) -> bool:
        """Keep a confirmed key; return False when it was confirmed before."""
        row = (value.public_key, value.name, value.institution, value.person, value.at)
        return self._write("INSERT OR IGNORE INTO confirmations VALUES (?, ?, ?, ?, ?)", *row) == 1

    def request(self, proposal_hash: str) -> Request:
        """Return one request.

        Raises:
            InvalidInput: no proposal of this hash was received.
        """
        for request in self._still_known():
            if request.proposal_hash == proposal_hash:
                return request
        rows = self._read("SELECT hash, sealed, folder, received FROM requests WHERE hash = ?", proposal_hash)
        if not rows:
            raise InvalidInput(
                say("no proposal with the hash {proposal_hash!r} was received here", proposal_hash=proposal_hash[:16])
            )
        return self._request(rows[0])

    def has(self, proposal_hash: str) -> bool:
        """Return whether a proposal of this hash was received."""
        return bool(self._read("SELECT 1 FROM requests WHERE hash = ?", proposal_hash))

    def requests(self) -> tuple[Request, ...]:
        """Return all requests, the newest first; read anew only when the file has changed."""
        with self._lock:
            if self._database.in_transaction:  # what is read here may be rolled back
                return self._requests()
            if self._kept is None or self._kept[0] != self._stamp():
                self._kept = self._stamp(), self._requests()
            return self._kept[1]

    def _stamp(self) -> tuple[int, int]:
        """Return what is another one once the file has changed, by this process or another."""
        return int(self._read("PRAGMA data_version")[0][0]), self._database.total_changes

    def _still_known(self) -> tuple[Request, ...]:
        """Return what :meth:`requests` read last, if nothing has changed since; nothing inside a transaction."""
        with self._lock:
            kept = self._kept
            if kept is None or self._database.in_transaction or kept[0] != self._stamp():
                return ()
            return kept[1]

    def sealed_proposals(self) -> tuple[Signed, ...]:
        """Return all proposals as they were signed, the oldest first."""
        return tuple(_signed(row[0]) for row in self._read("SELECT sealed FROM requests ORDER BY rowid"))

    def same_plan(self, proposal: Proposal) -> tuple[Request, ...]:
        """Return the other requests with the same plan hash."""
        rows = self._read(
            "SELECT hash, sealed, folder, received FROM requests WHERE plan_hash = ? AND hash != ?",
            proposal.plan_hash,
            proposal.proposal_hash,
        )
        return tuple(self._request(row) for row in rows)

    def signatures(self, proposal_hash: str) -> tuple[ReviewerSignature, ...]:
        """Return the signatures under a proposal, the first one first."""
        rows = self._read("SELECT body FROM signatures WHERE hash = ? ORDER BY rowid", proposal_hash)
        return tuple(parse(ReviewerSignature, json.loads(row[0])) for row in rows)

    def confirmations(self) -> tuple[Confirmation, ...]:
        """Return the confirmed keys, by name."""
        fields = ("public_key", "name", "institution", "person", "at")
        rows = self._read("SELECT public_key, name, institution, person, at FROM confirmations ORDER BY name")
        return tuple(Confirmation(**dict(zip(fields, row, strict=True))) for row in rows)

    def _request(self, row: tuple[Any, ...]) -> Request:
        proposal_hash, sealed, folder, received = row
        proposal, actual_hash = _opened(sealed)
        if actual_hash != proposal_hash:
            raise Tampered(say("the stored proposal does not have the hash it is stored under; restore the file"))
        decided = self._read(
            "SELECT kind, person, reason, at, titled FROM decisions WHERE hash = ? ORDER BY number", proposal_hash
        )
        fields = ("kind", "person", "reason", "at", "titled")
        decisions = tuple(Decision(**dict(zip(fields, row, strict=True))) for row in decided)
        approval = self._read("SELECT sealed FROM approvals WHERE hash = ?", proposal_hash)
        return Request(
            proposal_hash=proposal_hash,
            proposal=proposal,
            folder=Path(folder),
            received=received,
            state=_state(decisions),
            signatures=self.signatures(proposal_hash),
            decisions=decisions,
            approval=_signed(approval[0][0]) if approval else None,
            words=self.words(proposal_hash),
        )

    def _requests(self) -> tuple[Request, ...]:
        rows = self._read("SELECT hash, sealed, folder, received FROM requests ORDER BY received DESC, rowid DESC")
        return tuple(self._request(row) for row in rows)

    def _write(self, statement: str, *values: object) -> int:
        with self._lock:
            return self._database.execute(statement, values).rowcount

    def _read(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._database.execute(statement, values).fetchall()


def open_proposal(signed: Signed) -> Proposal:
    """Return the proposal that its own orchestrator signed.

    Raises:
        InvalidInput, Tampered: it is not one.
    """
    proposal = parse(Proposal, dict(signed.payload))
    return open_sealed(signed, PROPOSAL, proposal.orchestrator.public_key, Proposal)


@lru_cache(maxsize=256)
def _opened(sealed: str) -> tuple[Proposal, str]:
    """Return a stored proposal and its hash; the same text was checked once and need not be checked again."""
    proposal = open_proposal(_signed(sealed))
    return proposal, proposal.proposal_hash


@lru_cache(maxsize=512)
def _signed(text: str) -> Signed:
    return parse(Signed, json.loads(text))


def _text(value: Any) -> str:
    return plain_json(dump(value)).decode()


def _state(decisions: tuple[Decision, ...]) -> State:
    state: State = "pending"
    for decision in decisions:
        if decision.kind in {"approved", "approved-automatically"}:
            state = "approved"
        elif decision.kind in {"denied", "revoked", "changes-requested", "ended"}:
            state = decision.kind  # type: ignore[assignment]
        elif decision.kind == "answered" and state == "changes-requested":
            state = "pending"
    return state
