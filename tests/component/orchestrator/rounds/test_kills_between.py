"""An orchestrator killed between store and journal, or before it told the end, makes up for it at the next start."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.played import Played

from orchestrator.rounds.restarting.unwritten import write_down
from orchestrator.rounds.service import TOLD
from orchestrator.rounds.thread import words

LENGTH, ROUNDS = 30, 3
IN_ROUNDS = ("round-planned", "round-closed", "round-finished")


@pytest.fixture
def played(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Played]:
    with Played(tmp_path, sites=3, helpers=2 if "told" in request.node.name else 0) as made:
        made.open()
        yield made


def kill_before(played: Played, kind: str, *, number: int = 0) -> list[str]:
    """Let the study's task end where it would write this entry; return a list that names it once it has."""
    journal, reached = played.service.journal, list[str]()
    append = journal.append

    def killed(written: str, body: Any) -> Any:
        if written == kind and not reached and body.get("round", number) == number:
            reached.append(written)
            raise asyncio.CancelledError
        return append(written, body)

    journal.append = killed  # type: ignore[method-assign]
    return reached


def start_again(played: Played) -> None:
    played.close_orchestrator()
    played.open_orchestrator()


def journaled(played: Played, kind: str) -> list[int]:
    entries = [entry for entry in played.service.journal.entries(kind=kind) if entry.body["study"] == "pilot"]
    return [int(entry.body.get("round", 0)) for entry in entries]


def said(played: Played) -> list[str]:
    own = played.roster.orchestrator.name
    return [word.kind for _, word in words(played.service.store, "pilot") if word.author == own]


def of_party(played: Played, name: str, kind: str) -> int:
    if name in played.names:
        journal = played.hospitals[played.names.index(name)].participant.journal
    else:
        journal = played.keyholder.served.journal if name == "keyholder" else played.helping[name].journal
    return sum(entry.body.get("study") == "pilot" for entry in journal.entries(kind=kind))


@pytest.mark.parametrize("kind", IN_ROUNDS)
def test_every_entry_of_a_round_is_in_the_journal_once(played: Played, kind: str) -> None:
    reached = kill_before(played, kind, number=2)
    played.propose("pilot", length=LENGTH, rounds=ROUNDS)
    played.play("pilot", until=lambda _: bool(reached))
    assert journaled(played, kind) == [1]
    start_again(played)
    assert played.play("pilot")["state"] == "finished"
    assert all(journaled(played, each) == [1, 2, 3] for each in IN_ROUNDS)
    assert write_down(played.service.store, played.service.journal) == ()


def test_the_end_of_a_study_is_told_and_journaled_also_after_a_kill(played: Played) -> None:
    reached = kill_before(played, "study-finished")
    played.propose("pilot", length=LENGTH, rounds=ROUNDS)
    played.play("pilot", until=lambda _: bool(reached))
    assert played.service.store.study("pilot")[1] == "finished" and said(played) == []
    start_again(played)
    everybody = {*played.names, *played.helpers, "keyholder"}
    played.play("pilot", until=lambda _: played.service.store.documents("pilot", 0, TOLD).keys() == everybody)
    assert journaled(played, "study-finished") == [0]
    assert said(played) == ["finished"]
    for _ in range(2):  # who has done its part is not asked again
        assert {name: of_party(played, name, "models-followed") for name in played.names} == dict.fromkeys(
            played.names, 1
        )
        assert of_party(played, "keyholder", "study-over") == 1
        start_again(played)
        for name in everybody:
            assert not played.signed(name).get_json("/work", params={"wait_seconds": "0"})


def test_a_registration_and_a_word_that_a_kill_kept_out_are_written_down(played: Played) -> None:
    journal = played.service.journal
    journal.append, append = lambda *_: None, journal.append  # type: ignore[method-assign, assignment, return-value]
    played.propose("pilot", length=LENGTH, rounds=ROUNDS)
    played.service.threads.tell("pilot", "answered", "It will take a week.")
    journal.append = append  # type: ignore[method-assign]
    start_again(played)
    assert played.play("pilot")["state"] == "finished"
    assert journaled(played, "study-registered") == [0]
    places = [entry.body["place"] for entry in played.service.journal.entries(kind="word")]
    assert places == [place for place, _ in words(played.service.store, "pilot")] == [1, 2]
