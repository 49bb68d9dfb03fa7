"""What the orchestrator declines is asked again, after everything else; only a party's own no is a refusal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from datasites.node.home import Config, Home
from datasites.node.http import Declined
from datasites.node.roster import Roster
from datasites.node.work import HEAD_HEADER, Witness, WorkQueue, head_to_text
from datasites.study.messages import WorkItem
from datasites.study.proposal import Party
from datasites.study.signing import dump
from privacy.errors import InvalidInput, Tampered
from privacy.identity import Identity
from privacy.ledger.journal import Journal


class Board:
    """A client whose orchestrator always has the same work."""

    def __init__(self, *items: WorkItem) -> None:
        self.items, self.questions = [dump(item) for item in items], list[Any]()

    def get_json(self, path: str, *, params: dict[str, Any], **_: Any) -> Any:
        assert path == "/work"
        self.questions.append(params["known"])
        return self.items


def item(study: str) -> WorkItem:
    return WorkItem(kind="train", study=study, round=1, closing=0, documents={})


def test_an_item_that_fails_as_nobody_expected_holds_up_no_other() -> None:
    handled = list[str]()

    def handle(work: WorkItem) -> None:
        if work.study == "crooked":
            raise TypeError("comparing strings with non-ASCII characters is not supported")
        if work.study == "paused":
            raise Declined("study 'paused' does not run here")
        handled.append(work.study)

    queue = WorkQueue(Board(item("paused"), item("crooked"), item("running")))  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        queue.deal(handle)
    assert handled == ["running"]


def test_a_declined_item_holds_up_no_other_and_is_asked_for_again() -> None:
    board, handled = Board(item("paused"), item("running")), list[str]()

    def handle(work: WorkItem) -> None:
        if work.study == "paused" and len(handled) < 2:
            raise Declined("study 'paused' does not run here")
        handled.append(work.study)

    queue = WorkQueue(board)  # type: ignore[arg-type]  # what it needs of a client
    with pytest.raises(Declined):
        queue.deal(handle)
    assert handled == ["running"]
    with pytest.raises(Declined):
        queue.deal(handle)
    queue.deal(handle)
    assert handled == ["running", "running", "paused", "running"]
    assert board.questions == [None, None, None]  # never said to be known before it was dealt with
    queue.deal(handle)
    assert board.questions[-1] is not None


class Orchestrator:
    """A client whose orchestrator shows the head of its journal, with its answers or when it is met."""

    def __init__(self, journal: Journal, *, older: bool = False) -> None:
        self.journal, self.older, self.asked = journal, older, list[tuple[str, Any]]()

    def get_beside(self, path: str, header: str, *, params: dict[str, Any], **_: Any) -> tuple[bytes, str]:
        assert (path, header) == ("/work", HEAD_HEADER)
        self.asked.append((path, params["seen"]))
        return b"[]", "" if self.older else head_to_text(self.journal.head)

    def post_json(self, path: str, value: dict[str, Any]) -> Any:
        self.asked.append((path, value["seen"]))
        return {"standing": "", "head": asdict(self.journal.head)}


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    found = Journal(tmp_path / "orchestrator.sqlite", Identity.from_seed(b"o" * 32))
    yield found
    found.close()


def witness_of(folder: Path, client: Orchestrator, *, trouble: str = "") -> Witness:
    key = Identity.from_seed(b"o" * 32).public_key
    parties = [
        Party(name=n, institution=n, public_key=Identity.from_seed(n[0].encode() * 32).public_key) for n in "kab"
    ]
    config = Config(name="a", institution="a", role="datasite", orchestrator_url="http://127.0.0.1:9")
    home = Home.create(folder / "a", config)
    orchestrator = Party(name="o", institution="o", public_key=key)
    Roster(orchestrator=orchestrator, keyholder=parties[0], sites=tuple(parties[1:])).save(home.folder / "roster.json")
    return Witness(home=home, client=client, trouble=lambda: trouble)  # type: ignore[arg-type]


def test_a_head_is_shown_and_heard_with_the_question_for_work(tmp_path: Path, journal: Journal) -> None:
    client = Orchestrator(journal)
    witness = witness_of(tmp_path, client)
    queue = WorkQueue(client, witness=witness)  # type: ignore[arg-type]
    queue.ask()
    first = witness.seen
    assert first == journal.head
    journal.append("round-planned", {"study": "pilot"})
    queue.ask()
    assert witness.seen == journal.head != first
    assert client.asked == [("/work", ""), ("/work", head_to_text(first))]


def test_an_older_orchestrator_and_trouble_are_met_as_before(tmp_path: Path, journal: Journal) -> None:
    older, client = Orchestrator(journal, older=True), Orchestrator(journal)
    WorkQueue(older, witness=witness_of(tmp_path / "1", older)).ask()  # type: ignore[arg-type]
    assert [path for path, _ in older.asked] == ["/work", "/head"]
    witness = witness_of(tmp_path / "2", client, trouble="the disk is full")
    assert witness.shown() is None


def test_a_head_that_our_orchestrator_did_not_sign_is_refused(tmp_path: Path, journal: Journal) -> None:
    witness = witness_of(tmp_path, Orchestrator(journal))
    other = Journal(tmp_path / "other.sqlite", Identity.from_seed(b"x" * 32))
    for forged in (head_to_text(other.head), "1.2", "", "x" * 400, "-1." + "0" * 64 + ".AA=="):
        with pytest.raises((Tampered, InvalidInput)) if forged else nullcontext():
            witness.heard(forged, [])
    other.close()
    assert witness.seen == journal.head  # what came when it was met
