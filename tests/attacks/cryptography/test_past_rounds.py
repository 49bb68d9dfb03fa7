"""The orchestrator asks for a past round, to make a hospital forget how its models came about, or pay for nothing.

Played: a hospital is told that a round was lost, trains the next one on that branch, and is then sent the plan of the
lost round; a hospital that followed finished rounds is sent the plan of one that it missed, and finds them all lost
afterwards; a kill between a plan's file and its journal entry; a round's sum under another plan than was sent here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from support.liar import Stage, consortium, stage

from datasites.study.messages import LostRound
from datasites.study.recomputed.chain import ModelChain, RoundEvidence
from datasites.study.signing import seal

__all__ = ["consortium", "stage"]
LATE = 3
"""The hospital that misses a round."""


def lost(one: Stage, number: int) -> tuple[RoundEvidence, bytes]:
    about = {"study": one.proposal.study, "proposal_hash": one.proposal.proposal_hash}
    told = LostRound(**about, round=number, reason="restored")
    return RoundEvidence(lost=seal(one.liar.identity, "round-lost", told)), b""


def links(one: Stage) -> list[str]:
    models = one.consortium.hospitals[LATE].participant.models
    data = models._path(one.proposal, "chain").read_bytes()
    return [link.integers_hash for link in ModelChain.from_bytes(one.proposal, data).links]


def charged(one: Stage) -> list[int]:
    journal = one.consortium.hospitals[LATE].participant.journal
    return [e.body["round"] for e in journal.entries(kind="round-charged") if e.body["study"] == one.proposal.study]


def journaled(one: Stage, kind: str) -> list[int]:
    journal = one.consortium.hospitals[LATE].participant.journal
    return [e.body["round"] for e in journal.entries(kind=kind) if e.body["study"] == one.proposal.study]


def round_of_the_others(one: Stage) -> None:
    one.bodies.clear()
    one.updates.clear()
    for index in range(LATE):
        assert one.train(index)
    sums = one.close(attest=tuple(range(LATE)))
    assert one.decrypt(*sums) is not None


@pytest.mark.parametrize("stage", [{"rounds": 5}], indirect=True, ids=["five rounds"])
def test_a_past_round_is_not_trained_and_the_branch_stays(stage: Stage) -> None:
    first = stage.liar.model_hash
    round_of_the_others(stage)
    true = stage.liar.evidence[1]
    two = stage.following()
    stage.liar.evidence[1] = lost(stage, 1)
    branch = seal(stage.liar.identity, "round-plan", two.round_plan(model_hash=first))
    assert two.train(LATE, plan=branch) and links(stage) == [""]
    stage.liar.evidence[1] = true
    round_of_the_others(two)
    three = two.following()
    for _ in range(2):
        assert not stage.train(LATE)
        assert not three.train(LATE)
    assert (charged(stage), links(stage)) == ([2], [""])
    assert "another sum now than was signed" in stage.liar.reasons("site-3")[-1]


@pytest.mark.parametrize("stage", [{"rounds": 5}], indirect=True, ids=["five rounds"])
def test_finished_rounds_that_were_followed_are_not_lost_without_a_word(stage: Stage) -> None:
    first = stage.liar.model_hash
    round_of_the_others(stage)
    two = stage.following()
    round_of_the_others(two)
    three = two.following()
    assert three.train(LATE)
    assert not stage.train(LATE)
    assert (charged(stage), len(links(stage))) == ([3], 2)
    for number in (1, 2, 3):
        stage.liar.evidence[number] = lost(stage, number)
    stage.liar.model_hash = first
    four = Stage(stage.consortium, stage.liar, stage.keyholder, number=4)
    assert four.train(LATE)
    assert journaled(stage, "round-lost-later") == [1, 2]


@pytest.mark.parametrize("stage", [{"rounds": 5}], indirect=True, ids=["five rounds"])
def test_a_sum_under_another_plan_than_was_sent_here_is_journaled(stage: Stage) -> None:
    own = seal(stage.liar.identity, "round-plan", stage.round_plan(deadline_seconds=31))
    assert stage.train(LATE, plan=own)
    round_of_the_others(stage)
    two = stage.following()
    for _ in range(2):
        assert two.train(LATE)
    assert journaled(stage, "other-plan-shown") == [1]


def test_a_plan_whose_entry_was_lost_in_a_kill_is_journaled_by_the_next_try(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = stage.consortium.hospitals[0].participant.journal
    real: Callable[..., Any] = journal.append

    def killed(kind: str, body: Any) -> Any:
        if kind == "round-plan":
            raise OSError(28, "no space left on device")
        return real(kind, body)

    with monkeypatch.context() as patch:
        patch.setattr(journal, "append", killed)
        with pytest.raises(OSError, match="no space"):
            stage.train(0)
    assert stage.train(0)
    assert (stage.proposal.study, 1) in journal.by_round("round-plan")
