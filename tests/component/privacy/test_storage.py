"""Migrations of a toy store: old, new, newer and foreign files, killed at every statement, two processes at once."""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import re
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from privacy import storage
from privacy.errors import InvalidInput, NewerStore
from privacy.storage import Schema, open_sqlite, read_sqlite, set_pragmas, sql, structure, upgrade, version_of

if TYPE_CHECKING:
    from alembic.operations import Operations

FIRST = sql("CREATE TABLE IF NOT EXISTS letters (name TEXT PRIMARY KEY, text TEXT NOT NULL);")


def add_size(op: Operations) -> None:
    """Note how long each letter is."""
    op.add_column("letters", sa.Column("size", sa.Integer, nullable=False, server_default="0"))
    op.execute("UPDATE letters SET size = length(text)")


def name_the_writer(op: Operations) -> None:
    """Rename a column, which SQLite needs a new table for, and index it."""
    with op.batch_alter_table("letters") as letters:
        letters.alter_column("name", new_column_name="writer")
    op.create_index("letters_by_size", "letters", ["size"])


OLD = Schema("toy", table="letters", migrations=(FIRST,))
NEW = Schema("toy", table="letters", migrations=(FIRST, add_size, name_the_writer))
ROWS = [("anna", "hello", 5), ("bert", "bye", 3)]


def write_old(path: Path, *, version: bool = True) -> None:
    """Make the toy store as older code wrote it, or as code from before versions did."""
    with contextlib.closing(open_sqlite(path, OLD, pragmas={"journal_mode": "WAL"})) as store:
        store.executemany("INSERT INTO letters VALUES (?, ?)", [row[:2] for row in ROWS])
        if not version:
            store.execute(f"DROP TABLE {storage.VERSION_TABLE}")


def rows(connection: sqlite3.Connection) -> list[tuple[object, ...]]:
    return connection.execute("SELECT * FROM letters ORDER BY 1").fetchall()


def test_a_new_store_runs_every_migration_and_states_its_version(tmp_path: Path) -> None:
    with contextlib.closing(open_sqlite(tmp_path / "toy.sqlite", NEW)) as store:
        assert rows(store) == []
    assert version_of(tmp_path / "toy.sqlite") == NEW.current == "toy_0003"


@pytest.mark.parametrize("version", [True, False], ids=["version 1", "before versions"])
def test_an_older_store_keeps_its_rows_and_gets_the_schema_of_a_new_one(tmp_path: Path, version: bool) -> None:
    path = tmp_path / "toy.sqlite"
    write_old(path, version=version)
    assert version_of(path) == ("toy_0001" if version else None)
    with contextlib.closing(open_sqlite(path, NEW)) as store:
        assert rows(store) == ROWS
        found = {text for (text,) in store.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")}
    assert found == structure(NEW, "toy_0003")
    assert version_of(path) == "toy_0003"


def test_a_store_that_is_current_is_opened_without_a_write_and_without_alembic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "toy.sqlite"
    open_sqlite(path, NEW).close()
    before = path.read_bytes()
    monkeypatch.setattr(storage, "_migrate_sqlite", None)
    with contextlib.closing(open_sqlite(path, NEW)) as store:
        assert rows(store) == []
    assert path.read_bytes() == before


@contextlib.contextmanager
def unchanged(path: Path) -> Iterator[None]:
    before = path.read_bytes()
    yield
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_store_that_newer_code_wrote_is_refused_and_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "toy.sqlite"
    open_sqlite(path, NEW).close()
    for opened in (open_sqlite, read_sqlite):
        message = r"expected toy.sqlite at version toy_0001 or older, got toy_0003: a newer Tessera wrote it; run that"
        with unchanged(path), pytest.raises(NewerStore, match=message):
            opened(path, OLD)


def test_a_store_of_another_kind_is_refused_and_not_touched(tmp_path: Path) -> None:
    other = Schema("other", table="things", migrations=(sql("CREATE TABLE IF NOT EXISTS things (name TEXT)"),))
    path = tmp_path / "toy.sqlite"
    write_old(path, version=False)
    for opened in (open_sqlite, read_sqlite):
        with unchanged(path), pytest.raises(InvalidInput, match="got another database"):
            opened(path, other)
    open_sqlite(path, NEW).close()
    for opened in (open_sqlite, read_sqlite):
        with unchanged(path), pytest.raises(InvalidInput, match=r"kind other in toy\.sqlite, got toy_0003"):
            opened(path, other)


@pytest.mark.parametrize("version", [True, False], ids=["version 1", "before versions"])
def test_looking_at_an_older_store_shows_the_new_form_and_changes_nothing(tmp_path: Path, version: bool) -> None:
    path = tmp_path / "toy.sqlite"
    write_old(path, version=version)
    with unchanged(path), contextlib.closing(read_sqlite(path, NEW)) as store:
        assert rows(store) == ROWS
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            store.execute("DELETE FROM letters")
    with pytest.raises(InvalidInput, match="found none"):
        read_sqlite(tmp_path / "none.sqlite", NEW)
    assert not (tmp_path / "none.sqlite").exists()


def dies_at(path: Path, statement: int) -> bool:
    """Open the store in a process that is killed before SQL statement number ``statement``; return whether it was."""
    child = os.fork()
    if child == 0:
        seen = 0
        connect = sqlite3.connect

        def trace(_: str) -> None:
            nonlocal seen
            seen += 1
            if seen == statement:
                os._exit(9)

        def traced(*arguments: object, **options: object) -> sqlite3.Connection:
            connection = connect(*arguments, **options)  # type: ignore[call-overload]
            connection.set_trace_callback(trace)
            return connection  # type: ignore[no-any-return]

        sqlite3.connect = traced  # type: ignore[assignment]
        try:
            open_sqlite(path, NEW, pragmas={"journal_mode": "WAL"})
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


@pytest.mark.parametrize("version", [True, False, None], ids=["version 1", "before versions", "new"])
def test_killed_before_any_statement_the_next_start_begins_again_and_loses_nothing(
    tmp_path: Path, version: bool | None
) -> None:
    statement, killed = 0, True
    while killed:
        statement += 1
        path = tmp_path / f"{statement}.sqlite"
        if version is not None:
            write_old(path, version=version)
        killed = dies_at(path, statement)
        if killed:
            assert version_of(path) in ("toy_0001" if version else None, "toy_0003")
        with contextlib.closing(open_sqlite(path, NEW, pragmas={"journal_mode": "WAL"})) as store:
            assert rows(store) == (ROWS if version is not None else [])
            assert store.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert version_of(path) == "toy_0003"
    assert statement > 12


def test_a_migration_that_fails_leaves_the_store_as_it_was(tmp_path: Path) -> None:
    def fail(op: Operations) -> None:
        op.execute("DELETE FROM letters")
        raise RuntimeError("a fault in a migration")

    path = tmp_path / "toy.sqlite"
    write_old(path)
    broken = Schema("toy", table="letters", migrations=(FIRST, add_size, fail))
    with unchanged(path), pytest.raises(RuntimeError, match="a fault in a migration"):
        open_sqlite(path, broken)
    with contextlib.closing(open_sqlite(path, NEW)) as store:
        assert rows(store) == ROWS


def test_a_store_with_two_versions_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "toy.sqlite"
    open_sqlite(path, NEW).close()
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO tessera_version VALUES ('toy_9999')")
    with unchanged(path), pytest.raises(InvalidInput, match=r"expected one version in tessera_version, got 2"):
        open_sqlite(path, NEW)


def _open(path: Path, gate: multiprocessing.synchronize.Barrier) -> None:
    gate.wait(120)
    open_sqlite(path, NEW, pragmas={"journal_mode": "WAL"}, busy_seconds=120.0).close()


@pytest.mark.parametrize("version", [True, None], ids=["version 1", "new"])
def test_processes_that_start_at_once_migrate_once(tmp_path: Path, version: bool | None) -> None:
    context = multiprocessing.get_context("fork")
    path, gate = tmp_path / "toy.sqlite", context.Barrier(4)
    if version:
        write_old(path)
    children = [context.Process(target=_open, args=(path, gate)) for _ in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join(300)
    assert [child.exitcode for child in children] == [0, 0, 0, 0]
    with contextlib.closing(open_sqlite(path, NEW)) as store:
        assert rows(store) == (ROWS if version else [])


def test_a_change_of_the_journals_mode_waits_for_the_process_that_holds_the_store(tmp_path: Path) -> None:
    path = tmp_path / "toy.sqlite"
    connect = functools.partial(sqlite3.connect, path, timeout=0.0, isolation_level=None, check_same_thread=False)
    with contextlib.closing(connect()) as holder, contextlib.closing(connect()) as waiting:
        holder.execute("BEGIN EXCLUSIVE")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            set_pragmas(waiting, {"journal_mode": "WAL"}, busy_seconds=0.0)
        release = threading.Timer(0.3, holder.execute, ("COMMIT",))
        release.start()
        set_pragmas(waiting, {"journal_mode": "WAL", "synchronous": "FULL"}, busy_seconds=120.0)
        release.join()
        assert waiting.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_an_engine_is_brought_up_to_date_and_refused_when_newer(tmp_path: Path) -> None:
    path = tmp_path / "toy.sqlite"
    write_old(path, version=False)
    engine = sa.create_engine(f"sqlite:///{path}")
    for _ in range(2):
        upgrade(engine, NEW)
        with engine.connect() as connection:
            assert [tuple(row) for row in connection.execute(sa.text("SELECT * FROM letters ORDER BY 1"))] == ROWS
    with pytest.raises(NewerStore, match="expected the toy database at version toy_0001 or older, got toy_0003"):
        upgrade(engine, OLD)
    engine.dispose()


def test_the_recipe_for_a_new_migration_works(tmp_path: Path) -> None:
    page = Path(__file__).parents[3] / "docs" / "adding-a-migration.md"
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    path = tmp_path / "visits.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as before, before:  # as code from before versions wrote it
        before.execute("CREATE TABLE visits (name TEXT PRIMARY KEY)")
        before.execute("INSERT INTO visits VALUES ('anna')")
    found = {"path": path}
    exec(compile(code, str(page), "exec"), found)  # noqa: S102 - our own page
    with contextlib.closing(found["store"]) as store:
        assert store.execute("SELECT * FROM visits").fetchall() == [("anna", "unknown")]
    assert version_of(path) == "visits_0002"
