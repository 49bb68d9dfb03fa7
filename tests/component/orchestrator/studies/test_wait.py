"""``tessera study wait`` ends with exit code 4 for every way in which a study cannot start or go on, and says why."""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.loops import LENGTH, SITES, Loops

from datasites.hospital.proposals import decline
from datasites.study.proposal import Proposal
from datasites.study.signing import dump, seal
from datasites.syft.runner import PROPOSAL_FILE
from orchestrator.cli import main
from orchestrator.dashboard.facts import traces
from orchestrator.studies import run, status, words
from privacy.canonical import plain_json

SOON = dt.timedelta(seconds=2)


@pytest.fixture
def loops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loops]:
    with Loops(tmp_path, sites=SITES) as made:
        made.open()
        for module in (words, run, status):
            monkeypatch.setattr(module, "client_of", lambda *_, **__: made.signed("orchestrator"))
        yield made


@pytest.fixture
def tessera(loops: Loops, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    home = str(loops.homes["orchestrator"].folder)

    def call(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["tessera", *arguments, "--home", home])
        with pytest.raises(SystemExit) as ended:
            main.main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), " ".join(f"{out} {err}".split())

    return call


def approved(loops: Loops, **settings: Any) -> Proposal:
    proposal = loops.request("pilot", **settings)
    for index in range(SITES):
        loops.decide(index, proposal, "approve")
    return proposal


def denied(loops: Loops) -> None:
    loops.decide(1, loops.request("pilot"), "deny", "Not with our patients.")


def revoked_before_it_started(loops: Loops) -> None:
    proposal = loops.request("pilot")
    loops.decide(1, proposal, "approve")
    loops.decide(1, proposal, "revoke", "Not with our patients.")


def revoked_by_too_many(loops: Loops) -> None:
    proposal = approved(loops, rounds=40)
    loops.play("pilot", until=lambda s: s["rounds_completed"] >= 1)
    for index in (1, 2):
        loops.decide(index, proposal, "revoke", "Not with our patients.")


def withdrawn(loops: Loops) -> None:
    loops.request("pilot")
    words.say(loops.homes["orchestrator"], "pilot", "withdrawn", "Not with our patients.")


def cancelled(loops: Loops) -> None:
    approved(loops, rounds=40)
    loops.play("pilot", until=lambda s: s["rounds_completed"] >= 1)
    words.say(loops.homes["orchestrator"], "pilot", "cancelled", "Not with our patients.")


def expired(loops: Loops) -> None:
    loops.request("pilot", expires=(dt.datetime.now(dt.UTC) + SOON).isoformat())
    loops.play("pilot", "site-0", until=lambda s: s["state"] == "expired")


def expired_between_rounds(loops: Loops) -> None:
    approved(loops, rounds=200, expires=(dt.datetime.now(dt.UTC) + 3 * SOON).isoformat())
    loops.play("pilot", until=lambda s: s["state"] not in ("waiting", "running"))
    assert loops.status("pilot")["rounds_completed"] < 200


def expired_while_paused(loops: Loops) -> None:
    approved(loops, rounds=40)
    loops.play("pilot", until=lambda s: s["rounds_completed"] >= 1)
    words.say(loops.homes["orchestrator"], "pilot", "paused", "Not with our patients.")
    later = dt.datetime.now(dt.UTC) + dt.timedelta(days=2)
    assert loops.wire.app is not None and loops.wire.app.portal is not None
    loops.wire.app.portal.call(loops.service.threads.expire, later)


def refused_on_arrival(loops: Loops) -> None:
    proposal = loops.propose("pilot", approve=False, length=LENGTH)
    hospital = loops.hospitals[1]
    job = hospital.home.folder / "job"
    job.mkdir()
    (job / PROPOSAL_FILE).write_bytes(plain_json(dump(seal(loops.identity, "proposal", proposal))))
    for _ in range(2):
        decline(hospital.approvals, job, hospital.home, "the code differs: plan.py")
    loops.carry(1)


@pytest.mark.parametrize(
    ("ending", "state", "said"),
    [
        (denied, "denied", "site-1 denied: “Not with our patients.”"),
        (revoked_before_it_started, "revoked", "site-1 revoked its approval: “Not with our patients.”"),
        (revoked_by_too_many, "revoked", "site-2 revoked its approval: “Not with our patients.”"),
        (withdrawn, "withdrawn", "Not with our patients."),
        (cancelled, "cancelled", "Not with our patients."),
        (expired, "expired", "before all had approved it"),
        (expired_between_rounds, "expired", "the proposal expired at"),
        (expired_while_paused, "expired", "while it was paused: paused by orchestrator: Not with our patients."),
        (refused_on_arrival, "denied", "site-1 denied: “It could not be taken for review: the code differs: plan.py”"),
    ],
    ids=lambda value: value.__name__ if callable(value) else None,
)
def test_every_end_has_exit_code_4_its_words_and_an_event(
    loops: Loops, tessera: Any, ending: Callable[[Loops], None], state: str, said: str
) -> None:
    ending(loops)
    code, told = tessera("study", "wait", "pilot", "--timeout", "5")
    assert (code, loops.status("pilot")["state"]) == (4, state), loops.status("pilot")["reason"]
    assert f"pilot is {state} and will not go on" in told
    assert said in told
    code, told = tessera("status", "--once")
    assert code == 0
    assert said in told
    assert [e.body["state"] for e in loops.service.journal.entries(kind="study-ended")] == [state]
    kinds = {word["payload"]["kind"] for word in loops.status("pilot")["words"]}
    assert kinds & {"ended", "withdrawn", "cancelled"}
    assert tessera("study", "resume", "pilot")[0] == 3


def test_what_is_not_over_has_other_codes(loops: Loops, tessera: Any) -> None:
    approved(loops, rounds=40)
    code, told = tessera("study", "wait", "pilot", "--timeout", "1")
    assert (code, "is still" in told) == (1, True)
    words.say(loops.homes["orchestrator"], "pilot", "paused", "A look at it.")
    code, told = tessera("study", "wait", "pilot")
    assert (code, "paused by orchestrator: A look at it." in told) == (1, True)
    assert tessera("study", "wait", "nothing")[0] == 2
    assert tessera("study", "wait", "pilot", "--timeout", "0")[0] == 2


def test_a_word_changes_what_the_dashboard_listens_to(loops: Loops) -> None:
    proposal = loops.request("pilot")
    before = traces(loops.service.store)
    loops.decide(2, proposal, "ask", "Which tumours are meant?")
    assert traces(loops.service.store) != before
