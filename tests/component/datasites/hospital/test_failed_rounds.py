"""A round that cannot run costs nothing, and after one that failed the next charge waits for a person."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
from harness.consortium import Hospital
from support.charges import is_charged
from support.liar import Stage

from datasites.review.endings import CONTINUED, FAILED, Endings, failed_rounds, held_rounds
from datasites.worker.job import TrainingJob, TrainingResult
from privacy.errors import Refused


def failing(_: TrainingJob) -> TrainingResult | None:
    return None


def change(stage: Stage, index: int, **changes: object) -> None:
    hospital = stage.consortium.hospitals[index]
    hospital.participant = replace(hospital.participant, **changes)  # type: ignore[arg-type]


def kinds(hospital: Hospital, study: str) -> list[str]:
    return [e.kind for e in hospital.participant.journal.entries() if e.body.get("study") == study]


def words(hospital: Hospital, stage: Stage) -> list[str]:
    return [w.kind for w in hospital.approvals.request(stage.proposal.proposal_hash).words]


def test_what_the_preflight_finds_is_refused_before_the_charge_and_the_round_can_be_done_later(stage: Stage) -> None:
    hospital, tried = stage.consortium.hospitals[0], []

    def preflight(job: TrainingJob) -> None:
        tried.append(job.plan.round)
        if len(tried) == 1:
            raise Refused("the worker cannot do this round here, so nothing was charged: no such file")

    change(stage, 0, preflight=preflight)
    assert not stage.train(0)
    assert "nothing was charged" in stage.liar.reasons("site-0")[-1]
    ledger = hospital.participant.ledger
    assert not is_charged(ledger, stage.proposal.proposal_hash, 1)
    assert "round-charged" not in kinds(hospital, stage.proposal.study)
    assert stage.train(0) and is_charged(ledger, stage.proposal.proposal_hash, 1)
    assert tried == [1, 1]


def test_a_worker_server_that_cannot_start_after_the_charge_is_waited_for_and_sends_no_noise(stage: Stage) -> None:
    calls: list[int] = []
    usual = stage.consortium.hospitals[0].participant.train

    def starting(job: TrainingJob) -> TrainingResult | None:
        calls.append(1)
        if len(calls) == 1:
            raise Refused("the worker server did not start")
        return usual(job)

    change(stage, 0, train=starting)
    with pytest.raises(Exception, match="waits for a worker"):
        stage.train(0)
    assert not stage.liar.reasons("site-0") and stage.train(0)
    assert FAILED not in kinds(stage.consortium.hospitals[0], stage.proposal.study)


def test_after_a_failed_round_nothing_is_charged_until_a_person_lets_the_study_go_on(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    hospital = stage.consortium.hospitals[0]
    part, study, hashed = hospital.participant, stage.proposal.study, stage.proposal.proposal_hash
    change(stage, 0, train=failing)
    with caplog.at_level(logging.ERROR):
        stage.train_all()
    assert "only noise" in caplog.text and study in caplog.text
    assert words(hospital, stage) == ["approved", "failed"] and stage.train(0)  # the noise itself can be sent again
    assert stage.decrypt(*stage.close()) is not None
    later = stage.following()
    change(stage, 0, train=part.train)
    assert not later.train(0) and "before a person there" in stage.liar.reasons("site-0")[-1]
    assert not is_charged(part.ledger, hashed, 2) and words(hospital, stage) == ["approved", "failed"]

    endings = Endings(ledger=part.ledger, journal=part.journal, approvals=hospital.approvals)
    assert endings.waiting(hashed) == held_rounds(part.journal, study) == (1,)
    assert endings.let_go_on(hashed, "the disk was remounted", by="anna") == (1,)
    assert endings.let_go_on(hashed, "once more", by="anna") == ()
    assert words(hospital, stage) == ["approved", "failed", "continued"]
    assert kinds(hospital, study).count(CONTINUED) == 1
    assert later.train(0) and is_charged(part.ledger, hashed, 2)
    assert failed_rounds(part.journal, study) == (1,) and not endings.waiting(hashed)


def test_the_words_of_a_failure_say_no_reason_and_reach_only_the_scientist(stage: Stage) -> None:
    change(stage, 0, train=failing)
    stage.train(0)
    word = stage.consortium.hospitals[0].approvals.request(stage.proposal.proposal_hash).words[-1]
    assert word.kind == "failed" and word.text.startswith("Round 1 failed here.")
    assert not word.concerns("site-1") and not word.final
