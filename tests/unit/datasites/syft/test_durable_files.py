"""syft's notes and files survive a full disk and a process that dies between two of them."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from syft.sync.sync.caches.cache_file_writer_connection import FSFileConnection

from datasites.syft.guards import DurableFiles, make_durable, restore_missing


def plain(folder: Path) -> Any:
    return FSFileConnection(base_dir=folder)


def test_a_write_that_the_disk_did_not_take_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = DurableFiles.of(plain(tmp_path / "notes"))
    files.write_file("job/run.sh", "first")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        for name in ("job/run.sh", "job/new.py"):
            with pytest.raises(OSError, match="No space"):
                files.write_file(name, b"second")
    assert files.get_items() == [("job/run.sh", "first")]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["notes"]
    files.write_file("job/run.sh", b"second")
    assert files.get_items() == [("job/run.sh", "second")]


def test_all_of_a_caches_folders_are_made_durable(tmp_path: Path) -> None:
    owner = SimpleNamespace(events_messages_connection=plain(tmp_path / "a"), file_connection=plain(tmp_path / "b"))
    watcher = SimpleNamespace(events_connection=plain(tmp_path / "c"), file_connection=plain(tmp_path / "d"))
    for cache in (owner, watcher):
        make_durable(cache)
        assert all(isinstance(connection, DurableFiles) for connection in vars(cache).values())


def event(path: str, content: bytes | None) -> SimpleNamespace:
    return SimpleNamespace(path_in_datasite=Path(path), content=content, is_deleted=content is None)


def test_a_file_that_its_note_knows_and_the_folder_lacks_is_written_again(tmp_path: Path) -> None:
    notes = [
        SimpleNamespace(timestamp=2.0, events=[event("job/run.sh", b"newer"), event("job/gone.py", None)]),
        SimpleNamespace(timestamp=1.0, events=[event("job/run.sh", b"old"), event("job/gone.py", b"x")]),
        SimpleNamespace(timestamp=3.0, events=[event("job/kept.py", b"as noted")]),
    ]
    files = DurableFiles.of(plain(tmp_path / "files"))
    files.write_file("job/kept.py", "changed here since")
    cache = SimpleNamespace(events_messages_connection=SimpleNamespace(get_all=lambda: notes), file_connection=files)
    restore_missing(cache)
    assert files.get_items() == [("job/kept.py", "changed here since"), ("job/run.sh", "newer")]
