"""What the orchestrator declines is asked again, after everything else; only a party's own no is a refusal."""

from __future__ import annotations

from typing import Any

import pytest

from datasites.node.http import Declined
from datasites.node.work import WorkQueue
from datasites.study.messages import WorkItem
from datasites.study.signing import dump


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
