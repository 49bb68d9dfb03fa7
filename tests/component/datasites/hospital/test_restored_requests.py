"""A hospital that comes back from a backup is offered the proposals again that came after it."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.mailbox_server import mailbox, mailbox_identity
from support.review_desk import CODE, identity, make_proposal

from datasites.hospital.proposals import Node
from datasites.review.approvals import ApprovalStore
from datasites.review.policy import Policy
from datasites.study.signing import dump, seal
from datasites.syft.client import OwnerNode, ScientistNode
from datasites.syft.runner import PROPOSAL_FILE
from orchestrator.studies.words import send_again
from privacy.ledger.journal import Journal

__all__ = ["mailbox", "mailbox_identity"]
ROSTER = SimpleNamespace(orchestrator=SimpleNamespace(name="dr-lang"), scientists=())


class Alba:
    """A hospital's folder, and its process, which can be started on an older copy of the folder."""

    def __init__(self, mailbox: Any, folder: Path) -> None:
        self._mailbox, self.folder = mailbox, folder
        folder.mkdir()
        (folder / "mock.csv").write_text("a\n")

    def start(self) -> None:
        self.journal = Journal(self.folder / "journal.sqlite", identity("alba"))
        self.approvals = ApprovalStore(
            self.folder / "approvals.sqlite",
            site="alba",
            identity=identity("alba"),
            policy=Policy(),
            record=self.journal.append,
        )
        self.owner = OwnerNode(self.folder / "syft", self._mailbox.postbox("alba"), scientists=["dr-lang"])
        home = SimpleNamespace(folder=self.folder, roster=lambda: ROSTER, orchestrator_keys=lambda: ())
        datasite: Any = SimpleNamespace(home=home, journal=self.journal, approvals=self.approvals, jobs=None)
        self.node = Node(datasite)
        vars(self.node)["_owner"] = self.owner
        self.node._publish = self._publish  # type: ignore[method-assign]
        self.look()

    def _publish(self) -> None:
        if not any(self.owner.client.dataset_manager.get_all()):
            self.owner.publish_dataset("ages", mock_path=self.folder / "mock.csv", private_location="elsewhere")

    def look(self) -> None:
        """Do what a process does at its start: it does not wait for news."""
        for _ in range(2):
            self.node._published = False
            self.node.step()

    def stop(self) -> None:
        self.approvals.close()
        self.journal.close()

    def restore(self, backup: Path) -> None:
        self.stop()
        shutil.rmtree(self.folder)
        shutil.copytree(backup, self.folder)
        self.start()

    def requests(self) -> list[str]:
        self.look()
        return [request.proposal.study for request in self.approvals.requests()]


@pytest.fixture
def alba(mailbox: Any, tmp_path: Path) -> Iterator[Alba]:
    made = Alba(mailbox, tmp_path / "alba")
    yield made
    made.stop()


@pytest.mark.parametrize("moment", ["before the first start", "before the first peer", "before the proposal"])
def test_a_proposal_that_came_after_the_backup_is_offered_again(
    alba: Alba, mailbox: Any, tmp_path: Path, moment: str
) -> None:
    def back_up(now: str) -> None:
        if now == moment:
            shutil.copytree(alba.folder, tmp_path / "backup")

    back_up("before the first start")
    alba.start()
    back_up("before the first peer")
    scientist = ScientistNode(tmp_path / "lab" / "syft", mailbox.postbox("dr-lang"))
    scientist.add_peer("alba")
    alba.look()
    scientist.sync()
    assert alba.requests() == []
    back_up("before the proposal")
    proposal = make_proposal(created=dt.datetime.now(dt.UTC))
    files = {**CODE, PROPOSAL_FILE: json.dumps(dump(seal(identity("orchestrator"), "proposal", proposal))).encode()}
    send(scientist, proposal.proposal_hash, files, tmp_path / "tree")
    assert alba.requests() == [proposal.study]
    alba.restore(tmp_path / "backup")
    send_again(scientist, proposal, files, ["alba"])
    assert alba.requests() == [proposal.study]
    send_again(scientist, proposal, files, ["alba"])  # once more changes nothing
    assert alba.requests() == [proposal.study]
    assert [entry.kind for entry in alba.journal.entries()].count("proposal-received") == 1


def send(scientist: ScientistNode, proposal_hash: str, files: dict[str, bytes], tree: Path) -> None:
    tree.mkdir()
    for name, data in files.items():
        (tree / name).write_bytes(data)
    scientist.submit("alba", f"lung-staging-{proposal_hash[:8]}", tree)
