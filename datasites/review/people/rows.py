"""The rows behind the accounts of one datasite, and the values that are read from them."""

from __future__ import annotations

import datetime as dt
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from privacy.canonical import sha256_hex
from privacy.storage import Schema, open_sqlite, sql

Role = Literal["steward", "privacy-officer", "auditor"]
Scope = Literal["read", "review"]
FOUNDER = "first account"
"""Who vouches for the first account of a datasite: nobody was there before it."""

_SCHEMA = Schema(
    "accounts",
    table="accounts",
    migrations=(
        sql("""
CREATE TABLE IF NOT EXISTS accounts (
    name TEXT PRIMARY KEY, role TEXT NOT NULL, password TEXT NOT NULL,
    public_key TEXT NOT NULL UNIQUE, salt BLOB NOT NULL, wrapped BLOB NOT NULL, created TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS invitations (hash TEXT PRIMARY KEY, role TEXT NOT NULL, expires TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS credentials (
    hash TEXT PRIMARY KEY, account TEXT NOT NULL REFERENCES accounts(name), kind TEXT NOT NULL,
    scopes TEXT NOT NULL, csrf TEXT NOT NULL, label TEXT NOT NULL, expires TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS links (
    issuer TEXT NOT NULL, subject TEXT NOT NULL, account TEXT NOT NULL REFERENCES accounts(name), at TEXT NOT NULL,
    PRIMARY KEY (issuer, subject));
CREATE TABLE IF NOT EXISTS invited_subjects (hash TEXT PRIMARY KEY, issuer TEXT NOT NULL, subject TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS attempts (account TEXT NOT NULL, at REAL NOT NULL);
CREATE INDEX IF NOT EXISTS attempts_account ON attempts (account, at);
"""),
        sql("""
ALTER TABLE accounts ADD COLUMN full_name TEXT NOT NULL DEFAULT '';
ALTER TABLE accounts ADD COLUMN function TEXT NOT NULL DEFAULT '';
ALTER TABLE accounts ADD COLUMN invited_by TEXT NOT NULL DEFAULT '';
ALTER TABLE accounts ADD COLUMN vouched_by TEXT NOT NULL DEFAULT '';
UPDATE accounts SET vouched_by = 'earlier version';
ALTER TABLE invitations ADD COLUMN invited_by TEXT NOT NULL DEFAULT '';
ALTER TABLE credentials ADD COLUMN created TEXT NOT NULL DEFAULT '';
ALTER TABLE credentials ADD COLUMN used TEXT NOT NULL DEFAULT '';
CREATE TABLE known_browsers (hash TEXT PRIMARY KEY, account TEXT NOT NULL REFERENCES accounts(name),
    expires TEXT NOT NULL);
"""),
        sql("""
CREATE TABLE security_keys (
    id TEXT PRIMARY KEY, account TEXT NOT NULL REFERENCES accounts(name), public_key BLOB NOT NULL,
    counter INTEGER NOT NULL, label TEXT NOT NULL, party TEXT NOT NULL, created TEXT NOT NULL, used TEXT NOT NULL);
CREATE INDEX security_keys_account ON security_keys (account);
"""),
        sql("""
CREATE TABLE known_places (
    account TEXT NOT NULL REFERENCES accounts(name), place TEXT NOT NULL, expires TEXT NOT NULL,
    PRIMARY KEY (account, place));
"""),
    ),
)
ACCOUNT_COLUMNS = "name, role, public_key, created, full_name, function, invited_by, vouched_by"


@dataclass(frozen=True, kw_only=True)
class Account:
    """One person: their name, role, the public half of their signing key, and who let them in.

    ``created`` is an ISO time; empty for a person who was never here. ``vouched_by`` names the second person who
    confirmed a new account; while it is empty the account is fresh.
    """

    name: str
    role: Role
    public_key: str
    created: str = ""
    full_name: str = ""
    function: str = ""
    invited_by: str = ""
    vouched_by: str = ""

    @property
    def decides(self) -> bool:
        """Whether this person may approve, deny, ask and revoke."""
        return self.role != "auditor"

    @property
    def fresh(self) -> bool:
        """Whether no second person has confirmed this account yet."""
        return bool(self.created) and not self.vouched_by

    @property
    def titled(self) -> str:
        """The full name and function where they are known, otherwise the name to sign in with."""
        return ", ".join(part for part in (self.full_name or self.name, self.function) if part)

    @property
    def title(self) -> str:
        """As :attr:`titled`, but empty where neither full name nor function is known."""
        return self.titled if self.full_name or self.function else ""

    @property
    def signature(self) -> str:
        """The account's name, with full name and function in brackets where they are known."""
        return f"{self.name} ({self.title})" if self.title else self.name

    @property
    def signed(self) -> dict[str, str]:
        """What a record of an act says of the person beside the account's name; nothing where nothing is known."""
        return {"titled": self.title} if self.title else {}


@dataclass(frozen=True, kw_only=True)
class Credential:
    """Who calls, and what they may do: a browser session (with its CSRF token) or a machine token.

    ``key`` is a public name of it, 16 hexadecimal digits of its hash, by which it is listed and ended.
    """

    account: Account
    kind: Literal["session", "token"]
    scopes: tuple[Scope, ...]
    csrf: str
    label: str
    expires: dt.datetime
    key: str = ""
    created: str = ""
    used: str = ""


def account_of(row: tuple[Any, ...]) -> Account:
    """Return the account of a row of :data:`ACCOUNT_COLUMNS`."""
    return Account(
        name=row[0],
        role=row[1],
        public_key=row[2],
        created=row[3],
        full_name=row[4],
        function=row[5],
        invited_by=row[6],
        vouched_by=row[7],
    )


def hashed(secret: str) -> str:
    """Return what is stored of a secret."""
    return sha256_hex(secret.encode())


class Rows:
    """The file; safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.chmod(0o600)  # before SQLite makes the write-ahead log, which takes over the mode
        self._database = open_sqlite(path, _SCHEMA, pragmas={"journal_mode": "WAL"})

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Keep what is written inside, or nothing when the block raises."""
        with self._lock, self._database:
            self._database.execute("BEGIN IMMEDIATE")
            yield self._database

    def run(self, statement: str, *values: object) -> int:
        """Execute one statement; return how many rows it changed."""
        with self._lock:
            return self._database.execute(statement, values).rowcount

    def one(self, statement: str, *values: object) -> tuple[Any, ...] | None:
        """Return the first row, or None."""
        with self._lock:
            row: tuple[Any, ...] | None = self._database.execute(statement, values).fetchone()
        return row

    def all(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Return every row."""
        with self._lock:
            return self._database.execute(statement, values).fetchall()
