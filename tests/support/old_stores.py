"""The stores of commit 4c19b18 from ``tests/fixtures``, and how each of them is opened today."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from datasites.keyholder import record
from datasites.keyholder.custody import KeyCustody
from datasites.node.home import Home
from datasites.review import records
from datasites.review.accounts import AccountStore
from datasites.review.people import rows
from datasites.review.records import ReviewRecords
from orchestrator.api import mailbox_store
from orchestrator.api.mailbox_store import MailboxStore
from orchestrator.dashboard import access
from orchestrator.dashboard.access import Visitors
from orchestrator.rounds import store
from orchestrator.rounds.store import Store
from privacy.identity import Identity
from privacy.ledger import chain
from privacy.ledger.journal import Journal
from privacy.ledger.ledger import Ledger
from privacy.storage import VERSION_TABLE, Schema

FIXTURE = Path(__file__).parents[1] / "fixtures" / "stores-4c19b18"
MANIFEST: dict[str, Any] = json.loads((FIXTURE / "MANIFEST.json").read_bytes())
ROLES, HOSPITALS = tuple(MANIFEST["roles"]), tuple(MANIFEST["requests"])
SCHEMAS: dict[str, Schema] = {
    "journal.sqlite": chain.SCHEMA,
    "ledger.sqlite": chain.SCHEMA,
    "accounts.sqlite": rows._SCHEMA,
    "approvals.sqlite": records._SCHEMA,
    "answers.sqlite": record.SCHEMA,
    "orchestrator.sqlite": store._SCHEMA,
    "mailbox.sqlite": mailbox_store._SCHEMA,
    "dashboard.sqlite": access._SCHEMA,
}


def unpack(folder: Path) -> Path:
    """Unpack the archive into the new folder ``folder``, by the script that lies beside it."""
    spec = importlib.util.spec_from_file_location("unpacked_stores", FIXTURE / "unpacked_stores.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return Path(module.unpack(FIXTURE / "stores-4c19b18.tar.xz", folder))


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def contents(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        names = [n for (n,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
        return {n: connection.execute(f"SELECT * FROM {n}").fetchall() for n in names if n != VERSION_TABLE}  # noqa: S608


def identity_of(path: Path) -> Identity:
    if path.parent.name == "chains":
        return Identity.from_seed(bytes.fromhex(MANIFEST["chains"]["seed"]))
    return Home(folder=path.parent).identity()


def open_store(path: Path) -> Any:
    """Open a store by the class that owns it, as its role does at the start."""
    opened: dict[str, Callable[[], Any]] = {
        "journal.sqlite": lambda: Journal(path, identity_of(path)),
        "ledger.sqlite": lambda: Ledger(path, identity_of(path)),
        "accounts.sqlite": lambda: AccountStore(path),
        "approvals.sqlite": lambda: ReviewRecords(path),
        "answers.sqlite": lambda: KeyCustody(path.parent, Home(folder=path.parents[1]).identity()),
        "orchestrator.sqlite": lambda: Store(path.parent),
        "mailbox.sqlite": lambda: MailboxStore(path.parent),
        "dashboard.sqlite": lambda: Visitors(path),
    }
    return opened[path.name]()
