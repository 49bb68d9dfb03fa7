"""What the journal says of people: signing in and failing to, tokens that are used, and reports that are fetched.

A flood of failures makes one entry a minute for each address, with how many there were.
"""

from __future__ import annotations

import datetime as dt
import threading
from typing import Any

from datasites.review.accounts import AccountStore, Credential
from privacy.ledger.journal import Journal

_APART = dt.timedelta(minutes=1)
_TOKEN_APART = dt.timedelta(hours=1)
_MOST = 1000


class PeopleRecords:
    """Writes into the journal who came and went; no password, secret or mistyped name is in it."""

    def __init__(self, journal: Journal, accounts: AccountStore) -> None:
        self._journal, self._accounts = journal, accounts
        self._lock = threading.Lock()
        self._failures: dict[tuple[str, str], tuple[dt.datetime, int]] = {}
        self._tokens: dict[str, dt.datetime] = {}

    def signed_in(self, name: str, address: str, *, by: str = "password") -> None:
        """Write down that somebody signed in."""
        self._journal.append("signed-in", {"person": name, "address": address, "by": by})

    def signed_out(self, name: str) -> None:
        """Write down that somebody signed out."""
        self._journal.append("signed-out", {"person": name})

    def failed(self, name: str, address: str, *, what: str, now: dt.datetime) -> None:
        """Write down that a password was refused; the name only where there is such an account."""
        known = any(account.name == name for account in self._accounts.accounts())
        key = (name if known else "unknown", address)
        with self._lock:
            self._write_out(now)
            since, times = self._failures.get(key, (None, 0))
            if since is None:
                while len(self._failures) >= _MOST:
                    self._write_one(next(iter(self._failures)))
                self._failures[key] = (now, 0)
                self._append(key, what, 1)
            else:
                self._failures[key] = (since, times + 1)

    def flush(self, now: dt.datetime) -> None:
        """Write down the failures that were counted and are a minute old."""
        with self._lock:
            self._write_out(now)

    def token_used(self, credential: Credential, address: str, *, now: dt.datetime) -> None:
        """Write down that a machine token was used; once an hour for each."""
        with self._lock:
            last = self._tokens.get(credential.key)
            if last is not None and now - last < _TOKEN_APART:
                return
            while len(self._tokens) >= _MOST:
                del self._tokens[next(iter(self._tokens))]
            self._tokens[credential.key] = now
        body = {"person": credential.account.name, "token": credential.key, "label": credential.label}
        self._journal.append("token-used", {**body, "address": address})

    def fetched(self, kind: str, credential: Credential, address: str, **body: Any) -> None:
        """Write down that a report or an export was fetched: by whom, with which session or token, and from where."""
        who = {"person": credential.account.name, credential.kind: credential.key, "address": address}
        self._journal.append(kind, {**who, **body})

    def wrote(self, kind: str, **body: Any) -> None:
        """Write down anything else that a person did here."""
        self._journal.append(kind, body)

    def _write_out(self, now: dt.datetime) -> None:
        for key in [key for key, (since, _) in self._failures.items() if now - since >= _APART]:
            self._write_one(key)

    def _write_one(self, key: tuple[str, str]) -> None:
        _, times = self._failures.pop(key)
        if times:
            self._append(key, "password, and more of it in the minute after", times)

    def _append(self, key: tuple[str, str], what: str, times: int) -> None:
        self._journal.append("sign-in-failed", {"person": key[0], "address": key[1], "what": what, "times": times})
