"""One orchestrator leads, another stands by: a lease in their PostgreSQL database says which.

The leader renews the lease every 1.5 seconds. When it has not done so for six, the one that stands by takes over:
it gets the journal's newest entries from the database and goes on with every study. A leader that was too slow, not
dead, cannot write any more: each of its transactions ends by looking at the lease, and the process ends at once when
another one has it.

The journal is kept in the database as well. An entry is there before anybody can be shown it, so a hospital never holds
a head that the successor does not know.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Collection, Sequence
from typing import NoReturn

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from orchestrator.rounds.tables import JOURNAL, LEADERSHIP
from privacy.errors import Refused
from privacy.ledger.journal import Journal
from privacy.ledger.links import Row

LEASE_SECONDS = 6.0
RENEW_SECONDS = 1.5
ASK_SECONDS = 1.0
_ROLE = "orchestrator"
_log = logging.getLogger(__name__)

_NOW = sa.extract("epoch", sa.func.clock_timestamp())  # the database's clock: machines may disagree about the time


def _end() -> NoReturn:
    """End this process as a kill would: whatever it has begun is repeated by the one that leads."""
    logging.shutdown()
    os._exit(1)


class Leadership:
    """The lease of one process.

    Args:
        engine: the PostgreSQL database.
        holder: tells this process's folder from others; the same folder gets its lease back at once after a restart.
        public_key: the orchestrator's; one that stands by has the same.
        former: keys that this one was handed over from: a database under one of them is its own, too.
        end: called when another process leads.
    """

    def __init__(
        self,
        engine: sa.Engine,
        *,
        holder: str,
        public_key: str,
        former: Collection[str] = (),
        end: Callable[[], object] = _end,
    ) -> None:
        self._own = {public_key, *former}
        self._engine, self._holder, self._public_key, self._end = engine, holder[:200], public_key, end
        self._epoch = 0
        self._over = threading.Event()

    def take(self) -> str:
        """Take the lease if it is free, and return who leads: nobody else where the answer is empty.

        Raises:
            Refused: the database belongs to an orchestrator with another key.
        """
        with self._engine.begin() as connection:
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(7311012)"))  # no row to lock the first time
            found = connection.execute(sa.select(LEADERSHIP, (LEADERSHIP.c.until < _NOW).label("over"))).one_or_none()
            if found is not None and found.public_key not in self._own:
                raise Refused(
                    "this database belongs to an orchestrator with another key; one that stands by needs a copy of the "
                    "first one's key and roster"
                )
            if found is not None and found.holder != self._holder and not found.over:
                return str(found.holder)
            self._epoch = 1 + (found.epoch if found is not None else 0)
            values = {"holder": self._holder, "public_key": self._public_key, "epoch": self._epoch}
            until = _NOW + LEASE_SECONDS
            if found is None:
                connection.execute(LEADERSHIP.insert().values(role=_ROLE, until=until, **values))
            else:
                connection.execute(LEADERSHIP.update().values(until=until, **values))
        return ""

    def wait(self, ended: threading.Event) -> bool:
        """Stand by until this process leads; False when it was asked to end before."""
        said = ""
        while not ended.is_set():
            try:
                leader = self.take()
            except SQLAlchemyError as error:
                leader = f"nobody, as far as can be seen: {str(getattr(error, 'orig', error))[:200]}"
            if not leader:
                return True
            if leader != said:
                _log.warning("standing by: %s leads", leader)
                said = leader
            ended.wait(ASK_SECONDS)
        return False

    def hold(self) -> None:
        """Renew the lease from a thread until :meth:`release`; the process ends when another one has it."""
        threading.Thread(target=self._renew, daemon=True, name="lease").start()

    def _renew(self) -> None:
        while not self._over.wait(RENEW_SECONDS):
            try:
                with self._engine.begin() as connection:
                    self.require(connection)
                    connection.execute(LEADERSHIP.update().values(until=_NOW + LEASE_SECONDS))
            except SQLAlchemyError as error:  # nobody else can take over either while the database is away
                _log.warning("the lease was not renewed: %s", str(getattr(error, "orig", error))[:200])

    def require(self, connection: sa.Connection) -> None:
        """Have a transaction go through only while this process leads; the lease cannot change before its end."""
        epoch = connection.execute(sa.select(LEADERSHIP.c.epoch).with_for_update(read=True)).scalar_one_or_none()
        if epoch != self._epoch and not self._over.is_set():
            _log.error("another orchestrator leads now; this process ends")
            self._end()
            raise Refused("another orchestrator leads now")

    def release(self) -> None:
        """Let the other one lead at once; for the end of this process."""
        self._over.set()
        try:
            with self._engine.begin() as connection:
                mine = LEADERSHIP.update().where(LEADERSHIP.c.epoch == self._epoch)
                connection.execute(mine.values(until=_NOW - 1))
        except SQLAlchemyError as error:
            _log.warning("the lease was not given back: %s", str(getattr(error, "orig", error))[:200])

    # the journal -----------------------------------------------------------------------------------------------

    def share(self, journal: Journal) -> None:
        """Bring journal and database to the same end, and keep every new entry in both from now on.

        Raises:
            Tampered: the two went on apart.
        """
        with self._engine.connect() as connection:
            query = sa.select(JOURNAL).where(JOURNAL.c.number > journal.head.index).order_by(JOURNAL.c.number)
            newer = [tuple(row) for row in connection.execute(query)]
        journal.adopt(newer)
        self._keep(journal.rows)
        journal.mirrored(self._keep)

    def _keep(self, rows: Callable[[int], Sequence[Row]]) -> None:
        """Write the entries that the database lacks, with those that another process of this folder added."""
        with self._engine.begin() as connection:
            self.require(connection)
            last = connection.execute(sa.select(sa.func.max(JOURNAL.c.number))).scalar() or 0
            missing = [dict(zip(JOURNAL.c.keys(), row, strict=True)) for row in rows(int(last))]
            if missing:
                connection.execute(JOURNAL.insert(), missing)
