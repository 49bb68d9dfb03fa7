"""Of two orchestrators on one PostgreSQL one leads, and what the other one still wants to write does not go in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from uuid import uuid4

import pytest
import sqlalchemy as sa

from datasites.study.signing import Signed
from orchestrator.rounds import leadership
from orchestrator.rounds.leadership import Leadership
from orchestrator.rounds.store import Store
from orchestrator.rounds.tables import LEADERSHIP
from privacy.errors import Refused, Tampered
from privacy.identity import Identity
from privacy.ledger.journal import Journal

IDENTITY = Identity.from_seed(bytes(32))
SIGNED = Signed(kind="proposal", payload={"study": "s"}, public_key="k", signature="x")
Two = tuple[Store, Leadership, Store, Leadership]


class Ended(Exception):  # in the place of the process's end
    pass


@pytest.fixture
def two(tmp_path: Path, postgres: Callable[[str], str]) -> Iterator[Two]:
    url, made = postgres(f"lease_{uuid4().hex}"), []

    def end() -> None:
        raise Ended

    for name in ("here", "there"):
        store = Store(tmp_path / name, url)
        lease = store.leadership(holder=name, public_key=IDENTITY.public_key)
        assert lease is not None
        lease._end = end
        made += [store, lease]
    yield tuple(made)
    made[0].close()
    made[2].close()


def run_out(store: Store) -> None:
    with store._engine.begin() as connection:
        connection.execute(LEADERSHIP.update().values(until=0.0))


def test_one_leads_until_its_lease_runs_out_and_writes_nothing_more_then(two: Two) -> None:
    first, lease, second, other = two
    assert lease.take() == "" and other.take() == "here" and lease.take() == ""
    first.add_study("s", SIGNED)
    run_out(first)
    first.set_state("s", "running")  # late, but nobody else has taken it
    assert other.take() == ""
    second.put_document("s", 1, "plan", SIGNED)
    for write in (
        lambda: first.set_state("s", "paused"),
        lambda: first.add_study("t", SIGNED),
        lambda: first.put_document("s", 1, "update", SIGNED, author="a"),
    ):
        with pytest.raises(Ended):
            write()
    assert second.study("s")[1] == "running" and second.document("s", 1, "update", author="a") is None
    assert first.document("s", 1, "update", author="a") is None
    assert lease.take() == "there"
    other.release()
    assert lease.take() == ""


def test_who_stands_by_ends_when_asked_to_and_leads_when_the_other_gives_back(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, lease, _, other = two
    monkeypatch.setattr(leadership, "ASK_SECONDS", 0.01)
    lease.take()
    ended = Event()
    ended.set()
    assert not other.wait(ended)
    lease.release()
    assert other.wait(Event())


def test_the_leader_keeps_its_lease_while_it_lives(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    first, lease, _, _ = two
    monkeypatch.setattr(leadership, "RENEW_SECONDS", 0.01)
    lease.take()
    run_out(first)
    lease.hold()
    query = sa.select(LEADERSHIP.c.until)
    while True:  # until it was renewed
        with first._engine.connect() as connection:
            if connection.execute(query).scalar_one() > 0:
                break
    lease.release()


def test_one_with_another_key_never_leads(two: Two) -> None:
    first, lease, *_ = two
    lease.take()
    stranger = first.leadership(holder="elsewhere", public_key=Identity.generate().public_key)
    assert stranger is not None
    with pytest.raises(Refused, match="another key"):
        stranger.take()
    rotated = Identity.generate().public_key
    heir = first.leadership(holder="here", public_key=rotated, former=[IDENTITY.public_key])  # handed over to it
    assert heir is not None and heir.take() == ""
    with pytest.raises(Refused, match="another key"):  # the old key alone has nothing to say here any more
        lease.take()
    heir.release()


def test_the_successor_has_every_entry_of_the_journal_and_the_first_one_catches_up(two: Two, tmp_path: Path) -> None:
    first, lease, _, other = two
    journals = [Journal(tmp_path / f"{name}.sqlite", IDENTITY) for name in ("here", "there")]
    journals[0].append("before", {})  # from the time before there was a second one
    lease.take()
    lease.share(journals[0])
    Journal(tmp_path / "here.sqlite", IDENTITY).append("audit", {})  # by a command beside the process
    journals[0].append("round-planned", {"round": 1})
    run_out(first)
    other.take()
    other.share(journals[1])
    journals[1].verify()
    assert journals[1].head == journals[0].head
    journals[1].append("round-planned", {"round": 2})
    with pytest.raises(Ended):
        journals[0].append("round-planned", {"round": 3})
    assert [e.kind for e in journals[0].entries()] == ["before", "audit", "round-planned"]
    other.release()
    lease.take()
    lease.share(journals[0])
    assert journals[0].head == journals[1].head


def test_journals_that_went_on_apart_are_not_joined(two: Two, tmp_path: Path) -> None:
    first, lease, _, other = two
    journals = [Journal(tmp_path / f"{name}.sqlite", IDENTITY) for name in ("here", "there")]
    lease.take()
    lease.share(journals[0])
    journals[0].append("one", {})
    journals[0].append("two", {})
    journals[1].append("another", {})
    run_out(first)
    other.take()
    with pytest.raises(Tampered, match="went on apart"):
        other.share(journals[1])
    assert [e.kind for e in journals[1].entries()] == ["another"]
    assert len(list(journals[0].entries())) == 2


def test_a_file_has_no_lease_since_one_process_holds_its_folder(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.leadership(holder="here", public_key=IDENTITY.public_key) is None
    store.close()
