"""An approval is told until the orchestrator takes it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from datasites.hospital import daemon
from datasites.hospital.daemon import Messenger, Reports, Worker
from datasites.node.http import Declined
from datasites.study.messages import WorkItem
from datasites.study.signing import Signed
from privacy.errors import TesseraError

APPROVAL = Signed(kind="approval", payload={}, public_key="0" * 64, signature="x")
REQUEST = SimpleNamespace(
    state="approved", approval=APPROVAL, proposal_hash="a" * 64, proposal=SimpleNamespace(study="pilot")
)


def test_an_approval_that_was_declined_is_journaled_once_and_told_again_until_it_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers, journal, started, now = [Declined("not yet"), Declined("not yet"), None], [], [], [0.0]
    asked: list[str] = []

    def post(path: str, value: Any) -> None:
        asked.append(path)
        if (answer := answers.pop(0)) is not None:
            raise answer

    site = SimpleNamespace(
        approvals=SimpleNamespace(requests=lambda: [REQUEST], thread=SimpleNamespace(unsent=tuple)),
        client=SimpleNamespace(post_json=post, get_json=lambda _: {}),
        journal=SimpleNamespace(append=lambda kind, body: journal.append((kind, body)), entries=lambda **_: ()),
        acts=SimpleNamespace(expire=lambda **_: None),
        policies=SimpleNamespace(current=lambda: None),
        endings=SimpleNamespace(settle=lambda **_: None),
        pool=SimpleNamespace(start=lambda: started.append(True)),
    )
    messenger = Messenger(site)  # type: ignore[arg-type]
    monkeypatch.setattr(daemon.time, "monotonic", lambda: now[0])
    for _ in range(5):
        for _ in range(3):
            messenger.step()
        now[0] += 11
    assert asked == ["/studies/pilot/approvals"] * 3
    assert journal == [("approval-unwanted", {"reason": "not yet"})]
    assert started == [True]


def test_reports_are_written_beside_the_work_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    failing = [True, False, False]

    def write(_: Any, *, finished: str) -> None:
        if failing.pop(0):
            raise TesseraError("the disk is full")
        written.append(finished)

    monkeypatch.setattr(daemon, "write_reports_apart", write)
    done: list[str] = []
    site = SimpleNamespace(
        home=SimpleNamespace(folder="/"),
        client=None,
        standing=SimpleNamespace(trouble=""),
        approvals=SimpleNamespace(requests=list, sealed_proposals=tuple),
        participant=SimpleNamespace(handle=lambda item: done.append(item.study)),
        pool=SimpleNamespace(close=lambda: None),
    )
    site.journal = SimpleNamespace(entries=lambda **_: ())
    reports = Reports(site)  # type: ignore[arg-type]
    worker = Worker(site, reports.want)  # type: ignore[arg-type]
    for study in ("one", "two", "one"):
        worker._finish(WorkItem(kind="finished", study=study, round=0, closing=0, documents={}))
    assert done == ["one", "two"] and written == []  # nobody waits for a report
    with pytest.raises(TesseraError):
        reports.step()
    assert reports.step() == 0.0 and reports.step() > 0
    assert written == ["one", "two"] and reports.step() > 0


def test_reports_that_a_process_had_not_written_are_written_by_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    monkeypatch.setattr(daemon, "write_reports_apart", lambda _, *, finished: written.append(finished))
    entries = {
        "study-finished": [("told", "a"), ("cut off", "b")],
        "study-report": [("told", "a")],
    }
    journal = SimpleNamespace(
        entries=lambda kind: [
            SimpleNamespace(body={"study": study, "proposal_hash": h}) for study, h in entries.get(kind, ())
        ]
    )
    reports = Reports(SimpleNamespace(home=None, journal=journal))  # type: ignore[arg-type]
    reports.step()
    assert written == ["cut off"]
