"""Who is away, until when, and who stands in: said in the portal, by the person, beside what ``notices.toml`` says.

A delegate gets the same notices and no other right: whoever signs, signs with their own key.
"""

from __future__ import annotations

import datetime as dt
import threading
from dataclasses import dataclass
from pathlib import Path

from datasites.node.notices.settings import NoticeSettings
from privacy.errors import InvalidInput
from privacy.sentences import say
from privacy.storage import Schema, open_sqlite, sql

FILE = "absences.sqlite"
LONGEST_DAYS = 366
_SCHEMA = Schema(
    "absences",
    table="absences",
    migrations=(
        sql(
            "CREATE TABLE IF NOT EXISTS absences (name TEXT PRIMARY KEY, until TEXT NOT NULL, delegate TEXT NOT NULL);"
        ),
    ),
)


@dataclass(frozen=True, kw_only=True)
class Absence:
    """One person is away up to and with a day; the delegate gets their notices as well."""

    name: str
    until: dt.date
    delegate: str


class Absences:
    """The absences of one datasite's people; safe to share between threads and processes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._database = open_sqlite(folder / FILE, _SCHEMA, pragmas={"synchronous": "FULL"})

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def settings(self) -> NoticeSettings:
        """Return ``notices.toml`` as it is now, with what people said here in the place of what it says of them.

        Raises:
            InvalidInput: the file is not valid.
        """
        said = {absence.name: absence for absence in self.all()}
        settings = NoticeSettings.load(self._folder)
        people = tuple(
            person.model_copy(update={"away_until": said[person.name].until, "delegate": said[person.name].delegate})
            if person.name in said and said[person.name].delegate in {p.name for p in settings.people}
            else person
            for person in settings.people
        )
        return settings.model_copy(update={"people": people})

    def all(self) -> tuple[Absence, ...]:
        """Return every absence that was said here, also those that are over."""
        with self._lock:
            rows = self._database.execute("SELECT name, until, delegate FROM absences ORDER BY name").fetchall()
        return tuple(Absence(name=r[0], until=dt.date.fromisoformat(r[1]), delegate=r[2]) for r in rows)

    def say(self, name: str, *, until: str, delegate: str, today: dt.date) -> Absence:
        """Note that a person is away, in the place of what they said before.

        Args:
            name: whose account.
            until: the last day, as ``2026-08-21``.
            delegate: another person of ``notices.toml``.
            today: the present day.

        Raises:
            InvalidInput: no day, a day that is over or too far away, or a delegate who gets no mail.
        """
        names = [person.name for person in NoticeSettings.load(self._folder).people]
        if name not in names:
            raise InvalidInput(
                say("expected {name} among the people of notices.toml, who get mail; ask your operator", name=name)
            )
        if delegate not in names or delegate == name:
            others = ", ".join(n for n in names if n != name) or say("nobody")
            raise InvalidInput(
                say("expected a delegate out of {others}, got {delegate!r}", others=others, delegate=delegate[:40])
            )
        try:
            day = dt.date.fromisoformat(until)
        except ValueError as error:
            raise InvalidInput(say("expected a day such as 2026-08-21, got {day!r}", day=until[:20])) from error
        if not today <= day <= today + dt.timedelta(days=LONGEST_DAYS):
            raise InvalidInput(
                say(
                    "expected a day from {today} on, at most {longest} days away, got {day}",
                    today=today,
                    longest=LONGEST_DAYS,
                    day=day,
                )
            )
        with self._lock:
            self._database.execute(
                "INSERT OR REPLACE INTO absences (name, until, delegate) VALUES (?, ?, ?)",
                (name, day.isoformat(), delegate),
            )
        return Absence(name=name, until=day, delegate=delegate)

    def end(self, name: str) -> bool:
        """Note that a person is back; return whether they were away."""
        with self._lock:
            return self._database.execute("DELETE FROM absences WHERE name = ?", (name,)).rowcount == 1
