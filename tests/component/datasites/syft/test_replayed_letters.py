"""A mailbox that shows old letters again, or all of yesterday's: nothing is decided twice, no decision is undone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from datasites.hospital.proposals import receive_proposal
from datasites.node.letters import Place
from datasites.study.signing import dump
from datasites.syft.client import OwnerNode, ScientistNode

Letters = dict[Place, bytes]


@pytest.fixture
def nodes(mailbox: Any, tmp_path: Path) -> Iterator[tuple[OwnerNode, ScientistNode]]:
    owner = OwnerNode(tmp_path / "north", mailbox.postbox("north"), scientists=["lab"])
    scientist = ScientistNode(tmp_path / "lab", mailbox.postbox("lab"))
    scientist.add_peer("north")
    owner.sync()
    scientist.sync()
    yield owner, scientist


def kept(mailbox: Any) -> Letters:
    """Copy every letter that lies in the mailbox now."""
    found: Letters = {}
    for reader in ("north", "lab"):
        for item in mailbox._store.news(reader, 0, 1000):
            letter = mailbox._store.get(item.place)
            if letter is not None:
                found[item.place] = letter
    return found


def show_again(mailbox: Any, letters: Letters) -> None:
    for place, letter in letters.items():
        mailbox._store.put(place, letter)


def tree_of(folder: Path, text: bytes) -> Path:
    folder.mkdir()
    (folder / "plan.py").write_bytes(text)
    (folder / "proposal.json").write_bytes(b"{}")
    return folder


@pytest.mark.parametrize("decide", [OwnerNode.reject, OwnerNode.approve], ids=["rejected", "approved"])
def test_an_old_job_shown_again_is_not_pending_again(
    nodes: tuple[OwnerNode, ScientistNode],
    mailbox: Any,
    tmp_path: Path,
    decide: Callable[[OwnerNode, Any, str], None],
) -> None:
    owner, scientist = nodes
    scientist.submit("north", "study-1", tree_of(tmp_path / "tree", b"pass\n"))
    old = kept(mailbox)
    assert any(place.box == "inbox" for place in old)
    owner.sync()
    (job,) = owner.pending_jobs()
    decide(owner, job, "as the reviewers said")
    owner.sync()
    scientist.sync()
    before = scientist.jobs()
    show_again(mailbox, old)  # every box, the lists of peers and the keys included
    for _ in range(2):
        owner.sync()
        scientist.sync()
    assert owner.pending_jobs() == []
    assert scientist.jobs() == before
    assert owner.peers == ["lab"]
    scientist.submit("north", "study-2", tree_of(tmp_path / "second", b"pass  # 2\n"))
    owner.sync()
    assert [job.name for job in owner.pending_jobs()] == ["study-2"]  # and new letters still arrive


def test_a_proposal_that_comes_again_revives_no_decision(
    desk: Any, new_proposal: Any, now: Any, tmp_path: Path
) -> None:
    """The review's own record decides by hash, whatever the mailbox delivers and however often."""
    job, plans = tmp_path / "job", tmp_path / "plans"
    job.mkdir()
    (job / "plan.toml").write_bytes(b"architecture = 'linear'\n")
    (job / "proposal.json").write_text(json.dumps(dump(desk.sealed(new_proposal()))))
    request = receive_proposal(desk.store, job, plans, now=now)
    desk.approve(request.proposal_hash)
    assert receive_proposal(desk.store, job, plans, now=now).state == "approved"
    anna = desk.accounts.account("anna")
    desk.store.revoke(request.proposal_hash, reviewer=anna, reason="withdrawn", now=now)
    assert receive_proposal(desk.store, job, plans, now=now).state == "revoked"
    assert desk.kinds().count("proposal-received") == 1
