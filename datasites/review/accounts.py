"""The people of one datasite: accounts, passwords, reviewers' own signing keys, sessions and machine tokens.

Three roles: a *steward* and a *privacy officer* decide, an *auditor* only reads. Every account that decides has an
Ed25519 key of its own, stored encrypted under a key that is derived from the password (Argon2id, RFC 9106, then
ChaCha20-Poly1305). The server keeps neither password nor key: without the person there is no signature.

    >>> accounts = AccountStore(Path("accounts.sqlite"))
    >>> link = accounts.invite("steward", now=now)
    >>> anna = accounts.register(link, "anna", "a long pass phrase", now=now)
    >>> identity = accounts.unlock("anna", "a long pass phrase")
"""

from __future__ import annotations

import datetime as dt
import os
import re
import secrets
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import argon2

from datasites.review.key_wrapping import Hardness, unwrap, wrap
from privacy.canonical import sha256_hex
from privacy.errors import InvalidInput, Refused
from privacy.identity import Identity
from privacy.storage import Schema, open_sqlite, sql

Role = Literal["steward", "privacy-officer", "auditor"]
Scope = Literal["read", "review"]
SESSION_HOURS = 8
INVITATION_HOURS = 72
ATTEMPTS_PER_WINDOW = 6
WINDOW_SECONDS = 300
MINIMUM_PASSWORD = 12
LINKED = "linked sign-in"
"""Label of sessions that a sign-in elsewhere has opened (:mod:`datasites.review.oidc`)."""
_DERIVATIONS_AT_ONCE = 2  # each takes 64 MiB, and anybody may ask for one
_LONGEST_WAIT_SECONDS = 2.0

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
    ),
)


@dataclass(frozen=True, kw_only=True)
class Account:
    """One person: their name, role and the public half of their signing key."""

    name: str
    role: Role
    public_key: str

    @property
    def decides(self) -> bool:
        """Whether this person may approve, deny, ask and revoke."""
        return self.role != "auditor"


@dataclass(frozen=True, kw_only=True)
class Credential:
    """Who calls, and what they may do: a browser session (with its CSRF token) or a machine token."""

    account: Account
    kind: Literal["session", "token"]
    scopes: tuple[Scope, ...]
    csrf: str
    label: str
    expires: dt.datetime


class AccountStore:
    """Accounts of one datasite in one SQLite file; safe to use from several threads."""

    def __init__(self, path: Path, *, hardness: Hardness | None = None) -> None:
        self._hardness = hardness or Hardness()
        self._hasher = argon2.PasswordHasher(self._hardness.passes, self._hardness.memory_kib, self._hardness.lanes)
        self._lock = threading.Lock()
        self._turns = threading.BoundedSemaphore(_DERIVATIONS_AT_ONCE)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.chmod(0o600)  # before SQLite makes the write-ahead log, which takes over the mode
        self._database = open_sqlite(path, _SCHEMA, pragmas={"journal_mode": "WAL"})
        self._nobody = self._hasher.hash(secrets.token_hex(16))

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def invite(self, role: Role, *, now: dt.datetime, subject: tuple[str, str] | None = None) -> str:
        """Return a secret that lets one person register once, as ``role``, within three days.

        Args:
            role: of the account.
            now: the present time.
            subject: issuer and subject of a sign-in elsewhere that the new account will be linked with.
        """
        if role not in get_args(Role):
            raise InvalidInput(f"expected one of the roles {', '.join(get_args(Role))}, got {role[:40]!r}")
        token = secrets.token_urlsafe(24)
        expires = (now + dt.timedelta(hours=INVITATION_HOURS)).isoformat()
        self._run("INSERT INTO invitations VALUES (?, ?, ?)", _hash(token), role, expires)
        if subject is not None:
            self._run("INSERT INTO invited_subjects VALUES (?, ?, ?)", _hash(token), *subject)
        return token

    def invited(self, *, now: dt.datetime) -> bool:
        """Return whether a link is out that somebody can still register with."""
        return bool(self._all("SELECT 1 FROM invitations WHERE expires > ?", now.isoformat()))

    def invitation_role(self, token: str, *, now: dt.datetime) -> Role:
        """Return the role a still valid invitation is for.

        Raises:
            Refused: unknown, used or expired.
        """
        row = self._one("SELECT role, expires FROM invitations WHERE hash = ?", _hash(token))
        if row is None or dt.datetime.fromisoformat(row[1]) <= now:
            raise Refused("this one-time link is unknown, used or expired; ask for a new one")
        role: Role = row[0]
        return role

    def register(self, token: str, name: str, password: str, *, now: dt.datetime) -> Account:
        """Create the account that an invitation allows, with a new signing key, and use the invitation up.

        Raises:
            Refused: the invitation does not hold.
            InvalidInput: a name or password that is not acceptable, or a name that is taken.
        """
        role = self.invitation_role(token, now=now)
        _check_name(name)
        _check_password(password)
        seed, salt = os.urandom(32), os.urandom(16)
        identity, wrapped = Identity.from_seed(seed), wrap(seed, name, password, salt, self._hardness)
        values = (name, role, self._hasher.hash(password), identity.public_key, salt, wrapped, now.isoformat())
        with self._lock, self._database:
            self._database.execute("BEGIN IMMEDIATE")
            used = self._database.execute("DELETE FROM invitations WHERE hash = ?", (_hash(token),)).rowcount
            if used != 1:
                raise Refused("this one-time link was used a moment ago; ask for a new one")
            try:
                self._database.execute("INSERT INTO accounts VALUES (?, ?, ?, ?, ?, ?, ?)", values)
            except sqlite3.IntegrityError as error:
                raise InvalidInput(f"the name {name!r} is taken; choose another") from error
            self._database.execute(
                "INSERT OR IGNORE INTO links SELECT issuer, subject, ?, ? FROM invited_subjects WHERE hash = ?",
                (name, now.isoformat(), _hash(token)),
            )
        return Account(name=name, role=role, public_key=identity.public_key)

    def account(self, name: str) -> Account:
        """Return the account called ``name``.

        Raises:
            InvalidInput: there is none.
        """
        row = self._one("SELECT name, role, public_key FROM accounts WHERE name = ?", name)
        if row is None:
            raise InvalidInput(f"there is no account {name[:64]!r} here")
        return Account(name=row[0], role=row[1], public_key=row[2])

    def accounts(self) -> tuple[Account, ...]:
        """Return everybody, by name."""
        rows = self._all("SELECT name, role, public_key FROM accounts ORDER BY name")
        return tuple(Account(name=r[0], role=r[1], public_key=r[2]) for r in rows)

    def retire(self, name: str) -> None:
        """Close an account for ever: password, signing key, sessions, tokens and links are gone, the name stays taken.

        What the person has signed stays signed.

        Raises:
            InvalidInput: there is no such account.
            Refused: it is the last steward's, without whom nobody could invite anybody.
        """
        account = self.account(name)
        stewards = [a.name for a in self.accounts() if a.role == "steward" and a.name not in self.retired()]
        if account.role == "steward" and stewards == [name]:
            raise Refused(f"{name} is the last steward here; invite another first")
        with self._lock, self._database:
            self._database.execute("BEGIN IMMEDIATE")
            nothing = (self._hasher.hash(secrets.token_hex(16)), b"", b"", name)
            self._database.execute("UPDATE accounts SET password = ?, salt = ?, wrapped = ? WHERE name = ?", nothing)
            self._database.execute("DELETE FROM credentials WHERE account = ?", (name,))
            self._database.execute("DELETE FROM links WHERE account = ?", (name,))

    def retired(self) -> frozenset[str]:
        """Return the names of closed accounts."""
        return frozenset(row[0] for row in self._all("SELECT name FROM accounts WHERE length(wrapped) = 0"))

    def authenticate(self, name: str, password: str, *, now: dt.datetime) -> Account:
        """Check a password; after six failures within five minutes an account has to wait.

        Raises:
            Refused: wrong name or password (the same words for both), or too many attempts.
        """
        row = self._one("SELECT password FROM accounts WHERE name = ?", name)
        with self._turn():
            self._throttle(name, now)
            try:
                self._hasher.verify(row[0] if row else self._nobody, password)
            except argon2.exceptions.VerificationError as error:
                raise Refused("the name and the password do not go together") from error
        self._run("DELETE FROM attempts WHERE account = ?", name[:64])
        return self.account(name)

    def unlock(self, name: str, password: str) -> Identity:
        """Return the person's signing key; only their password opens it.

        Raises:
            Refused: the password does not open the key.
        """
        row = self._one("SELECT salt, wrapped FROM accounts WHERE name = ?", name)
        if row is None:
            raise Refused("the name and the password do not go together")
        return Identity.from_seed(unwrap(row[1], name, password, row[0], self._hardness))

    def link(self, name: str, issuer: str, subject: str, *, now: dt.datetime) -> None:
        """Let whom ``issuer`` calls ``subject`` sign in as ``name`` from now on; it opens sessions and signs nothing.

        Raises:
            Refused: this sign-in is linked with somebody else's account.
        """
        row = self._one("SELECT account FROM links WHERE issuer = ? AND subject = ?", issuer, subject)
        if row is not None and row[0] != name:
            raise Refused("this sign-in is linked with another account here")
        self._run("INSERT OR IGNORE INTO links VALUES (?, ?, ?, ?)", issuer, subject, name, now.isoformat())

    def unlink(self, name: str) -> None:
        """Forget every sign-in elsewhere of an account, and end the sessions that came from one."""
        self._run("DELETE FROM links WHERE account = ?", name)
        self._run("DELETE FROM credentials WHERE account = ? AND label = ?", name, LINKED)

    def linked(self, issuer: str, subject: str) -> Account | None:
        """Return the account that a sign-in elsewhere opens, or None."""
        row = self._one("SELECT account FROM links WHERE issuer = ? AND subject = ?", issuer, subject)
        return None if row is None else self.account(row[0])

    def has_link(self, name: str) -> bool:
        """Return whether an account can be opened by a sign-in elsewhere."""
        return self._one("SELECT 1 FROM links WHERE account = ?", name) is not None

    def open_session(self, account: Account, *, now: dt.datetime, label: str = "browser") -> tuple[str, Credential]:
        """Start a browser session of eight hours; return its secret cookie value and what it grants."""
        scopes: tuple[Scope, ...] = ("read", "review") if account.decides else ("read",)
        return self._issue(account, "session", scopes, label, now + dt.timedelta(hours=SESSION_HOURS))

    def issue_token(
        self, account: Account, *, scopes: tuple[Scope, ...], label: str, days: float, now: dt.datetime
    ) -> tuple[str, Credential]:
        """Issue a machine token with no more rights than its owner; return the secret and what it grants.

        Raises:
            InvalidInput: no or unknown scope, or a life of more than a year.
            Refused: a scope that the account itself does not have.
        """
        if not scopes or set(scopes) - set(get_args(Scope)) or not 0 < days <= 366:
            raise InvalidInput("expected scopes among read and review, and a life between 0 and 366 days")
        if "review" in scopes and not account.decides:
            raise Refused("an auditor reads and never decides: ask for the scope read only")
        return self._issue(account, "token", tuple(sorted(set(scopes))), label, now + dt.timedelta(days=days))

    def credential(self, secret: str, *, now: dt.datetime) -> Credential | None:
        """Return what ``secret`` grants, or None when it is unknown or expired."""
        row = self._one(
            "SELECT a.name, a.role, a.public_key, c.kind, c.scopes, c.csrf, c.label, c.expires "
            "FROM credentials c JOIN accounts a ON a.name = c.account WHERE c.hash = ?",
            _hash(secret),
        )
        if row is None or dt.datetime.fromisoformat(row[7]) <= now:
            return None
        return Credential(
            account=Account(name=row[0], role=row[1], public_key=row[2]),
            kind=row[3],
            scopes=tuple(row[4].split()),
            csrf=row[5],
            label=row[6],
            expires=dt.datetime.fromisoformat(row[7]),
        )

    def end(self, secret: str) -> None:
        """Forget a session or token."""
        self._run("DELETE FROM credentials WHERE hash = ?", _hash(secret))

    def _issue(
        self,
        account: Account,
        kind: Literal["session", "token"],
        scopes: tuple[Scope, ...],
        label: str,
        expires: dt.datetime,
    ) -> tuple[str, Credential]:
        secret, csrf = secrets.token_urlsafe(32), secrets.token_urlsafe(24)
        row = (_hash(secret), account.name, kind, " ".join(scopes), csrf, label[:80], expires.isoformat())
        self._run("INSERT INTO credentials VALUES (?, ?, ?, ?, ?, ?, ?)", *row)
        return secret, Credential(
            account=account, kind=kind, scopes=scopes, csrf=csrf, label=label[:80], expires=expires
        )

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Let few derive a key from a password at the same time: memory and processors are for the others too."""
        if not self._turns.acquire(timeout=_LONGEST_WAIT_SECONDS):
            raise Refused("too many people sign in at this moment; try again in a few seconds")
        try:
            yield
        finally:
            self._turns.release()

    def _throttle(self, name: str, now: dt.datetime) -> None:
        """Count an attempt before it is made, so that many at once are many; a right password forgets them."""
        since = now.timestamp() - WINDOW_SECONDS
        with self._lock, self._database:
            self._database.execute("BEGIN IMMEDIATE")
            self._database.execute("DELETE FROM attempts WHERE at < ?", (since,))
            made = self._database.execute("SELECT count(*) FROM attempts WHERE account = ?", (name[:64],)).fetchone()
            if made[0] >= ATTEMPTS_PER_WINDOW:
                raise Refused(f"too many attempts: wait {WINDOW_SECONDS // 60} minutes and try again")
            self._database.execute("INSERT INTO attempts VALUES (?, ?)", (name[:64], now.timestamp()))

    def _run(self, statement: str, *values: object) -> None:
        with self._lock:
            self._database.execute(statement, values)

    def _one(self, statement: str, *values: object) -> tuple[Any, ...] | None:
        with self._lock:
            row: tuple[Any, ...] | None = self._database.execute(statement, values).fetchone()
        return row

    def _all(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._database.execute(statement, values).fetchall()


def _hash(secret: str) -> str:
    return sha256_hex(secret.encode())


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,62}", name):
        raise InvalidInput("expected a name of 1 to 63 lower-case letters, digits, dots, dashes or underscores")


def _check_password(password: str) -> None:
    if not MINIMUM_PASSWORD <= len(password) <= 256:
        raise InvalidInput(f"expected a password of {MINIMUM_PASSWORD} to 256 characters; a sentence is good")
