"""A last write that tore is cut off: every store opens as it was before that write, never with a part of it."""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from datasites.node.files import make_folder, remove_unfinished, write_atomically
from datasites.node.letters import Place
from datasites.node.notices.outbox import Notice, Outbox
from datasites.node.notices.settings import NoticeSettings, Webhook
from datasites.review.accounts import AccountStore
from datasites.review.key_wrapping import Hardness
from datasites.review.records import Confirmation, ReviewRecords
from datasites.study.signing import Signed
from orchestrator.api.mailbox_store import MailboxStore
from orchestrator.api.uploads import Incoming
from orchestrator.rounds.store import Store
from privacy.identity import Identity
from privacy.ledger.chain import Chain

IDENTITY = Identity.from_seed(bytes(32))
NOW = dt.datetime(2026, 5, 1, tzinfo=dt.UTC)
FAST = Hardness(passes=1, memory_kib=8, lanes=1)


@dataclass(frozen=True)
class Kept:
    """One kind of store: how it is opened, written to for the n-th time, and read as a whole."""

    file: str
    open: Callable[[Path], Any]
    write: Callable[[Any, int], object]
    read: Callable[[Any], Any]


def confirmed(records: ReviewRecords, number: int) -> None:
    with records.transaction():
        value = Confirmation(public_key=f"{number:064}", name="n", institution="i", person="p", at=NOW.isoformat())
        records.add_confirmation(value)


def letter(number: int) -> Place:
    return Place(owner="north", box="inbox", folder="lab", name=f"{number}.json")


def chain(purpose: Any) -> Kept:
    return Kept(
        file=f"{purpose}.sqlite",
        open=lambda folder: Chain(folder / f"{purpose}.sqlite", IDENTITY, purpose=purpose),
        write=lambda c, number: c.append("round-charged", {"round": number, "text": "x" * 3000}),
        read=lambda c: [entry.body["round"] for entry in c.entries()],
    )


RECEIVERS = NoticeSettings(webhooks=(Webhook(url="https://chat.example/hook"),))
STORES = {
    "journal": chain("journal"),
    "ledger": chain("ledger"),
    "studies": Kept(
        file="orchestrator.sqlite",
        open=Store,
        write=lambda s, n: s.put_document("s", n, "update", Signed(kind="k", payload={}, public_key="", signature="")),
        read=lambda s: [n for n in range(1, 4) if s.documents("s", n, "update")],
    ),
    "mailbox": Kept(
        file="mailbox.sqlite",
        open=MailboxStore,
        write=lambda s, number: s.put(letter(number), bytes([number])),
        read=lambda s: [int.from_bytes(s.get(item.place) or b"") for item in s.news("north", 0, 10)],
    ),
    "approvals": Kept(
        file="approvals.sqlite",
        open=lambda folder: ReviewRecords(folder / "approvals.sqlite"),
        write=confirmed,
        read=lambda r: [int(c.public_key) for c in r.confirmations()],
    ),
    "accounts": Kept(
        file="accounts.sqlite",
        open=lambda folder: AccountStore(folder / "accounts.sqlite", hardness=FAST),
        write=lambda a, number: a.invite("steward", now=NOW + dt.timedelta(minutes=number)),
        read=lambda a: [n for n in range(1, 4) if a.invited(now=NOW + dt.timedelta(days=3, minutes=n - 0.5))],
    ),
    "notices": Kept(
        file="notices.sqlite",
        open=lambda folder: Outbox(folder / "notices.sqlite"),
        write=lambda o, n: o.add(Notice(key=str(n), kind="decision", subject="s", body="b"), RECEIVERS, NOW),
        read=lambda o: [int(queued.notice.key) for queued in o.due(NOW + dt.timedelta(days=9))],
    ),
}


def test_the_stores_of_this_table_are_all_that_write_ahead() -> None:
    """Whoever adds a store with a write-ahead log adds it here (the keyholder's record rolls back by its journal)."""
    root = Path(__file__).parents[2]
    found = set()
    for package in ("datasites", "orchestrator", "privacy"):
        for path in (root / package).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            if "journal_mode" in text and "WAL" in text:
                found.add(path.stem)
    assert found == {"chain", "store", "mailbox_store", "records", "rows", "outbox"}


@pytest.mark.parametrize("kept", STORES.values(), ids=STORES)
def test_a_write_that_tore_anywhere_is_cut_off_whole(kept: Kept, tmp_path: Path) -> None:
    live = tmp_path / "live"
    live.mkdir()
    store = kept.open(live)
    kept.write(store, 1)
    before = (live / f"{kept.file}-wal").stat().st_size
    kept.write(store, 2)
    log = (live / f"{kept.file}-wal").read_bytes()
    assert len(log) > before
    still = tmp_path / "still"
    shutil.copytree(live, still, ignore=shutil.ignore_patterns("*-shm"))
    store.close()
    for length in [*range(before, len(log), 1 + (len(log) - before) // 7), len(log) - 1, len(log)]:
        torn = tmp_path / f"torn-{length}"
        shutil.copytree(still, torn)
        (torn / f"{kept.file}-wal").write_bytes(log[:length])
        opened = kept.open(torn)
        assert kept.read(opened) == ([1, 2] if length == len(log) else [1]), length
        kept.write(opened, 3)
        assert kept.read(opened)[-1] == 3
        opened.close()


def test_a_changed_byte_in_the_last_write_cuts_it_off(tmp_path: Path) -> None:
    journal = STORES["journal"].open(tmp_path)
    journal.append("a", {"round": 1})
    before = (tmp_path / "journal.sqlite-wal").stat().st_size
    journal.append("a", {"round": 2})
    data, log = ((tmp_path / f"journal.sqlite{end}").read_bytes() for end in ("", "-wal"))
    journal.close()
    broken = bytearray(log)
    broken[before + 100] ^= 1
    other = tmp_path / "other"
    other.mkdir()
    (other / "journal.sqlite").write_bytes(data)
    (other / "journal.sqlite-wal").write_bytes(broken)
    reopened = STORES["journal"].open(other)
    assert [entry.body["round"] for entry in reopened.entries()] == [1]
    reopened.verify()
    reopened.close()


def test_state_files_are_synced_before_and_after_their_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    done: list[tuple[str, str]] = []
    sync, replace = os.fsync, os.replace

    def fsync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        done.append(("sync", "folder" if path.is_dir() else path.read_bytes().decode()))
        sync(descriptor)

    def renamed(source: Any, target: Any) -> None:
        done.append(("rename", Path(target).name))
        replace(source, target)

    make_folder(tmp_path / "rounds" / "pilot")
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", renamed)
    write_atomically(tmp_path / "rounds" / "pilot" / "plan.json", b"{}")
    assert done == [("sync", "{}"), ("rename", "plan.json"), ("sync", "folder")]
    done.clear()
    write_atomically(tmp_path / "rounds" / "pilot" / "plan.json", b"[]", name_follows=True)
    assert done == [("sync", "[]"), ("rename", "plan.json")]
    done.clear()
    write_atomically(tmp_path / "rounds" / "second" / "plan.json", b"{}")
    assert done[0] == ("sync", "folder")  # the new folder's own name


def test_what_a_crash_left_half_written_goes_at_the_next_start(tmp_path: Path) -> None:
    write_atomically(tmp_path / "rounds" / "1" / "update.bin", b"ciphertexts")
    half = tmp_path / "rounds" / "1" / ".update.bin.0a1b2c3d.new"
    half.write_bytes(b"cipher")
    remove_unfinished(tmp_path)
    assert half.exists()  # somebody may be writing it now
    remove_unfinished(tmp_path, older_than_seconds=-1.0)
    assert [p.name for p in (tmp_path / "rounds" / "1").iterdir()] == ["update.bin"]


def test_an_upload_of_which_the_disk_took_only_a_part_is_no_upload(tmp_path: Path, monkeypatch: Any) -> None:

    class Short:
        """A file on a disk with room for ten bytes."""

        def __enter__(self) -> Short:
            return self

        def __exit__(self, *_: object) -> None: ...

        def write(self, piece: bytes) -> int:
            return min(10, len(piece))

    class Request:
        headers = {"content-length": "105"}  # noqa: RUF012

        async def stream(self) -> Any:
            yield bytes(105)

    async def upload() -> None:
        incoming = Incoming(Request(), hashlib.sha256(bytes(105)).hexdigest())  # type: ignore[arg-type]
        await incoming._take(5)
        await incoming.body(tmp_path / "body")

    monkeypatch.setattr(Path, "open", lambda *_, **__: Short())
    with pytest.raises(OSError, match="no room for the whole upload"):
        asyncio.run(upload())
