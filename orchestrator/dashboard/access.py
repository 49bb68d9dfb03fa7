"""Who may look at the dashboard: anybody who can read the orchestrator's folder, by a one-time link made there.

``tessera orchestrator dashboard-link`` writes the hash of a secret into ``dashboard.sqlite`` and prints the secret as
a link. The running orchestrator exchanges it once for a session cookie. Only hashes are stored.
"""

from __future__ import annotations

import datetime as dt
import secrets
import threading
from pathlib import Path

from datasites.node.home import Home, address
from privacy.canonical import sha256_hex
from privacy.errors import InvalidInput, Refused
from privacy.storage import Schema, open_sqlite, sql

PATH = "/dashboard/enter"
FILE = "dashboard.sqlite"
LINK_MINUTES = 30
SESSION_HOURS = 12
_SCHEMA = Schema(
    "dashboard",
    table="sessions",
    migrations=(
        sql("""
CREATE TABLE IF NOT EXISTS links (hash TEXT PRIMARY KEY, expires REAL NOT NULL);
CREATE TABLE IF NOT EXISTS sessions (hash TEXT PRIMARY KEY, expires REAL NOT NULL);
"""),
    ),
)


class Visitors:
    """One-time links and the sessions they open, in one SQLite file; two processes and several threads may use it."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        path.touch(mode=0o600)
        path.chmod(0o600)
        self._database = open_sqlite(path, _SCHEMA, busy_seconds=10.0)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def new_link(self, *, now: dt.datetime) -> str:
        """Return a secret that opens one session within half an hour."""
        return self._keep("links", now + dt.timedelta(minutes=LINK_MINUTES))

    def enter(self, token: str, *, now: dt.datetime) -> str:
        """Use a link up and return the secret of a session of twelve hours.

        Raises:
            Refused: the link is unknown, used or expired.
        """
        used = self._run("DELETE FROM links WHERE hash = ? AND expires > ?", _hash(token), now.timestamp())
        if used != 1:
            raise Refused("this link is unknown, used or expired; `tessera orchestrator dashboard-link` makes another")
        for table in ("links", "sessions"):
            self._run(f"DELETE FROM {table} WHERE expires <= ?", now.timestamp())  # noqa: S608 - two fixed names
        return self._keep("sessions", now + dt.timedelta(hours=SESSION_HOURS))

    def knows(self, session: str, *, now: dt.datetime) -> bool:
        """Return whether this is the secret of a session that is still open."""
        with self._lock:
            row = self._database.execute("SELECT expires FROM sessions WHERE hash = ?", (_hash(session),)).fetchone()
        return row is not None and row[0] > now.timestamp()

    def leave(self, session: str) -> None:
        """Close a session."""
        self._run("DELETE FROM sessions WHERE hash = ?", _hash(session))

    def _keep(self, table: str, until: dt.datetime) -> str:
        secret = secrets.token_urlsafe(32)
        self._run(f"INSERT INTO {table} VALUES (?, ?)", _hash(secret), until.timestamp())  # noqa: S608 - fixed names
        return secret

    def _run(self, statement: str, *values: object) -> int:
        with self._lock:
            return self._database.execute(statement, values).rowcount


def new_link(home: Home) -> str:
    """Return a link that signs one browser in, once, within half an hour.

    Raises:
        InvalidInput: not an orchestrator's folder, or it does not run.
    """
    if home.config().role != "orchestrator":
        raise InvalidInput("expected the orchestrator's folder; a hospital's people use its portal")
    if not (home.folder / "address.json").exists():
        raise InvalidInput("expected a running orchestrator, which serves the dashboard; start it first")
    visitors = Visitors(home.folder / FILE)
    try:
        return f"{address(home.folder)}{PATH}?token={visitors.new_link(now=dt.datetime.now(dt.UTC))}"
    finally:
        visitors.close()


def _hash(secret: str) -> str:
    return sha256_hex(secret.encode())
