"""What the mailbox keeps: one SQLite table of places, and the letters as files by hash.

A letter is on disk (written aside, synced, renamed) before its row is committed (WAL, synchronous=FULL), so a crash at
any moment loses nothing that was acknowledged. Every change takes the next sequence number; a reader who knows
everything up to some number asks for what came after it. Removed letters leave a row that says so.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from datasites.node.files import write_atomically
from datasites.node.letters import Place
from privacy.canonical import sha256_hex
from privacy.errors import InvalidInput, Refused
from privacy.storage import Schema, open_sqlite, sql

_SCHEMA = Schema(
    "mailbox",
    table="letters",
    migrations=(
        sql("""
CREATE TABLE IF NOT EXISTS letters (
  owner TEXT NOT NULL, box TEXT NOT NULL, folder TEXT NOT NULL, name TEXT NOT NULL, writer TEXT NOT NULL,
  sha256 TEXT NOT NULL, size INTEGER NOT NULL, sequence INTEGER NOT NULL,
  PRIMARY KEY (owner, box, folder, name)
) WITHOUT ROWID;
CREATE UNIQUE INDEX IF NOT EXISTS letters_by_sequence ON letters (sequence);
CREATE INDEX IF NOT EXISTS letters_by_hash ON letters (sha256);
CREATE INDEX IF NOT EXISTS letters_by_writer ON letters (writer);
CREATE TABLE IF NOT EXISTS shares (
  owner TEXT NOT NULL, box TEXT NOT NULL, folder TEXT NOT NULL, reader TEXT NOT NULL,
  PRIMARY KEY (owner, box, folder, reader)
) WITHOUT ROWID;
"""),
    ),
)
_VISIBLE = """
  ((owner = :reader AND box != 'outbox') OR (box IN ('bundle', 'outbox') AND folder = :reader)
   OR EXISTS (SELECT 1 FROM shares s WHERE s.owner = letters.owner AND s.box = letters.box
              AND s.folder = letters.folder AND s.reader = :reader))
"""
_GONE = ""


@dataclass(frozen=True, kw_only=True)
class Item:
    """One place that a reader may see; ``sha256`` is empty once the letter was removed."""

    place: Place
    sha256: str
    size_bytes: int
    sequence: int


@dataclass(frozen=True, kw_only=True)
class MailboxLimits:
    """What one writer may store."""

    letter_bytes: int = 192 * 1024**2
    writer_bytes: int = 8 * 1024**3
    writer_letters: int = 200_000
    writer_shares: int = 20_000


class MailboxStore:
    """The mailbox's memory in one folder; safe to use from several threads of one process."""

    def __init__(self, folder: Path, limits: MailboxLimits | None = None) -> None:
        self.limits = limits or MailboxLimits()
        self._files = folder / "letters"
        self._files.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        durable = {"journal_mode": "WAL", "synchronous": "FULL"}
        self._database = open_sqlite(folder / "mailbox.sqlite", _SCHEMA, pragmas=durable, busy_seconds=10.0)
        self._sweep()

    def close(self) -> None:
        """Let go of the database."""
        with self._lock:
            self._database.close()

    def put(self, place: Place, letter: bytes) -> int:
        """Keep ``letter`` at ``place``, in place of what was there, and return its sequence number.

        Raises:
            InvalidInput: the letter is too long.
            Refused: the writer has used up what it may store.
        """
        if len(letter) > self.limits.letter_bytes:
            raise InvalidInput(f"expected at most {self.limits.letter_bytes} bytes, got {len(letter)}")
        digest = sha256_hex(letter)
        with self._transaction() as database:
            known = self._row(place)
            if known is not None and known[0] == digest:
                return int(known[1])
            self._check_quota(place.writer, len(letter))
            if not self._path(digest).exists():
                write_atomically(self._path(digest), letter)
            sequence = self._next()
            database.execute(
                "INSERT OR REPLACE INTO letters VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (*_key(place), place.writer, digest, len(letter), sequence),
            )
        if known is not None:
            self._forget(known[0])
        return sequence

    def get(self, place: Place) -> bytes | None:
        """Return the letter at ``place``, or None."""
        with self._lock:
            row = self._row(place)
            return self._path(row[0]).read_bytes() if row and row[0] != _GONE else None

    def remove(self, places: Iterable[Place]) -> None:
        """Remove letters; places without one are passed over."""
        gone: set[str] = set()
        with self._transaction() as database:
            for place in places:
                row = self._row(place)
                if row is None or row[0] == _GONE:
                    continue
                gone.add(row[0])
                database.execute(
                    "UPDATE letters SET sha256 = '', size = 0, sequence = ?"
                    " WHERE owner = ? AND box = ? AND folder = ? AND name = ?",
                    (self._next(), *_key(place)),
                )
        for digest in gone:
            self._forget(digest)

    def share(self, owner: str, box: str, folder: str, readers: Iterable[str]) -> None:
        """Let ``readers`` see a folder; its letters become news for them.

        Raises:
            Refused: the owner shares too much already; nothing more is shared.
        """
        with self._transaction() as database:
            before = database.total_changes
            database.executemany(
                "INSERT OR IGNORE INTO shares VALUES (?, ?, ?, ?)", [(owner, box, folder, r) for r in readers]
            )
            if database.total_changes == before:
                return
            shares = database.execute("SELECT count(*) FROM shares WHERE owner = ?", (owner,)).fetchone()[0]
            if shares > self.limits.writer_shares:
                raise Refused(f"{owner} shares more than {self.limits.writer_shares} folders; share fewer")
            names = database.execute(
                "SELECT name FROM letters WHERE owner = ? AND box = ? AND folder = ?", (owner, box, folder)
            ).fetchall()
            for (name,) in names:
                database.execute(
                    "UPDATE letters SET sequence = ? WHERE owner = ? AND box = ? AND folder = ? AND name = ?",
                    (self._next(), owner, box, folder, name),
                )

    def is_shared(self, place: Place, reader: str) -> bool:
        """Say whether the owner of ``place`` shared its folder with ``reader``."""
        with self._lock:
            row = self._database.execute(
                "SELECT 1 FROM shares WHERE owner = ? AND box = ? AND folder = ? AND reader = ?",
                (place.owner, place.box, place.folder, reader),
            ).fetchone()
        return row is not None

    def news(self, reader: str, since: int, limit: int) -> list[Item]:
        """Return what ``reader`` may see and changed after ``since``, oldest change first."""
        query = f"SELECT * FROM letters WHERE sequence > :since AND {_VISIBLE} ORDER BY sequence LIMIT :limit"  # noqa: S608  # constant text
        with self._lock:
            rows = self._database.execute(query, {"reader": reader, "since": since, "limit": limit}).fetchall()
        return [_item(row) for row in rows]

    @property
    def sequence(self) -> int:
        """The number of the last change."""
        with self._lock:
            return self._next() - 1

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:  # SQLite itself ends some that fail, on a full disk for one
                    self._database.execute("ROLLBACK")
                raise

    def _row(self, place: Place) -> tuple[str, int] | None:
        found: tuple[str, int] | None = self._database.execute(
            "SELECT sha256, sequence FROM letters WHERE owner = ? AND box = ? AND folder = ? AND name = ?",
            _key(place),
        ).fetchone()
        return found

    def _next(self) -> int:
        return int(self._database.execute("SELECT coalesce(max(sequence), 0) + 1 FROM letters").fetchone()[0])

    def _check_quota(self, writer: str, size: int) -> None:
        letters, used = self._database.execute(
            "SELECT count(*), coalesce(sum(size), 0) FROM letters WHERE writer = ? AND sha256 != ''", (writer,)
        ).fetchone()
        if letters >= self.limits.writer_letters or used + size > self.limits.writer_bytes:
            raise Refused(f"{writer} has used up its share of the mailbox; remove old letters first")

    def _path(self, digest: str) -> Path:
        return self._files / digest[:2] / digest

    def _forget(self, digest: str) -> None:
        with self._lock:
            if (
                digest
                and not self._database.execute("SELECT 1 FROM letters WHERE sha256 = ? LIMIT 1", (digest,)).fetchone()
            ):
                self._path(digest).unlink(missing_ok=True)

    def _sweep(self) -> None:
        for path in self._files.glob("*/*"):
            if path.name.startswith("."):
                path.unlink(missing_ok=True)
            else:
                self._forget(path.name)


def _key(place: Place) -> tuple[str, str, str, str]:
    return (place.owner, place.box, place.folder, place.name)


def _item(row: tuple[str, str, str, str, str, str, int, int]) -> Item:
    owner, box, folder, name, _, digest, size, sequence = row
    place = Place(owner=owner, box=box, folder=folder, name=name)  # type: ignore[arg-type]  # checked by Place
    return Item(place=place, sha256=digest, size_bytes=size, sequence=sequence)
