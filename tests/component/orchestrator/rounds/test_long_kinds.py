"""Every kind of document fits into PostgreSQL's column: SQLite does not count its letters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from orchestrator.rounds.helping import CHOSEN
from orchestrator.rounds.store import Store


def test_what_helpers_chose_is_kept_on_postgresql(tmp_path: Path, postgres: Callable[[str], str]) -> None:
    store = Store(tmp_path, postgres("kinds"))
    store.put_document("pilot", 1, CHOSEN, {"sites": ["a"]}, closing=1)
    assert store.document("pilot", 1, CHOSEN, closing=1) == {"sites": ["a"]}
    store.close()
