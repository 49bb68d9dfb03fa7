"""One journal in several processes."""

from __future__ import annotations

import multiprocessing
import threading
from pathlib import Path

from privacy.identity import Identity
from privacy.ledger.journal import Journal

IDENTITY = Identity.from_seed(bytes(32))


def journal(tmp_path: Path, name: str = "journal.sqlite") -> Journal:
    return Journal(tmp_path / name, IDENTITY)


def _append_many(path: Path, name: str, count: int) -> None:
    j = Journal(path, IDENTITY)
    for n in range(count):
        j.append(name, {"n": n})


def test_threads_and_processes_append_without_a_gap(tmp_path: Path) -> None:
    path = tmp_path / "shared.sqlite"  # four processes make the file at once
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_append_many, args=(path, f"p{i}", 40)) for i in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    j = Journal(path, IDENTITY)
    threads = [threading.Thread(target=lambda: [j.append("t", {}) for _ in range(20)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert j.head.index == 4 * 40 + 4 * 20
    assert [e.body["n"] for e in j.entries(kind="p2")] == list(range(40))
    j.verify()


def test_a_forked_child_uses_its_own_connection(tmp_path: Path) -> None:
    j = journal(tmp_path)
    j.append("parent", {})
    child = multiprocessing.get_context("fork").Process(target=lambda: j.append("child", {}))
    child.start()
    child.join()
    j.append("parent", {})
    assert child.exitcode == 0
    assert [e.kind for e in j.entries()] == ["parent", "child", "parent"]
    j.verify()
