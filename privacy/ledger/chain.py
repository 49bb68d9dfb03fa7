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

import base64
import binascii
import contextlib
import json
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from privacy.canonical import NEWEST, CanonicalVersion, canonical_hash, canonical_json
from privacy.errors import InvalidInput, Refused, Tampered
from privacy.identity import Identity, verify
from privacy.ledger.head_file import head_file, write_head
from privacy.storage import Schema, open_sqlite, read_sqlite, sql

if TYPE_CHECKING:
    from alembic.operations import Operations

Purpose = Literal["journal", "ledger"]

_BUSY_SECONDS = 120.0
_DURABLE = {"journal_mode": "WAL", "synchronous": "FULL"}
_OWNER = "SELECT purpose, public_key FROM owner"
_TAKE = (  # an empty chain without an owner: new, or its process was killed before this statement
    "INSERT INTO owner SELECT ?, ? WHERE NOT EXISTS (SELECT 1 FROM owner) AND NOT EXISTS (SELECT 1 FROM entries)"
)
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


Row = Sequence[Any]
"""An entry as it lies in the table: number, kind, body as text, time, previous hash, hash, signature."""
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
        if identity is None and not path.exists():
            raise InvalidInput(f"expected a {purpose} in the file {path.name}, found none")
        if identity is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        self.public_key = self._owner()

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
        at = _format(self._time_after(last))
        digest = entry_hash(_header(self.purpose, index + 1, kind, json.loads(text), at, previous))
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
        signature = ""
        if self._identity is not None:
            signature = self._identity.sign(f"{self.purpose}-head", {"index": index, "hash": digest}, 1)
        return Head(chain=self.purpose, index=index, hash=digest, public_key=self.public_key, signature=signature)

    def now(self) -> datetime:
        """Return the time, never earlier than the newest entry: a clock set back revives no expired approval."""
        return max(self._clock(), _parse(self._tail()[2]))

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
        for problem in problems(self.rows(0), self.purpose, self.public_key):
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
        return bool(found) or digest == genesis(self.purpose, self.public_key)

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
        return 0, genesis(self.purpose, self.public_key), _format(datetime.fromtimestamp(0, UTC))

    def _time_after(self, last: str) -> datetime:
        return max(self._clock(), _parse(last) + timedelta(microseconds=1))

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

    def _owner(self) -> str:
        try:
            rows = self._query(_OWNER, ())
        except sqlite3.DatabaseError as error:
            raise InvalidInput(f"{self.path.name} is not a {self.purpose}: {error}; restore it") from error
        if not rows and self._identity is not None:
            self._connect().execute(_TAKE, (self.purpose, self._identity.public_key))
            rows = self._query(_OWNER, ())
        expected = self._identity.public_key if self._identity else rows[0][1] if rows else ""
        if rows != [(self.purpose, expected)]:
            raise InvalidInput(f"{self.path.name} is the chain of another owner or purpose than this {self.purpose}")
        return str(expected)


def genesis(purpose: Purpose, public_key: str) -> str:
    """Return the hash that the first entry of an owner's chain points back to."""
    return canonical_hash({"chain": purpose, "owner": public_key}, 1)


def entry_hash(header: Mapping[str, Any], version: CanonicalVersion = NEWEST) -> str:
    """Return the hash of an entry: everything in it but the signature, and the version (not stated where it is 1)."""
    return canonical_hash(header if version == 1 else {**header, "canonical": version}, version)


def _header(purpose: str, index: int, kind: str, body: Any, at: str, previous_hash: str) -> dict[str, Any]:
    return {"chain": purpose, "index": index, "kind": kind, "body": body, "at": at, "previous_hash": previous_hash}


def _version(header: Mapping[str, Any], digest: str) -> CanonicalVersion | None:
    """Return the version under which an entry has this hash, None if there is none."""
    with contextlib.suppress(InvalidInput):  # version 2 refuses integers that version 1 takes
        if entry_hash(header) == digest:
            return NEWEST
    return 1 if entry_hash(header, 1) == digest else None


def problems(
    rows: Iterable[Row], purpose: Purpose, public_key: str, *, after: tuple[int, str, str] | None = None
) -> Iterator[str]:
    """Yield everything that does not hold in the rows of a chain, in order; nothing when it is whole.

    ``after`` is number, hash and time of the entry that they follow; None begins the chain.
    """
    number, previous, last = after or (0, genesis(purpose, public_key), "")
    for expected, row in enumerate(rows, start=number + 1):
        index, kind, text, at, claimed_previous, digest, signature = row
        where = f"entry {expected}"
        try:
            if index != expected:
                yield f"{where}: numbered {index}"
            if claimed_previous != previous:
                yield f"{where}: does not follow the entry before it"
            body = json.loads(text)
            version = _version(_header(purpose, index, kind, body, at, claimed_previous), digest)
            if version is None:
                yield f"{where}: its hash does not fit its content"
            if canonical_json(body, version or NEWEST).decode() != text:
                yield f"{where}: its body is not in canonical form"
            if at <= last or _format(_parse(at)) != at:
                yield f"{where}: its time is malformed or not later than the entry before it"
            if base64.b64encode(base64.b64decode(signature, validate=True)).decode() != signature:
                yield f"{where}: its signature is not in canonical form"
            verify(public_key, f"{purpose}-entry", {"index": index, "hash": digest}, signature, 1)
        except Tampered:
            yield f"{where}: its signature does not hold"
        except (InvalidInput, ValueError, TypeError, binascii.Error, RecursionError):
            yield f"{where}: malformed"
        previous, last = str(digest), str(at)


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


def _format(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _parse(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
