"""A disk that fails at one exact write of one role: full for a while, or gone until the role is started again.

Writes are what makes something durable: a file or folder synced, a file renamed, an SQLite statement or commit. Each
one below the watched folder is a point, numbered from 1:

    with FaultyDisk(home) as disk:
        disk.fail(at=3, times=2)        # "no space left on device" at points 3 and 4
        disk.die(at=3)                  # nothing is written or removed any more, until disk.heal()
"""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

_CHANGES = ("INSERT", "UPDATE", "DELETE", "REPLACE", "COMMIT")


class FaultyDisk:
    """Counts and fails the writes below one folder; SQLite files must be opened while it is on."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)
        self._lock = threading.Lock()
        self._real: dict[str, Any] = {}
        self.points: list[str] = []
        self.tripped = False
        self._at, self._times, self._dead = 0, 0, False

    def fail(self, *, at: int, times: int = 1) -> None:
        """Be full at the points ``at`` to ``at + times - 1``, counted from now."""
        self._arm(at, times)

    def die(self, *, at: int) -> None:
        """Write nothing from this point on."""
        self._arm(at, 1 << 60)

    def heal(self) -> None:
        """Write again, and count from 1."""
        self._arm(0, 0)

    def _arm(self, at: int, times: int) -> None:
        with self._lock:
            self.points, self.tripped, self._dead = [], False, False
            self._at, self._times = at, times

    def __enter__(self) -> FaultyDisk:
        for name in ("fsync", "replace", "unlink"):
            self._real[name] = getattr(os, name)
        self._real["connect"] = sqlite3.connect
        os.fsync = self._fsync
        os.replace = self._replace
        os.unlink = self._unlink
        sqlite3.connect = sqlite3.dbapi2.connect = self._connect
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in ("fsync", "replace", "unlink"):
            setattr(os, name, self._real[name])
        sqlite3.connect = sqlite3.dbapi2.connect = self._real["connect"]

    # what is counted -------------------------------------------------------------------------------------------

    def point(self, path: str, what: str) -> None:
        """Count one write.

        Raises:
            OSError: this is where the disk fails.
        """
        if not path.startswith(self._folder):
            return
        with self._lock:
            self.points.append(f"{what} {path.removeprefix(self._folder)}")
            failing = self._at and self._at <= len(self.points) < self._at + self._times
            self.tripped = self.tripped or bool(failing)
            self._dead = bool(failing) and self._times > 1 << 32
        if failing:
            raise OSError(errno.ENOSPC, "No space left on device", path)

    def _fsync(self, descriptor: int) -> None:
        self.point(str(Path(f"/proc/self/fd/{descriptor}").readlink()), "sync")
        self._real["fsync"](descriptor)

    def _replace(self, source: Any, target: Any, **options: Any) -> None:
        self.point(str(target), "rename")
        self._real["replace"](source, target, **options)

    def _unlink(self, path: Any, **options: Any) -> None:
        if self._dead and str(path).startswith(self._folder):
            raise OSError(errno.EIO, "the process has died", str(path))
        self._real["unlink"](path, **options)

    def _connect(self, database: Any, *rest: Any, **options: Any) -> sqlite3.Connection:
        connection: _Connection = self._real["connect"](database, *rest, **{**options, "factory": _Connection})
        connection.disk, connection.where = self, str(database)
        return connection


class _Connection(sqlite3.Connection):
    disk: FaultyDisk | None = None
    where = ""

    def look(self, statement: str) -> None:
        """Count a statement that changes something."""
        if self.disk is not None and statement.lstrip().upper().startswith(_CHANGES):
            try:
                self.disk.point(self.where, statement.split("(")[0].strip()[:30])
            except OSError as error:
                raise sqlite3.OperationalError("database or disk is full") from error

    def execute(self, statement: str, *rest: Any) -> sqlite3.Cursor:
        self.look(statement)
        return super().execute(statement, *rest)

    def commit(self) -> None:
        if self.in_transaction:
            self.look("COMMIT")
        super().commit()

    def cursor(self, *_: Any, **__: Any) -> _Cursor:
        return super().cursor(_Cursor)


class _Cursor(sqlite3.Cursor):
    def execute(self, statement: str, *rest: Any) -> sqlite3.Cursor:
        connection = self.connection
        if isinstance(connection, _Connection):
            connection.look(statement)
        return super().execute(statement, *rest)
