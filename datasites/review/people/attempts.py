"""How often a password may be tried: six times in five minutes for each account and place.

A place is an address, a browser that has signed in here before, or an open session. So whoever guesses from elsewhere
locks nobody out who sits at their own browser. All unknown places together have a limit for each account as well.
"""

from __future__ import annotations

import datetime as dt
from typing import Literal

from datasites.review.people.rows import Rows
from privacy.errors import Refused
from privacy.sentences import say

Standing = Literal["known", "new", "failed"]
"""What is known of a name that signs in: it has signed in from this browser or address before; nothing; or an attempt
under it was made from this address within the window and has not succeeded."""
ATTEMPTS_PER_WINDOW = 6
ATTEMPTS_FROM_ANYWHERE = 60
WINDOW_SECONDS = 300


def count_attempt(rows: Rows, name: str, place: str, *, now: dt.datetime, known: bool = False) -> int:
    """Count an attempt before it is made, so that many at once are many, and return its number.

    Args:
        rows: of the accounts.
        name: whose password is tried.
        place: where from.
        now: the present time.
        known: the place is a browser or session of this person; the limit of all places together does not hold.

    Raises:
        Refused: too many.
    """
    keys = {_key(name, place): ATTEMPTS_PER_WINDOW}
    if not known:
        keys[_key(name, "*")] = ATTEMPTS_FROM_ANYWHERE
    with rows.transaction() as database:
        database.execute("DELETE FROM attempts WHERE at < ?", (now.timestamp() - WINDOW_SECONDS,))
        for key, most in keys.items():
            made = database.execute("SELECT count(*) FROM attempts WHERE account = ?", (key,)).fetchone()
            if made[0] >= most:
                raise Refused(
                    say("too many attempts: wait {minutes} minutes and try again", minutes=WINDOW_SECONDS // 60)
                )
        last = 0
        for key in keys:
            last = database.execute("INSERT INTO attempts VALUES (?, ?)", (key, now.timestamp())).lastrowid or 0
    return last


def forget_attempts(rows: Rows, name: str, place: str, number: int) -> None:
    """Forget the attempts from one place, after the right password came from there.

    Of those from anywhere attempt ``number`` alone is forgotten: others may be guesses, and a right one is none.
    """
    own = "DELETE FROM attempts WHERE account = ? OR (account = ? AND rowid = ?)"
    rows.run(own, _key(name, place), _key(name, "*"), number)


def attempted(rows: Rows, name: str, place: str, *, now: dt.datetime) -> bool:
    """Return whether an attempt from one place counts at present."""
    since = now.timestamp() - WINDOW_SECONDS
    return rows.one("SELECT 1 FROM attempts WHERE account = ? AND at >= ?", _key(name, place), since) is not None


def _key(name: str, place: str) -> str:
    return f"{name[:64]}|{place[:80]}"
