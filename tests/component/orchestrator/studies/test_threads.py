"""Every decision reaches the scientist with its words, every answer and ending the hospitals; all of it signed."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.loops import LENGTH, SITES, Loops

from datasites.hospital.thread import Thread
from datasites.study.proposal import Proposal
from datasites.study.signing import dump, seal
from datasites.study.thread import WORD, Word
from orchestrator.cli.main import _code
from orchestrator.rounds.keeping.retention import enforce
from orchestrator.studies import run, words
from orchestrator.studies.status import study_line
from privacy.errors import InvalidInput, Refused, StudyOver, TesseraError


class Silent:
    def __init__(self) -> None:
        self.notes: list[str] = []

    def step(self, text: str) -> None: ...

    def note(self, text: str) -> None:
        self.notes.append(text)

    def rounds(self, done: int, total: int, text: str) -> None: ...


@pytest.fixture
def loops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loops]:
    with Loops(tmp_path, sites=SITES) as made:
        made.open()
        for module in (words, run):
            monkeypatch.setattr(module, "client_of", lambda *_, **__: made.signed("orchestrator"))
        yield made


@pytest.fixture
def scientist(loops: Loops) -> Any:
    return loops.homes["orchestrator"]


def wait_for(loops: Loops, study: str) -> tuple[Silent, TesseraError]:
    view = Silent()
    with pytest.raises(TesseraError) as raised:
        run.wait(loops.homes["orchestrator"], study, view, timeout_seconds=120)
    return view, raised.value


def test_a_denial_reaches_the_scientist_and_the_other_hospitals_with_its_words(loops: Loops) -> None:
    proposal = loops.request("pilot")
    loops.decide(0, proposal, "approve")
    loops.decide(1, proposal, "deny", "The consent forms do not cover this.")
    status = loops.status("pilot")
    assert status["state"] == "denied"
    assert "site-1 denied: “The consent forms do not cover this.”" in status["reason"]
    assert any("The consent forms" in line for line in study_line(status).words)
    view, error = wait_for(loops, "pilot")
    assert isinstance(error, StudyOver)
    assert _code(error) == 4
    assert any("The consent forms do not cover this." in note for note in view.notes)
    loops.carry()
    assert [loops.state(i, proposal) for i in range(SITES)] == ["ended", "denied", "ended", "ended"]
    ((rounds, why),) = loops.returned(0)  # the only one that had approved
    assert rounds == [1]
    assert "site-1 denied: “The consent forms do not cover this.”" in why
    assert loops.returned(2) == []


def test_a_question_is_answered_on_both_sides_and_only_between_the_two(loops: Loops, scientist: Any) -> None:
    proposal = loops.request("pilot")
    loops.decide(2, proposal, "ask", "Which tumours are meant?")
    assert loops.status("pilot")["state"] == "waiting"
    words.answer(scientist, "pilot", "site-2", "Lung only; see page 3.", accept=False, person="Dr. Lang")
    loops.carry()
    assert loops.kinds(2, proposal) == ["asked", "answered"]
    assert loops.state(2, proposal) == "pending"  # it waits for the hospital again
    assert loops.kinds(0, proposal) == []
    answer = loops.hospitals[2].approvals.request(proposal.proposal_hash).words[1]
    assert (answer.person, answer.text) == ("Dr. Lang", "Lung only; see page 3.")
    loops.carry()
    assert loops.kinds(2, proposal) == ["asked", "answered"]


def test_an_approval_with_conditions_starts_once_the_scientist_has_accepted_them(loops: Loops, scientist: Any) -> None:
    proposal = loops.request("pilot")
    for index in range(SITES):
        loops.decide(index, proposal, "approve", "Send us the paper first." if index == 3 else "")
    assert loops.status("pilot")["state"] == "waiting"
    assert "accept the conditions of site-3" in loops.status("pilot")["waiting"]
    assert "approval by" not in loops.status("pilot")["waiting"]
    with pytest.raises(Refused, match="no condition"):
        words.answer(scientist, "pilot", "site-0", "Yes.", accept=True)
    for hospital in loops.hospitals[3:]:
        with pytest.raises(Refused, match="not accepted the conditions"):
            hospital.approvals.check_decision(proposal.proposal_hash, now=dt.datetime.now(dt.UTC))
    words.answer(scientist, "pilot", "site-3", "We will.", accept=True)
    assert loops.play("pilot")["state"] == "finished"
    loops.carry()
    assert loops.kinds(3, proposal)[:2] == ["conditions", "accepted"]
    assert loops.kinds(0, proposal) == ["approved", "finished"]
    assert loops.state(0, proposal) == "approved"


def test_a_revocation_names_the_hospital_and_the_study_goes_on_without_it_or_ends(loops: Loops) -> None:
    proposal = loops.request("pilot", rounds=3)
    for index in range(SITES):
        loops.decide(index, proposal, "approve")
    loops.play("pilot", until=lambda status: status["rounds_completed"] >= 1)
    loops.decide(1, proposal, "revoke", "The ethics vote was withdrawn.")
    status = loops.play("pilot", "site-0", "site-2", "site-3", "keyholder", until=lambda s: s["rounds_completed"] >= 2)
    assert status["state"] in ("running", "finished")
    assert "site-1" not in status["checkpoints"][-1]["sites"]
    loops.carry()
    assert loops.kinds(0, proposal)[-1] == "revoked"
    assert loops.state(0, proposal) == "approved"
    loops.decide(2, proposal, "revoke", "So was ours.")
    status = loops.status("pilot")
    assert status["state"] == "revoked"
    assert "site-2 revoked its approval: “So was ours.”" in status["reason"]
    assert "bring the missing" not in status["reason"]
    loops.carry()
    assert loops.state(0, proposal) == "ended"
    assert [rounds for rounds, _ in loops.returned(1)] in ([[2, 3]], [[3]])  # round 2 may have been charged by then
    assert all(3 in rounds for rounds, _ in loops.returned(0))
    with pytest.raises(Refused, match="cannot go on"):
        loops.client.post_json("/studies/pilot/resume", {})


def test_a_scientist_withdraws_pauses_resumes_drops_and_cancels(loops: Loops, scientist: Any) -> None:
    first = loops.request("first")
    with pytest.raises(Refused, match="--replaces"):
        words.say(scientist, "first", "dropped", "It is too slow.", to="site-0")
    words.say(scientist, "first", "withdrawn", "We found a mistake.")
    loops.carry()
    assert [loops.state(i, first) for i in range(SITES)] == ["ended"] * SITES
    assert loops.status("first")["state"] == "withdrawn"
    with pytest.raises(Refused, match="withdrawn already"):
        words.say(scientist, "first", "cancelled", "Once more.")
    second = loops.request("second", rounds=40)
    for index in range(SITES):
        loops.decide(index, second, "approve")
    loops.play("second", until=lambda status: status["rounds_completed"] >= 1)
    words.say(scientist, "second", "paused", "A look at the first round.")
    status = loops.status("second")
    assert (status["state"], "A look at the first round." in status["reason"]) == ("paused", True)
    assert words.resume(scientist, "second")["state"] in ("waiting", "running")
    words.say(scientist, "second", "dropped", "It is too slow.", to="site-0")
    before = loops.status("second")["rounds_completed"]
    loops.play("second", *loops.names[1:], "keyholder", until=lambda s: s["rounds_completed"] >= before + 2)
    with pytest.raises(Refused, match="fewer than 3"):
        words.say(scientist, "second", "dropped", "So is this one.", to="site-1")
    with pytest.raises(Refused, match="rounds of this study have run"):
        words.say(scientist, "second", "withdrawn", "Never mind.")
    words.say(scientist, "second", "cancelled", "We have enough.")
    assert loops.status("second")["state"] == "cancelled"
    loops.carry()
    assert loops.kinds(3, second) == ["approved", "paused", "resumed", "dropped", "cancelled", "returned"]
    assert loops.state(3, second) == "ended"


def test_words_outlive_restarts_on_both_sides_and_are_sent_once(loops: Loops) -> None:
    proposal = loops.request("pilot")
    hospital, (person, _) = loops.hospitals[0], loops.steward(0)
    hospital.approvals.deny(proposal.proposal_hash, reviewer=person, reason="Not with us.", now=dt.datetime.now(dt.UTC))
    loops.close_orchestrator()
    with pytest.raises(TesseraError):
        loops.carry(0)
    hospital.close()
    loops.open_orchestrator()
    loops.open_hospital(0)
    loops.carry(0)
    loops.carry(0)
    loops.close_orchestrator()
    loops.open_orchestrator()
    assert [w["payload"]["kind"] for w in loops.status("pilot")["words"]] == ["denied", "ended"]
    assert loops.status("pilot")["state"] == "denied"


def _forged(loops: Loops, proposal: Proposal, signer: str, **changes: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "study": proposal.study,
        "proposal_hash": proposal.proposal_hash,
        "author": "site-0",
        "number": 1,
        "kind": "denied",
        "person": "anna",
        "text": "No.",
        "at": "2026-03-01T12:00:00+00:00",
    }
    return dump(seal(loops.homes[signer].identity(), WORD, Word(**(fields | changes))))


@pytest.mark.parametrize(
    ("signer", "changes"),
    [
        ("site-1", {}),  # another hospital's name
        ("site-1", {"author": "site-1", "kind": "cancelled"}),  # what only the scientist may say
        ("site-1", {"author": "site-1", "proposal_hash": "0" * 64}),
        ("site-1", {"author": "site-1", "number": 0}),
        ("site-1", {"author": "site-1", "text": "a\u202eb c"}),
        ("site-1", {"author": "site-1", "text": ""}),
        ("site-1", {"author": "site-1", "to": "site-2"}),
        ("site-1", {"author": "nobody"}),
    ],
)
def test_a_word_that_is_not_its_authors_is_refused(loops: Loops, signer: str, changes: dict[str, Any]) -> None:
    proposal = loops.request("pilot")
    client = loops.signed(signer)
    with pytest.raises((InvalidInput, Refused)):
        client.post_json("/studies/pilot/words", _forged(loops, proposal, signer, **changes))
    assert loops.status("pilot")["words"] == []
    assert loops.status("pilot")["state"] == "waiting"


def test_a_hospital_believes_no_word_that_its_orchestrator_made_up(
    loops: Loops, monkeypatch: pytest.MonkeyPatch
) -> None:
    proposal = loops.request("pilot")
    lie = _forged(loops, proposal, "orchestrator")  # a denial by site-0 that site-0 never signed
    hospital = loops.hospitals[1]

    def answer(path: str, **_: Any) -> Any:
        if path == "/words":
            return {"pilot": {"proposal_hash": proposal.proposal_hash, "last": 1}}
        return [{"place": 1, "word": lie}]

    monkeypatch.setattr(hospital.client, "get_json", answer)
    thread = Thread(client=hospital.client, approvals=hospital.approvals, journal=hospital.participant.journal)
    thread.look()
    thread.look()
    assert loops.state(1, proposal) == "pending"
    assert [e.kind for e in hospital.participant.journal.entries(kind="word-refused")] == ["word-refused"]


def test_an_expired_request_ends(loops: Loops, monkeypatch: pytest.MonkeyPatch) -> None:
    past = (dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)).isoformat()
    proposal = loops.proposal("pilot", length=LENGTH, expires=past)
    loops.register(proposal, zeros_of(proposal))
    status = loops.play("pilot", "site-0")
    assert status["state"] == "expired"
    assert [w["payload"]["kind"] for w in status["words"]] == ["ended"]


def test_models_are_deleted_when_their_retention_is_over_and_the_proof_is_signed(loops: Loops) -> None:
    custody = replace(loops.proposal("x", length=LENGTH).custody, retention_days=30)
    first = loops.request("first", custody=custody, rounds=2)
    second = loops.request("second", rounds=1)
    for proposal in (first, second):
        for index in range(SITES):
            loops.decide(index, proposal, "approve")
        assert loops.play(proposal.study)["state"] == "finished"
    service, status = loops.service, loops.status("first")
    now = dt.datetime.now(dt.UTC)
    assert enforce(service, now + dt.timedelta(days=29)) == ()
    (deletion,) = enforce(service, now + dt.timedelta(days=31))
    assert enforce(service, now + dt.timedelta(days=32)) == ()
    assert status["checkpoints"][-1]["model_hash"] in deletion.deleted
    assert status["initial"]["model_hash"] in deletion.kept  # the other study begins with the same zeros
    for digest in deletion.deleted:
        with pytest.raises(InvalidInput, match="no such blob"):
            loops.client.get_bytes(f"/blobs/{digest}")
    last = loops.status("second")["checkpoints"][-1]["model_hash"]
    assert loops.client.get_bytes(f"/blobs/{last}")
    hospital = loops.hospitals[0]
    part, forgotten = hospital.participant, []
    Thread(
        client=hospital.client,
        approvals=part.approvals,
        journal=part.journal,
        forget=lambda p: forgotten.append(p.study),
    ).look()
    word = hospital.approvals.request(first.proposal_hash).words[-1]
    assert (word.kind, deletion.list_hash in word.text) == ("deleted", True)
    assert forgotten == ["first"]
    part.models.forget(first)
    folder = hospital.home.round_folder("first", 0).parent
    assert list(folder.glob("chain-*")) == list(folder.glob("initial-*")) == []


def zeros_of(proposal: Proposal) -> bytes:
    from harness.consortium import zeros

    return zeros(proposal)
