"""An approval is told until the orchestrator takes it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from datasites.hospital import daemon
from datasites.hospital.daemon import Messenger
from datasites.node.http import Declined
from datasites.study.signing import Signed

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
