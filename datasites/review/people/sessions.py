"""Browser sessions, machine tokens, browsers and addresses that have signed in before; of secrets only hashes."""

from __future__ import annotations

import datetime as dt
import secrets
from typing import Any, Literal, get_args

from datasites.review.people.rows import ACCOUNT_COLUMNS, Account, Credential, Rows, Scope, account_of, hashed
from privacy.errors import InvalidInput, Refused
from privacy.sentences import say

SESSION_HOURS = 8
KNOWN_BROWSER_DAYS = 180
_KEY_LENGTH = 16
_USE_SECONDS = 60.0
_COLUMNS = ", ".join(f"a.{name.strip()}" for name in ACCOUNT_COLUMNS.split(","))
_SELECT = (
    f"SELECT {_COLUMNS}, c.kind, c.scopes, c.csrf, c.label, c.expires, c.hash, c.created, c.used "  # noqa: S608 - ours
    "FROM credentials c JOIN accounts a ON a.name = c.account"
)


class Sessions:
    """Sessions and tokens of all accounts.

    Args:
        rows: of the accounts.
        idle_minutes: after how long without use a session ends; tokens end by time only.
    """

    def __init__(self, rows: Rows, idle_minutes: float) -> None:
        self._rows = rows
        self.idle_minutes = idle_minutes

    def open(self, account: Account, *, now: dt.datetime, label: str) -> tuple[str, Credential]:
        """Start a browser session of eight hours; return its secret cookie value and what it grants."""
        scopes: tuple[Scope, ...] = ("read", "review") if account.decides else ("read",)
        return self._issue(account, "session", scopes, label, now, now + dt.timedelta(hours=SESSION_HOURS))

    def issue_token(
        self, account: Account, *, scopes: tuple[Scope, ...], label: str, days: float, now: dt.datetime
    ) -> tuple[str, Credential]:
        """Issue a machine token with no more rights than its owner; return the secret and what it grants.

        Raises:
            InvalidInput: no or unknown scope, or a life of more than a year.
            Refused: a scope that the account itself does not have.
        """
        if not scopes or set(scopes) - set(get_args(Scope)) or not 0 < days <= 366:
            raise InvalidInput(say("expected scopes among read and review, and a life between 0 and 366 days"))
        if "review" in scopes and not account.decides:
            raise Refused(say("an auditor reads and never decides: ask for the scope read only"))
        return self._issue(account, "token", tuple(sorted(set(scopes))), label, now, now + dt.timedelta(days=days))

    def find(self, secret: str, *, now: dt.datetime) -> Credential | None:
        """Return what ``secret`` grants, or None when it is unknown, expired, or idle for too long."""
        row = self._rows.one(f"{_SELECT} WHERE c.hash = ?", hashed(secret))
        found = None if row is None else _credential(row)
        return found if found is not None and self._holds(found, now) else None

    def used(self, credential: Credential, *, now: dt.datetime) -> None:
        """Note that a session or token was used; at most once a minute."""
        last = credential.used and dt.datetime.fromisoformat(credential.used)
        if not last or (now - last).total_seconds() >= _USE_SECONDS:
            self._rows.run(
                "UPDATE credentials SET used = ? WHERE account = ? AND substr(hash, 1, 16) = ?",
                now.isoformat(),
                credential.account.name,
                credential.key,
            )

    def of(self, name: str, *, now: dt.datetime) -> tuple[Credential, ...]:
        """Return an account's sessions and tokens that hold, the newest first."""
        rows = self._rows.all(f"{_SELECT} WHERE c.account = ? ORDER BY c.created DESC, c.rowid DESC", name)
        return tuple(found for found in map(_credential, rows) if self._holds(found, now))

    def end(self, secret: str) -> None:
        """Forget a session or token by its secret."""
        self._rows.run("DELETE FROM credentials WHERE hash = ?", hashed(secret))

    def end_by_key(self, name: str, key: str) -> None:
        """Forget one session or token of an account by its public name.

        Raises:
            InvalidInput: the account has none of this name.
        """
        if not self._rows.run("DELETE FROM credentials WHERE account = ? AND substr(hash, 1, 16) = ?", name, key):
            raise InvalidInput(say("there is no such session or token of yours; it may have ended by itself"))

    def end_others(self, name: str, keep: str = "") -> None:
        """Forget every session and token of an account but the one called ``keep``, and where the account is known."""
        self._rows.run("DELETE FROM credentials WHERE account = ? AND substr(hash, 1, 16) != ?", name, keep)
        self._rows.run("DELETE FROM known_browsers WHERE account = ?", name)
        self._rows.run("DELETE FROM known_places WHERE account = ?", name)

    def remember_browser(self, name: str, *, now: dt.datetime) -> str:
        """Return a secret by which a browser shows that this person signed in there; it opens nothing."""
        secret = secrets.token_urlsafe(24)
        expires = now + dt.timedelta(days=KNOWN_BROWSER_DAYS)
        self._rows.run("DELETE FROM known_browsers WHERE expires < ?", now.isoformat())
        self._rows.run("INSERT INTO known_browsers VALUES (?, ?, ?)", hashed(secret), name, expires.isoformat())
        return secret

    def browser_of(self, name: str, secret: str, *, now: dt.datetime) -> str:
        """Return a short name of the browser that ``secret`` stands for, or an empty text where it is not known."""
        row = self._rows.one(
            "SELECT hash, expires FROM known_browsers WHERE hash = ? AND account = ?", hashed(secret), name
        )
        return row[0][:_KEY_LENGTH] if row is not None and row[1] > now.isoformat() else ""

    def remember_place(self, name: str, place: str, *, now: dt.datetime) -> None:
        """Note that this person signed in from an address; it opens nothing and shortens their turn alone."""
        expires = (now + dt.timedelta(days=KNOWN_BROWSER_DAYS)).isoformat()
        self._rows.run("DELETE FROM known_places WHERE expires < ?", now.isoformat())
        self._rows.run("INSERT OR REPLACE INTO known_places VALUES (?, ?, ?)", name, place[:80], expires)

    def knows_place(self, name: str, place: str, *, now: dt.datetime) -> bool:
        """Return whether this person has signed in from an address before."""
        row = self._rows.one("SELECT expires FROM known_places WHERE account = ? AND place = ?", name, place[:80])
        return row is not None and row[0] > now.isoformat()

    def _holds(self, found: Credential, now: dt.datetime) -> bool:
        last = found.used or found.created
        idle = dt.timedelta(minutes=self.idle_minutes)
        active = found.kind == "token" or not last or now - dt.datetime.fromisoformat(last) <= idle
        return found.expires > now and active

    def _issue(
        self,
        account: Account,
        kind: Literal["session", "token"],
        scopes: tuple[Scope, ...],
        label: str,
        now: dt.datetime,
        expires: dt.datetime,
    ) -> tuple[str, Credential]:
        secret, csrf, at = secrets.token_urlsafe(32), secrets.token_urlsafe(24), now.isoformat()
        row = (hashed(secret), account.name, kind, " ".join(scopes), csrf, label[:80], expires.isoformat(), at, at)
        self._rows.run("INSERT INTO credentials VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", *row)
        return secret, Credential(
            account=account,
            kind=kind,
            scopes=scopes,
            csrf=csrf,
            label=label[:80],
            expires=expires,
            key=row[0][:_KEY_LENGTH],
            created=at,
            used=at,
        )


def _credential(row: tuple[Any, ...]) -> Credential:
    return Credential(
        account=account_of(row[:8]),
        kind=row[8],
        scopes=tuple(row[9].split()),
        csrf=row[10],
        label=row[11],
        expires=dt.datetime.fromisoformat(row[12]),
        key=row[13][:_KEY_LENGTH],
        created=row[14],
        used=row[15],
    )
