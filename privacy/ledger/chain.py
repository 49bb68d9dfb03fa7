"""An append-only, hash-chained, signed list of entries in one SQLite file; journals and ledgers are such chains.

Every entry hashes its own fields and the entry before it, and its author signs the hash. The first entry points at
a hash of the owner's key, so that a chain cannot be given to somebody else. Three things together show tampering:

* inside the chain: hashes, signatures, numbers without a gap, times that never go back (:func:`problems`);
* at its end: the head file beside the database, rewritten after every commit, and above all the heads that
  peers have seen (:meth:`Chain.check_not_rolled_back`), because an old copy of a folder is consistent in itself;
* in SQLite itself: WAL with ``synchronous=FULL``; a torn write is dropped whole at the next start.

Several processes and threads may write: each append runs under ``BEGIN IMMEDIATE``.

Bodies and hashes are canonical JSON (:mod:`privacy.canonical`). The hash covers the version, which therefore need not
be stored: an entry has the version under which its hash fits. Entries from before RFC 8785 have version 1.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from privacy.canonical import canonical_json
from privacy.errors import InvalidInput, Refused, Tampered
from privacy.identity import Identity, verify
from privacy.ledger.head_file import head_file, write_head
from privacy.ledger.links import (
    ROTATED,
    Purpose,
    Row,
    entry_hash,
    genesis,
    header,
    new_key,
    problems,
    read_time,
    written_time,
)
from privacy.storage import Schema, open_sqlite, read_sqlite, sql

if TYPE_CHECKING:
    from alembic.operations import Operations

_BUSY_SECONDS = 120.0
_DURABLE = {"journal_mode": "WAL", "synchronous": "FULL"}
_OWNER = "SELECT purpose, public_key FROM owner"
_TAKE = (  # an empty chain without an owner: new, or its process was killed before this statement
    "INSERT INTO owner SELECT ?, ? WHERE NOT EXISTS (SELECT 1 FROM owner) AND NOT EXISTS (SELECT 1 FROM entries)"
)
_ROTATIONS = "SELECT body FROM entries WHERE kind = ? ORDER BY number"
_COLUMNS = "number, kind, body, at, previous_hash, hash, signature"
_TABLES = (
    "CREATE TABLE owner (purpose TEXT NOT NULL, public_key TEXT NOT NULL) STRICT",
    "CREATE TABLE entries (number INTEGER PRIMARY KEY, kind TEXT NOT NULL, body TEXT NOT NULL, at TEXT NOT NULL,"
    " previous_hash TEXT NOT NULL, hash TEXT NOT NULL UNIQUE, signature TEXT NOT NULL) STRICT",
    "CREATE INDEX entries_by_kind ON entries (kind)",
    "CREATE TRIGGER entries_are_never_changed BEFORE UPDATE ON entries"
    " BEGIN SELECT RAISE(ABORT, 'entries are never changed'); END",
    "CREATE TRIGGER entries_are_never_deleted BEFORE DELETE ON entries"
    " BEGIN SELECT RAISE(ABORT, 'entries are never deleted'); END",
    "CREATE TRIGGER entries_have_no_gap BEFORE INSERT ON entries"
    " WHEN NEW.number <> (SELECT COALESCE(MAX(number), 0) + 1 FROM entries)"
    " BEGIN SELECT RAISE(ABORT, 'entries are numbered without a gap'); END",
)


def _make_tables(op: Operations) -> None:
    """Make the tables of a new chain; those of a chain from before versions stay as they are, for `verify` to judge."""
    if not op.get_bind().exec_driver_sql("SELECT 1 FROM sqlite_master WHERE name = 'entries'").first():
        sql(*_TABLES)(op)


SCHEMA = Schema("chain", table="entries", migrations=(_make_tables,))
"""Migrations of a chain add to its tables. They never rewrite an entry: its hash and signature bind its bytes."""


Mirror = Callable[[Callable[[int], Sequence[Row]]], None]
"""Keeps a copy of a chain elsewhere; it is given what reads the rows after a number."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of a chain; ``index`` counts from 1, ``at`` is UTC with microseconds, ``body`` is plain JSON."""

    index: int
    kind: str
    body: dict[str, Any]
    at: str
    previous_hash: str
    hash: str
    signature: str


@dataclass(frozen=True, kw_only=True)
class Head:
    """The end of a chain at one moment, signed by its owner; peers keep and countersign it."""

    chain: Purpose
    index: int
    hash: str
    public_key: str
    signature: str

    def check(self) -> None:
        """Raise Tampered when the owner's signature does not hold."""
        verify(self.public_key, f"{self.chain}-head", {"index": self.index, "hash": self.hash}, self.signature, 1)


class Chain:
    """A chain in the file at ``path``.

    Args:
        path: the SQLite file; made with its folder when missing and an identity is given.
        identity: the owner, who signs new entries; None opens an existing chain for reading only.
        purpose: ``journal`` or ``ledger``; part of every hash and signature.
        clock: the system's time; entries never go back behind their predecessor whatever it says.

    Raises:
        InvalidInput: the file belongs to another identity or purpose, or is missing and no identity was given.
    """

    def __init__(
        self,
        path: Path,
        identity: Identity | None,
        *,
        purpose: Purpose,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.path = path
        self.purpose: Purpose = purpose
        self._identity = identity
        self._clock = clock
        self._lock = threading.RLock()
        self._process = 0
        self.mirror: Mirror | None = None
        self._connection: sqlite3.Connection | None = None
        self._signed_head: Head | None = None
        if identity is None and not path.exists():
            raise InvalidInput(f"expected a {purpose} in the file {path.name}, found none")
        if identity is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        self.public_keys = self._owner()
        """The owner's keys, the present one last."""

    @property
    def public_key(self) -> str:
        """The key that entries are signed with now."""
        return self.public_keys[-1]

    def rotate(self, successor: Identity) -> None:
        """Go on with another key: the old one signs an entry that names it. Doing it again changes nothing.

        Raises:
            InvalidInput: the new key signed here before.
        """
        if successor.public_key == self.public_key:
            return
        if successor.public_key in self.public_keys:
            raise InvalidInput("expected a new key, got one that this chain was signed with before; make another")
        self.append(ROTATED, {"new_key": successor.public_key})
        self._identity = successor
        self.public_keys = (*self.public_keys, successor.public_key)
        self._write_head_file(self.head)

    def append(self, kind: str, body: Mapping[str, Any]) -> Entry:
        """Add one entry, whole or not at all, and return it once it is on disk.

        Args:
            kind: what happened, a short word.
            body: canonical JSON (see :mod:`privacy.canonical`); never a secret, record or patient id.
        """
        with self.transaction():
            return self.add(kind, body)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Hold the chain for writing; everything added inside is committed together, or nothing on an error."""
        self._author()
        with self._lock:
            connection = self._connect()
            before = self._begin(connection)
            try:
                yield
                if self.mirror is not None and self._tail()[0] != before:
                    self.mirror(self.rows)  # an entry is there first, and seen here then
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:  # SQLite itself ends some that fail, on a full disk for one
                    connection.execute("ROLLBACK")
                raise
            after = self.head
        if after.index != before:
            self._write_head_file(after)

    def add(self, kind: str, body: Mapping[str, Any]) -> Entry:
        """Add one entry inside :meth:`transaction`."""
        author = self._author()
        index, previous, last = self._tail()
        text = canonical_json(body).decode()
        at = written_time(self._time_after(last))
        digest = entry_hash(header(self.purpose, index + 1, kind, json.loads(text), at, previous))
        signature = author.sign(f"{self.purpose}-entry", {"index": index + 1, "hash": digest}, 1)
        row = (index + 1, kind, text, at, previous, digest, signature)
        self._connect().execute(f"INSERT INTO entries ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)", row)  # noqa: S608
        return _entry(row)

    def adopt(self, rows: Sequence[Row]) -> None:
        """Add entries that this chain's owner wrote elsewhere: what follows the newest one, as a mirror was given it.

        Raises:
            Tampered: one does not follow, or is not signed by the owner; nothing is added.
        """
        with self.transaction():
            for problem in problems(rows, self.purpose, self.public_key, after=self._tail()):
                raise Tampered(f"another copy of this {self.purpose} went on apart: {problem}; restore the newest one")
            statement = f"INSERT INTO entries ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)"  # noqa: S608
            self._connect().executemany(statement, [tuple(row) for row in rows])

    @property
    def head(self) -> Head:
        """Return the end of the chain, signed when this process holds the owner's identity."""
        index, digest, _ = self._tail()
        known, identity = self._signed_head, self._identity
        if known is not None and (known.index, known.hash, known.public_key) == (index, digest, self.public_key):
            return known
        signature = ""
        if identity is not None:
            signature = identity.sign(f"{self.purpose}-head", {"index": index, "hash": digest}, 1)
        head = Head(chain=self.purpose, index=index, hash=digest, public_key=self.public_key, signature=signature)
        self._signed_head = head
        return head

    def now(self) -> datetime:
        """Return the time, never earlier than the newest entry: a clock set back revives no expired approval."""
        return max(self._clock(), read_time(self._tail()[2]))

    def entries(self, *, since: int = 0, kind: str | None = None) -> Iterator[Entry]:
        """Yield the entries with an index above ``since``, oldest first, of one ``kind`` or of all."""
        for row in self.rows(since, kind):
            yield _entry(row)

    def entry(self, index: int) -> Entry:
        """Return the entry with this number.

        Raises:
            InvalidInput: the chain has no such entry.
        """
        rows = self._query(f"SELECT {_COLUMNS} FROM entries WHERE number = ?", (index,))  # noqa: S608
        if not rows:
            raise InvalidInput(f"expected the number of an entry of this {self.purpose}, got {index}")
        return _entry(rows[0])

    def verify(self) -> None:
        """Check the whole chain.

        Raises:
            Tampered: the first thing that does not hold.
        """
        for problem in problems(self.rows(0), self.purpose, self.public_keys[0]):
            raise Tampered(f"the {self.purpose} does not hold: {problem}; restore it and compare with its peers")

    def check_not_rolled_back(self, heads: Iterable[Head | str]) -> None:
        """Check that every head that peers have seen still lies in this chain.

        Args:
            heads: signed heads, or bare head hashes, as peers keep them.

        Raises:
            Tampered: a head is missing: this is an old copy, and the gap has to be imported as spend.
        """
        for head in heads:
            digest = head if isinstance(head, str) else head.hash
            if isinstance(head, Head):
                head.check()
            if not self.contains(digest):
                raise Tampered(
                    f"the {self.purpose} lacks the head {digest[:12]} that a peer has seen: it was rolled back; "
                    "restore the newest copy, or import the missing spend before working on"
                )

    def contains(self, digest: str) -> bool:
        """Tell whether an entry (or the empty chain) has this hash."""
        found = self._query("SELECT 1 FROM entries WHERE hash = ?", (digest,))
        return bool(found) or digest == genesis(self.purpose, self.public_keys[0])

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        with self._lock:
            if self._connection is not None and self._process == os.getpid():
                self._connection.close()
            self._connection = None

    def _write_head_file(self, head: Head) -> None:
        write_head(head_file(self.path), asdict(head))

    def _author(self) -> Identity:
        if self._identity is None:
            raise Refused(f"this {self.purpose} was opened for reading only: open it with its owner's identity")
        return self._identity

    def rows(self, since: int, kind: str | None = None) -> list[tuple[Any, ...]]:
        """Return the rows of entries above ``since``, oldest first, of one ``kind`` or of all."""
        where, values = ("AND kind = ?", (since, kind)) if kind is not None else ("", (since,))
        return self._query(f"SELECT {_COLUMNS} FROM entries WHERE number > ? {where} ORDER BY number", values)  # noqa: S608

    def _tail(self) -> tuple[int, str, str]:
        rows = self._query("SELECT number, hash, at FROM entries ORDER BY number DESC LIMIT 1", ())
        if rows:
            return rows[0][0], rows[0][1], rows[0][2]
        return 0, genesis(self.purpose, self.public_keys[0]), written_time(datetime.fromtimestamp(0, UTC))

    def _time_after(self, last: str) -> datetime:
        return max(self._clock(), read_time(last) + timedelta(microseconds=1))

    def _query(self, sql: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._connect().execute(sql, values).fetchall()

    def _begin(self, connection: sqlite3.Connection) -> int:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
                raise
            raise Refused(f"the {self.purpose} is busy (or is open in this thread already): try again") from error
        return self._tail()[0]

    def _connect(self) -> sqlite3.Connection:
        if self._connection is None or self._process != os.getpid():  # a forked child opens its own
            if self._identity is None:
                self._connection = read_sqlite(self.path, SCHEMA, busy_seconds=_BUSY_SECONDS)
            else:
                self._connection = open_sqlite(self.path, SCHEMA, pragmas=_DURABLE, busy_seconds=_BUSY_SECONDS)
            self._process = os.getpid()
        return self._connection

    def _owner(self) -> tuple[str, ...]:
        """Return the owner's keys; the identity that opens the chain for writing must have the last one."""
        try:
            rows = self._query(_OWNER, ())
            if not rows and self._identity is not None:
                self._connect().execute(_TAKE, (self.purpose, self._identity.public_key))
                rows = self._query(_OWNER, ())
            keys = [str(key) for _, key in rows]
            keys += [new_key(json.loads(text)) for (text,) in self._query(_ROTATIONS, (ROTATED,))]
        except (sqlite3.DatabaseError, json.JSONDecodeError) as error:
            raise InvalidInput(f"{self.path.name} is not a {self.purpose}: {error}; restore it") from error
        ours = self._identity is None or [self._identity.public_key] == keys[-1:]
        if len(rows) != 1 or rows[0][0] != self.purpose or not ours:
            raise InvalidInput(f"{self.path.name} is the chain of another owner or purpose than this {self.purpose}")
        return tuple(keys)


def _entry(row: Row) -> Entry:
    index, kind, text, at, previous, digest, signature = row
    return Entry(
        index=index,
        kind=kind,
        body=json.loads(text),
        at=at,
        previous_hash=previous,
        hash=digest,
        signature=signature,
    )
