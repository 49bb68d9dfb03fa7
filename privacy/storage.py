"""Stores that can age: every database carries the version of its schema and is brought up to date when it is opened.

A store names its :class:`Schema`: the migrations that made it, oldest first. Migration number n leads to version n.
A new store runs all of them, so there is no second place that creates tables::

    accounts.sqlite, no version   written before versions existed (commit 4c19b18): adopted by migration 1
    accounts_0001                 current: one query at the start, nothing is written, alembic is not imported
    accounts_0002                 written by newer code: refused, nothing is written

All migrations that are due run in one transaction with the write lock held. A process that is killed leaves the old
version; the next start begins again. Of two processes that start at once, one migrates and the other waits.

Entries of a journal or ledger keep their bytes, hashes and signatures whatever a migration does to the tables.

    >>> PEOPLE = Schema("people", table="people", migrations=(sql("CREATE TABLE IF NOT EXISTS people (name TEXT)"),))
    >>> connection = open_sqlite(Path("people.sqlite"), PEOPLE)
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
import time
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from privacy.errors import InvalidInput, NewerStore

if TYPE_CHECKING:
    import sqlalchemy as sa
    from alembic.operations import Operations

    Migration = Callable[[Operations], None]

VERSION_TABLE = "tessera_version"
_READ_VERSION = f"SELECT version_num FROM {VERSION_TABLE}"  # noqa: S608 - a constant
_TABLES = "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL"
_LOCK = 0x7E55E2A  # PostgreSQL's advisory lock that migrating processes wait for


@dataclass(frozen=True)
class Schema:
    """What a store looks like, as the migrations that lead there.

    Args:
        name: of the kind of store, such as ``accounts``; part of every version.
        table: a table that every version has; tells a file without a version from that of another store.
        migrations: functions that get alembic's ``Operations``, oldest first. Never edit one that was released.
    """

    name: str
    table: str
    migrations: tuple[Migration, ...]

    def version(self, number: int) -> str:
        """Return the name of the version that migration ``number``, counted from 1, leads to."""
        return f"{self.name}_{number:04d}"

    @property
    def current(self) -> str:
        """The version that this code reads and writes."""
        return self.version(len(self.migrations))

    def due(self, version: str | None, where: str) -> tuple[str, ...]:
        """Return the versions between a store's ``version`` (None: before versions) and this code, oldest first.

        Raises:
            NewerStore: newer code wrote it.
            InvalidInput: the store is of another kind.
        """
        names = tuple(self.version(number) for number in range(1, len(self.migrations) + 1))
        if version is None:
            return names
        if version in names:
            return names[names.index(version) + 1 :]
        if re.fullmatch(rf"{self.name}_\d{{4}}", version) and version > self.current:
            raise NewerStore(
                f"expected {where} at version {self.current} or older, got {version}: a newer Tessera wrote it; "
                "run that Tessera or a later one. Nothing was changed"
            )
        raise InvalidInput(f"expected a store of the kind {self.name} in {where}, got {version[:40]}")


def sql(*scripts: str) -> Migration:
    """Return a migration that runs SQL, each script one statement or several that end with semicolons and new lines."""
    statements = [statement for script in scripts for statement in _split(script)]

    def run(op: Operations) -> None:
        for statement in statements:
            op.get_bind().exec_driver_sql(statement)

    return run


def open_sqlite(
    path: Path, schema: Schema, *, pragmas: Mapping[str, str] = types.MappingProxyType({}), busy_seconds: float = 5.0
) -> sqlite3.Connection:
    """Open the store in the file at ``path`` for reading and writing, at this code's version; made when missing.

    Args:
        pragmas: settings of the connection, such as ``{"synchronous": "FULL"}``.
        busy_seconds: how long to wait for another process that writes.

    Raises:
        NewerStore: newer code wrote it; nothing was changed.
        InvalidInput: another kind of store; nothing was changed.
        sqlite3.Error: no database, or one that cannot be read or written.
    """
    connection = _connect(path, busy_seconds)
    try:
        due = schema.due(_version(connection, schema, path.name), path.name)
        set_pragmas(connection, pragmas, busy_seconds=busy_seconds)
        if due:
            _migrate_sqlite(connection, schema, path.name)
    except BaseException:
        connection.close()
        raise
    return connection


def read_sqlite(path: Path, schema: Schema, *, busy_seconds: float = 5.0) -> sqlite3.Connection:
    """Open a store for reading, at this code's version, and never change it.

    An older store is read from a private copy, which is migrated.

    Raises:
        NewerStore: newer code wrote it.
        InvalidInput: there is none, or it is of another kind.
        sqlite3.Error: no database, or one that cannot be read.
    """
    if not path.exists():
        raise InvalidInput(f"expected a store of the kind {schema.name} in the file {path.name}, found none")
    connection = _connect(path, busy_seconds)
    try:
        if schema.due(_version(connection, schema, path.name), path.name):
            connection = _migrated_copy(connection, schema, path.name)
        connection.execute("PRAGMA query_only = ON")
    except BaseException:
        connection.close()
        raise
    return connection


def set_pragmas(connection: sqlite3.Connection, pragmas: Mapping[str, str], *, busy_seconds: float = 5.0) -> None:
    """Set a connection's pragmas, and wait for other processes where SQLite does not.

    SQLite refuses a change of the journal's mode at once while another process opens the same new store, whatever the
    connection's time-out says.

    Raises:
        sqlite3.OperationalError: still busy after ``busy_seconds``, or not to be written.
    """
    deadline = time.monotonic() + busy_seconds
    for name, value in pragmas.items():
        while True:
            try:
                connection.execute(f"PRAGMA {name} = {value}").fetchall()
                break
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() >= deadline:
                    raise
            time.sleep(0.01)


def upgrade(engine: sa.Engine, schema: Schema) -> None:
    """Bring the database behind an SQLAlchemy engine, SQLite or PostgreSQL, to this code's version.

    Raises:
        NewerStore: newer code wrote it; nothing was changed.
    """
    where = f"the {schema.name} database"
    with engine.connect() as connection:
        if not schema.due(_version_behind(connection), where):
            return
    with engine.begin() as connection:
        _upgrade_locked(connection, schema, where)


def structure(schema: Schema, version: str | None) -> frozenset[str]:
    """Return the statements that make up an untouched SQLite store of this version (None: before versions).

    Raises:
        NewerStore: only newer code knows this version.
    """
    schema.due(version, f"a store of the kind {schema.name}")
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        through = schema.version(1) if version is None else version
        _migrate_sqlite(connection, schema, "a new store", through=through)
        found = frozenset(text for (text,) in connection.execute(_TABLES))
    return found if version is not None else frozenset(text for text in found if VERSION_TABLE not in text)


def version_of(path: Path) -> str | None:
    """Return the version of the SQLite store at ``path``; None when it was written before stores had one."""
    with contextlib.closing(_connect(path, 5.0)) as connection:
        return _stated_version(connection)


def _split(script: str) -> Iterator[str]:
    statement = ""
    for line in script.strip().splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement.strip().removesuffix(";")
            statement = ""
    if statement.strip():
        yield statement.strip()


def _connect(path: Path, busy_seconds: float) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=busy_seconds, isolation_level=None, check_same_thread=False)


def _version(connection: sqlite3.Connection, schema: Schema, where: str) -> str | None:
    """Return the version of a store; None when it is new, or was written before stores had one."""
    version = _stated_version(connection)
    if version is None:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        if tables and schema.table not in tables:
            raise InvalidInput(f"expected a store of the kind {schema.name} in {where}, got another database")
    return version


def _stated_version(connection: sqlite3.Connection) -> str | None:
    try:
        rows = connection.execute(_READ_VERSION).fetchall()
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            return None
        raise
    if len(rows) > 1:
        raise InvalidInput(f"expected one version in {VERSION_TABLE}, got {len(rows)}; restore the store from a backup")
    return str(rows[0][0]) if rows else None


def _version_behind(connection: sa.Connection) -> str | None:
    import sqlalchemy as sa

    if not sa.inspect(connection).has_table(VERSION_TABLE):
        return None
    found = connection.execute(sa.text(_READ_VERSION)).scalar()
    return None if found is None else str(found)


def _migrated_copy(connection: sqlite3.Connection, schema: Schema, where: str) -> sqlite3.Connection:
    copy = sqlite3.connect("", isolation_level=None, check_same_thread=False)  # a temporary file that SQLite removes
    try:
        connection.backup(copy)
        _migrate_sqlite(copy, schema, where)
    except BaseException:
        copy.close()
        raise
    connection.close()
    return copy


def _migrate_sqlite(connection: sqlite3.Connection, schema: Schema, where: str, *, through: str | None = None) -> None:
    import sqlalchemy as sa

    engine = sa.create_engine("sqlite://", creator=lambda: connection, poolclass=sa.StaticPool)
    try:
        with engine.begin() as wrapped:
            _upgrade_locked(wrapped, schema, where, through=through)
    except sa.exc.DBAPIError as error:
        raise error.orig or error from None  # callers know sqlite3's errors: a full disk for one


def _upgrade_locked(connection: sa.Connection, schema: Schema, where: str, *, through: str | None = None) -> None:
    """Take the lock, look again at the version, and run what is due; the caller commits."""
    import sqlalchemy as sa

    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
    version = _version_behind(connection)
    if schema.due(version, where):
        _run(connection, schema, through or schema.current, version)


def _run(connection: sa.Connection, schema: Schema, upper: str, lower: str | None) -> None:
    """Run the migrations after version ``lower`` (None: from the first one) up to version ``upper``."""
    from alembic.migration import MigrationContext, RevisionStep
    from alembic.operations import Operations
    from alembic.script import Script
    from alembic.script.revision import RevisionMap

    scripts, before = [], None
    for number, migration in enumerate(schema.migrations, start=1):
        module = types.ModuleType(schema.version(number), migration.__doc__)
        module.__dict__.update(down_revision=before, upgrade=migration)
        before = schema.version(number)
        scripts.append(Script(module, before, f"{before}.py"))
    revisions = RevisionMap(lambda: scripts)
    due = set(revisions.iterate_revisions(upper, lower or "base"))
    steps = [RevisionStep(revisions, script, True) for script in scripts if script in due]
    options = {"version_table": VERSION_TABLE, "fn": lambda _heads, _context: steps}
    context = MigrationContext.configure(connection, opts=options)
    context.run_migrations(op=Operations(context))
