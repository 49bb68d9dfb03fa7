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
import secrets
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

import argon2

from datasites.review.key_wrapping import Hardness, hash_of_nothing, unwrap, wrap
from datasites.review.people.attempts import (
    ATTEMPTS_PER_WINDOW,
    WINDOW_SECONDS,
    Standing,
    attempted,
    count_attempt,
    forget_attempts,
)
from datasites.review.people.names import check_account_name, title_of
from datasites.review.people.passwords import MINIMUM_PASSWORD, candidates, prepared
from datasites.review.people.rows import (
    ACCOUNT_COLUMNS,
    FOUNDER,
    Account,
    Credential,
    Role,
    Rows,
    Scope,
    account_of,
    hashed,
)
from datasites.review.people.security_keys import SecurityKeys
from datasites.review.people.sessions import SESSION_HOURS, Sessions
from datasites.review.people.vouching import BY_COMMAND, check_vouches
from privacy.errors import InvalidInput, Refused
from privacy.identity import Identity
from privacy.sentences import say

__all__ = [
    "ATTEMPTS_PER_WINDOW",
    "BY_COMMAND",
    "LINKED",
    "MINIMUM_PASSWORD",
    "SESSION_HOURS",
    "WINDOW_SECONDS",
    "Account",
    "AccountStore",
    "Credential",
    "Hardness",
    "Role",
    "Scope",
]

INVITATION_HOURS = 72
LINKED = "linked sign-in"
"""Label of sessions that a sign-in elsewhere has opened (:mod:`datasites.review.oidc`)."""
_DERIVATIONS_AT_ONCE = 2  # each takes 64 MiB
_LONGEST_WAIT_SECONDS = 60.0
_WRONG = say("the name and the password do not go together")


class AccountStore:
    """Accounts of one datasite in one SQLite file; safe to use from several threads.

    Args:
        path: the file, made when it is missing.
        hardness: of the keys derived from passwords.
        idle_minutes: after how long without use a browser session ends.
    """

    def __init__(self, path: Path, *, hardness: Hardness | None = None, idle_minutes: float = 30.0) -> None:
        self._hardness = hardness or Hardness()
        self._hasher = argon2.PasswordHasher(self._hardness.passes, self._hardness.memory_kib, self._hardness.lanes)
        self._turns = threading.BoundedSemaphore(_DERIVATIONS_AT_ONCE)
        self._rows = Rows(path)
        self.sessions = Sessions(self._rows, idle_minutes)
        self.security_keys = SecurityKeys(self._rows)
        self._nobody = hash_of_nothing(self._hasher)

    def close(self) -> None:
        """Close the file."""
        self._rows.close()

    def invite(
        self, role: Role, *, now: dt.datetime, subject: tuple[str, str] | None = None, by: str = BY_COMMAND
    ) -> str:
        """Return a secret that lets one person register once, as ``role``, within three days.

        Args:
            role: of the account.
            now: the present time.
            subject: issuer and subject of a sign-in elsewhere that the new account will be linked with.
            by: who invites; somebody else has to confirm the new account.
        """
        if role not in get_args(Role):
            raise InvalidInput(
                say(
                    "expected one of the roles {roles}, got {role!r}",
                    roles=", ".join(get_args(Role)),
                    role=role[:40],
                )
            )
        token = secrets.token_urlsafe(24)
        expires = (now + dt.timedelta(hours=INVITATION_HOURS)).isoformat()
        self._rows.run("INSERT INTO invitations VALUES (?, ?, ?, ?)", hashed(token), role, expires, by)
        if subject is not None:
            self._rows.run("INSERT INTO invited_subjects VALUES (?, ?, ?)", hashed(token), *subject)
        return token

    def invited(self, *, now: dt.datetime) -> bool:
        """Return whether a link is out that somebody can still register with."""
        return self._rows.one("SELECT 1 FROM invitations WHERE expires > ?", now.isoformat()) is not None

    def invitation_role(self, token: str, *, now: dt.datetime) -> Role:
        """Return the role a still valid invitation is for.

        Raises:
            Refused: unknown, used or expired.
        """
        row = self._rows.one("SELECT role, expires FROM invitations WHERE hash = ?", hashed(token))
        if row is None or dt.datetime.fromisoformat(row[1]) <= now:
            raise Refused(say("this one-time link is unknown, used or expired; ask for a new one"))
        role: Role = row[0]
        return role

    def register(
        self, token: str, name: str, password: str, *, now: dt.datetime, full_name: str = "", function: str = ""
    ) -> Account:
        """Create the account that an invitation allows, with a new signing key, and use the invitation up.

        The first account of a datasite needs nobody who vouches for it; every later one is fresh
        (:mod:`datasites.review.people.vouching`).

        Raises:
            Refused: the invitation does not hold.
            InvalidInput: a name or password that is not acceptable, or a name that is taken.
        """
        role = self.invitation_role(token, now=now)
        check_account_name(name)
        full_name, function = title_of(full_name), title_of(function)
        password = prepared(password)
        seed, salt = os.urandom(32), os.urandom(16)
        with self._turn():
            key, wrapped = self._hasher.hash(password), wrap(seed, name, password, salt, self._hardness)
        public_key = Identity.from_seed(seed).public_key
        with self._rows.transaction() as database:
            found = database.execute("SELECT invited_by FROM invitations WHERE hash = ?", (hashed(token),)).fetchone()
            if found is None:
                raise Refused(say("this one-time link was used a moment ago; ask for a new one"))
            first = not database.execute("SELECT 1 FROM accounts").fetchone() and role == "steward"
            database.execute("DELETE FROM invitations WHERE hash = ?", (hashed(token),))
            values = (name, role, key, public_key, salt, wrapped, now.isoformat(), full_name, function, found[0])
            try:
                database.execute(
                    "INSERT INTO accounts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", (*values, FOUNDER if first else "")
                )
            except sqlite3.IntegrityError as error:
                raise InvalidInput(say("the name {name!r} is taken; choose another", name=name)) from error
            database.execute(
                "INSERT OR IGNORE INTO links SELECT issuer, subject, ?, ? FROM invited_subjects WHERE hash = ?",
                (name, now.isoformat(), hashed(token)),
            )
        return self.account(name)

    def account(self, name: str) -> Account:
        """Return the account called ``name``.

        Raises:
            InvalidInput: there is none.
        """
        row = self._rows.one(f"SELECT {ACCOUNT_COLUMNS} FROM accounts WHERE name = ?", name)  # noqa: S608 - ours
        if row is None:
            raise InvalidInput(say("there is no account {name!r} here", name=name[:64]))
        return account_of(row)

    def accounts(self) -> tuple[Account, ...]:
        """Return everybody, by name."""
        rows = self._rows.all(f"SELECT {ACCOUNT_COLUMNS} FROM accounts ORDER BY name")  # noqa: S608 - ours
        return tuple(account_of(row) for row in rows)

    def vouch(self, name: str, person: Account | None) -> Account:
        """Write down that a second person confirmed a new account, which is fresh no more.

        Args:
            name: of the new account.
            person: who confirms it; None for whoever runs commands on this machine.

        Raises:
            InvalidInput: there is no such account.
            Refused: not a second person, or not a fresh account.
        """
        newcomer = self.account(name)
        if person is not None:
            check_vouches(person, newcomer)
        elif newcomer.invited_by == BY_COMMAND or not newcomer.fresh:
            raise Refused(
                say(
                    "{name} was invited from here, or is confirmed; a person confirms the others in the portal",
                    name=name,
                )
            )
        by = person.name if person is not None else BY_COMMAND
        if not self._rows.run("UPDATE accounts SET vouched_by = ? WHERE name = ? AND vouched_by = ''", by, name):
            raise Refused(say("the account of {name} was confirmed already", name=name))  # by a click at the same time
        return self.account(name)

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
            raise Refused(say("{name} is the last steward here; invite another first", name=name))
        nothing = (hash_of_nothing(self._hasher), b"", b"", name)
        with self._rows.transaction() as database:
            database.execute("UPDATE accounts SET password = ?, salt = ?, wrapped = ? WHERE name = ?", nothing)
            for table in ("credentials", "links", "known_browsers", "known_places", "security_keys"):
                database.execute(f"DELETE FROM {table} WHERE account = ?", (name,))  # noqa: S608 - ours

    def retired(self) -> frozenset[str]:
        """Return the names of closed accounts."""
        return frozenset(row[0] for row in self._rows.all("SELECT name FROM accounts WHERE length(wrapped) = 0"))

    def authenticate(
        self, name: str, password: str, *, now: dt.datetime, place: str = "", browser: str = ""
    ) -> Account:
        """Check a password; after six failures within five minutes from one place the place has to wait.

        Args:
            name: of the account.
            password: as it was typed.
            now: the present time.
            place: where from, such as an address.
            browser: the secret of a browser that has signed in as this person before; it counts for itself.

        Raises:
            Refused: wrong name or password (the same words for both), or too many attempts.
        """
        row = self._rows.one("SELECT password FROM accounts WHERE name = ?", name)
        known = self.sessions.browser_of(name, browser, now=now) if browser else ""
        place = f"browser {known}" if known else place
        with self._turn():
            number = count_attempt(self._rows, name, place, now=now, known=bool(known))
            if not any(self._verified(row[0] if row else self._nobody, form) for form in candidates(password)):
                raise Refused(_WRONG)
        forget_attempts(self._rows, name, place, number)
        return self.account(name)

    def standing(self, name: str, *, now: dt.datetime, place: str = "", browser: str = "") -> Standing:
        """Return what is known of a name that signs in; arguments as of :meth:`authenticate`."""
        sessions = self.sessions
        if (browser and sessions.browser_of(name, browser, now=now)) or sessions.knows_place(name, place, now=now):
            return "known"
        return "failed" if attempted(self._rows, name, place, now=now) else "new"

    def prove(self, credential: Credential, password: str, *, now: dt.datetime) -> Identity:
        """Check the password of somebody who is signed in, and return their signing key.

        Attempts count for this session alone, so whoever guesses elsewhere keeps nobody from signing.

        Raises:
            Refused: the wrong password, or too many attempts.
        """
        name, place = credential.account.name, f"session {credential.key}"
        number = count_attempt(self._rows, name, place, now=now, known=True)
        key = self.unlock(name, password)
        forget_attempts(self._rows, name, place, number)
        return key

    def unlock(self, name: str, password: str) -> Identity:
        """Return the person's signing key; only their password opens it.

        Raises:
            Refused: the password does not open the key.
        """
        return Identity.from_seed(self._seed(name, password)[0])

    def change_password(self, name: str, old: str, new: str) -> None:
        """Lock the person's signing key with a new password; the key stays the same.

        Raises:
            Refused: the old password is wrong.
            InvalidInput: the new one is not acceptable, or the old one again.
        """
        new = prepared(new)
        if new in candidates(old):
            raise InvalidInput(say("expected a password other than the present one"))
        seed, wrapped = self._seed(name, old)
        salt = os.urandom(16)
        with self._turn():
            values = (self._hasher.hash(new), salt, wrap(seed, name, new, salt, self._hardness), name, wrapped)
        changed = self._rows.run(
            "UPDATE accounts SET password = ?, salt = ?, wrapped = ? WHERE name = ? AND wrapped = ?", *values
        )
        if not changed:
            raise Refused(say("the password was changed a moment ago; sign in with that one"))

    def rename(self, name: str, *, full_name: str, function: str) -> Account:
        """Change a person's full name and function; what they signed before keeps the ones of that time.

        Raises:
            InvalidInput: there is no such account, or a name that does not read as it is.
        """
        values = (title_of(full_name), title_of(function), name)
        self._rows.run("UPDATE accounts SET full_name = ?, function = ? WHERE name = ?", *values)
        return self.account(name)

    def link(self, name: str, issuer: str, subject: str, *, now: dt.datetime) -> None:
        """Let whom ``issuer`` calls ``subject`` sign in as ``name`` from now on; it opens sessions and signs nothing.

        Raises:
            Refused: this sign-in is linked with somebody else's account.
        """
        row = self._rows.one("SELECT account FROM links WHERE issuer = ? AND subject = ?", issuer, subject)
        if row is not None and row[0] != name:
            raise Refused(say("this sign-in is linked with another account here"))
        self._rows.run("INSERT OR IGNORE INTO links VALUES (?, ?, ?, ?)", issuer, subject, name, now.isoformat())

    def unlink(self, name: str) -> None:
        """Forget every sign-in elsewhere of an account, and end the sessions that came from one."""
        self._rows.run("DELETE FROM links WHERE account = ?", name)
        self._rows.run("DELETE FROM credentials WHERE account = ? AND label = ?", name, LINKED)

    def linked(self, issuer: str, subject: str) -> Account | None:
        """Return the account that a sign-in elsewhere opens, or None."""
        row = self._rows.one("SELECT account FROM links WHERE issuer = ? AND subject = ?", issuer, subject)
        return None if row is None else self.account(row[0])

    def has_link(self, name: str) -> bool:
        """Return whether an account can be opened by a sign-in elsewhere."""
        return self._rows.one("SELECT 1 FROM links WHERE account = ?", name) is not None

    def open_session(self, account: Account, *, now: dt.datetime, label: str = "browser") -> tuple[str, Credential]:
        """Start a browser session of eight hours; return its secret cookie value and what it grants."""
        return self.sessions.open(account, now=now, label=label)

    def issue_token(
        self, account: Account, *, scopes: tuple[Scope, ...], label: str, days: float, now: dt.datetime
    ) -> tuple[str, Credential]:
        """Issue a machine token, as :meth:`Sessions.issue_token` does."""
        return self.sessions.issue_token(account, scopes=scopes, label=label, days=days, now=now)

    def credential(self, secret: str, *, now: dt.datetime) -> Credential | None:
        """Return what ``secret`` grants, or None when it is unknown, expired or idle for too long."""
        return self.sessions.find(secret, now=now)

    def end(self, secret: str) -> None:
        """Forget a session or token."""
        self.sessions.end(secret)

    def _seed(self, name: str, password: str) -> tuple[bytes, bytes]:
        """Return the seed of a person's key, and as what it is stored."""
        salt, wrapped = self._rows.one("SELECT salt, wrapped FROM accounts WHERE name = ?", name) or (b"", b"")
        for form in candidates(password):
            with self._turn():
                try:
                    return unwrap(wrapped, name, form, salt, self._hardness), wrapped
                except Refused:
                    continue
        raise Refused(say("this is not your password"))

    def _verified(self, stored: str, password: str) -> bool:
        try:
            return bool(self._hasher.verify(stored, password))
        except argon2.exceptions.VerificationError:
            return False

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Let few derive a key from a password at the same time: memory and processors are for the others too."""
        if not self._turns.acquire(timeout=_LONGEST_WAIT_SECONDS):
            raise Refused(say("too many people sign in at this moment; try again in a few seconds"))
        try:
            yield
        finally:
            self._turns.release()
