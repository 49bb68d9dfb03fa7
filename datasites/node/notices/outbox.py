"""What is to be sent, in one SQLite file: each notice once for each receiver, tried again until it went out.

A notice has a key that says what it is about. The same key again changes nothing, so a restart sends nothing twice.
"""

from __future__ import annotations

import datetime as dt
import threading
from dataclasses import dataclass
from pathlib import Path

from datasites.node.notices.settings import Kind, NoticeSettings
from privacy.ledger.journal import Journal
from privacy.storage import Schema, open_sqlite, sql

_SCHEMA = Schema(
    "notices",
    table="notices",
    migrations=(
        sql("""
CREATE TABLE IF NOT EXISTS notices (
    number INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL, receiver TEXT NOT NULL, kind TEXT NOT NULL,
    subject TEXT NOT NULL, body TEXT NOT NULL, made TEXT NOT NULL, next TEXT NOT NULL, tries INTEGER NOT NULL,
    state TEXT NOT NULL, UNIQUE (key, receiver));
"""),
    ),
)
_FIRST_SECONDS, _LONGEST_SECONDS, MOST_TRIES = 60.0, 6 * 3600.0, 14


@dataclass(frozen=True, kw_only=True)
class Notice:
    """One thing that people should know; ``key`` names it for ever."""

    key: str
    kind: Kind
    subject: str
    body: str


@dataclass(frozen=True, kw_only=True)
class Queued:
    """A notice on its way to one receiver: ``mail:ADDRESS`` or ``hook:URL``."""

    number: int
    receiver: str
    notice: Notice
    made: str
    tries: int


class Outbox:
    """The notices of one role; safe to share between threads."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._database = open_sqlite(path, _SCHEMA, pragmas={"journal_mode": "WAL", "synchronous": "FULL"})

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def add(self, notice: Notice, settings: NoticeSettings, now: dt.datetime) -> int:
        """Queue a notice for everybody whom it concerns; return for how many it was new."""
        receivers = _receivers(notice.kind, settings, now.date())
        row = (notice.kind, notice.subject, notice.body, now.isoformat(), now.isoformat())
        new = 0
        with self._lock:
            for receiver, remark in receivers.items():
                body = f"{remark}{notice.body}"
                values = (notice.key, receiver, row[0], row[1], body, row[3], row[4])
                statement = (
                    "INSERT OR IGNORE INTO notices (key, receiver, kind, subject, body, made, next, tries, state) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?, 0, 'waiting')"
                )
                new += self._database.execute(statement, values).rowcount
        return new

    def due(self, now: dt.datetime) -> list[Queued]:
        """Return what has to be tried now, oldest first."""
        query = (
            "SELECT number, receiver, key, kind, subject, body, made, tries FROM notices "
            "WHERE state = 'waiting' AND next <= ? ORDER BY number LIMIT 100"
        )
        with self._lock:
            rows = self._database.execute(query, (now.isoformat(),)).fetchall()
        return [
            Queued(
                number=r[0],
                receiver=r[1],
                notice=Notice(key=r[2], kind=r[3], subject=r[4], body=r[5]),
                made=r[6],
                tries=r[7],
            )
            for r in rows
        ]

    def sent(self, queued: Queued) -> None:
        """Note that a notice went out."""
        self._set(queued, "sent", queued.tries + 1, "")

    def failed(self, queued: Queued, now: dt.datetime) -> bool:
        """Note that it did not, to be tried again after twice as long; return whether it is given up."""
        tries = queued.tries + 1
        wait = min(_LONGEST_SECONDS, _FIRST_SECONDS * 2**queued.tries)
        over = tries >= MOST_TRIES
        later = (now + dt.timedelta(seconds=wait)).isoformat()
        self._set(queued, "given-up" if over else "waiting", tries, later)
        return over

    def _set(self, queued: Queued, state: str, tries: int, later: str) -> None:
        statement = "UPDATE notices SET state = ?, tries = ?, next = ? WHERE number = ?"
        with self._lock:
            self._database.execute(statement, (state, tries, later, queued.number))


def last_before(journal: Journal, moment: dt.datetime) -> int:
    """Return the index of the last entry of a journal that is older than ``moment``; 0 if none is."""
    found = 0
    for entry in journal.entries():
        if dt.datetime.fromisoformat(entry.at) >= moment:
            break
        found = entry.index
    return found


def _receivers(kind: Kind, settings: NoticeSettings, day: dt.date) -> dict[str, str]:
    """Return who gets a notice, with a remark in front for a delegate."""
    found: dict[str, str] = {}
    people = {person.name: person for person in settings.people}
    for person in settings.people:
        if kind in person.kinds:
            found[f"mail:{person.email}"] = ""
    for person in settings.people:
        if kind in person.kinds and person.is_away(day):
            remark = f"For {person.name}, who is away until {person.away_until}.\n\n"
            found.setdefault(f"mail:{people[person.delegate].email}", remark)
    for hook in settings.webhooks:
        if kind in hook.kinds:
            found[f"hook:{hook.url}"] = ""
    return found
