"""Two lists of one round without helpers, shown to a keyholder that was restored from a backup in between.

Played: an orchestrator that has a list redone and keeps back signatures and voids, and a keyholder whose record lies on
disk as it was before its answer, once or twice. Of two lists that hold the same honest hospital at most one is ever
answered (docs/decisions/0019-one-list-without-helpers.md).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness.consortium import steps_of
from support.liar import LENGTH, Stage

from datasites.keyholder.custody import KeyCustody
from datasites.study.messages import Refusal
from datasites.study.signing import Signed, parse, seal

ALL, FEWER = (0, 1, 2, 3), (1, 2, 3)
List = tuple[Signed, list[Signed]]


class Restored:
    """A round whose keyholder can be started anew, from its newest record or from an older copy."""

    def __init__(self, stage: Stage, folder: Path) -> None:
        self.stage, self.folder = stage, folder
        stage.train_all()
        shutil.copytree(folder / "keys", folder / "backup")

    def restart(self, *, restored: bool = False) -> None:
        keys = self.folder / "keys"
        self.stage.keyholder.custody.close()
        if restored:
            shutil.rmtree(keys)
            shutil.copytree(self.folder / "backup", keys)
        custody = KeyCustody(keys, self.stage.keyholder.home.identity())
        self.stage.keyholder = replace(self.stage.keyholder, custody=custody)

    def listed(self, *sites: int, **named: Any) -> List:
        names = [f"site-{i}" for i in sites]
        body = self.stage.sum_of([self.stage.bodies[name] for name in names])
        updates = [self.stage.updates[name] for name in names]
        return self.stage.close(body=body, updates=updates, attest=sites, **named)

    def signed_again(self, closed: List, *sites: int, documents: Mapping[str, Signed]) -> List:
        """Ask hospitals to sign a list for good; return it under what they signed."""
        before = len(self.stage.liar.sent["attestation"])
        for index in sites:
            item = self.stage.item("confirm", {"commitments": closed[0], **documents})
            self.stage.consortium.hospitals[index].participant.handle(item)
        return closed[0], self.stage.liar.sent["attestation"][before:]

    def void(self, closed: List) -> dict[str, Signed]:
        before = len(self.stage.liar.sent["void"])
        self.stage.keyholder.handle(self.stage.item("void", {"commitments": closed[0]}))
        sent = self.stage.liar.sent["void"][before:]
        return {"void/1/keyholder": sent[0]} if sent else {}

    def read(self, closed: List) -> np.ndarray | None:
        return self.stage.decrypt(*closed)

    def wish(self, closed: List) -> dict[str, Signed]:
        """Show a list to the keyholder, who wants it signed once more; return its wish."""
        assert self.read(closed) is None
        signed = self.stage.liar.sent["refusal"][-1]
        assert parse(Refusal, dict(signed.payload)).fresh
        return {"refusal": signed}

    def said(self, party: str) -> str:
        return self.stage.liar.reasons(party)[-1]


@pytest.fixture
def play(stage: Stage, tmp_path: Path) -> Iterator[Restored]:
    played = Restored(stage, tmp_path)
    yield played
    stage.keyholder.custody.close()


def is_total(found: np.ndarray | None, *sites: int) -> bool:
    return found is not None and found.tolist() == [int(v) for v in sum(steps_of(i, "shared", LENGTH) for i in sites)]


def test_a_keyholder_that_answered_a_redone_list_and_is_restored_answers_the_first_one_no_more(play: Restored) -> None:
    first = play.listed(*ALL)  # all sign; the orchestrator says that hospital 0 vanished
    second = play.listed(*FEWER, closing=2, documents=play.void(first))
    assert all(len(signed.payload["earlier"]) == 1 for signed in second[1])
    assert is_total(play.read(second), *FEWER)
    play.restart(restored=True)
    again = play.signed_again(first, *ALL, documents=play.wish(first))
    assert [signed.payload["site"] for signed in again[1]] == ["site-0"]  # the others signed the second list
    assert "only the newest list" in play.said("site-1")
    for signatures in (first[1], again[1], [again[1][0], *first[1][1:]]):
        assert play.read((first[0], signatures)) is None


def test_no_hospital_signs_a_second_list_without_the_keyholders_void_of_the_first(play: Restored) -> None:
    first = play.listed(*ALL)
    assert play.listed(*FEWER, closing=2)[1] == []
    assert "expected keyholder to declare it void" in play.said("site-1")
    assert is_total(play.read(first), *ALL)
    assert play.void(first) == {}
    assert "was answered; it cannot be void" in play.said("keyholder")


def test_a_void_list_is_answered_no_more(play: Restored) -> None:
    first = play.listed(*ALL)
    assert len(play.void(first)) == 1
    assert play.read(first) is None
    assert "declared void" in play.said("keyholder")


def test_a_keyholder_that_was_started_anew_declares_nothing_void(play: Restored) -> None:
    first = play.listed(*ALL)
    play.restart()
    assert play.void(first) == {}
    assert "started anew" in play.said("keyholder")


def test_a_void_that_was_kept_back_moves_nobody_who_signed_the_first_list_for_good(play: Restored) -> None:
    """The keyholder is restored before the first list is answered, and again before the second one is shown."""
    first = play.listed(*ALL)
    void = play.void(first)
    play.restart(restored=True)
    again = play.signed_again(first, *ALL, documents=play.wish(first))
    assert is_total(play.read(again), *ALL)
    assert play.listed(*FEWER, closing=2, documents=void)[1] == []
    assert "signed here for good" in play.said("site-1")


def test_a_keyholder_that_got_the_second_list_signed_for_good_never_gets_the_first(play: Restored) -> None:
    first = play.listed(*ALL)
    second = play.listed(*FEWER, closing=2, documents=play.void(first))
    play.restart(restored=True)
    assert is_total(play.read(play.signed_again(second, *FEWER, documents=play.wish(second))), *FEWER)
    play.restart(restored=True)
    assert len(play.signed_again(first, *ALL, documents=play.wish(first))[1]) == 1


def test_the_void_of_a_keyholder_that_forgot_the_key_and_made_another_moves_nobody(play: Restored) -> None:
    """It is restored from a backup of before the round: it makes another key, and knows of no answer with the first."""
    first = play.listed(*ALL)
    assert is_total(play.read(first), *ALL)
    play.stage.keyholder.custody.close()
    shutil.rmtree(play.folder / "keys")
    play.restart()
    play.stage.keyholder.handle(play.stage.item("key"))
    void = play.void(first)
    assert void
    assert play.listed(*FEWER, closing=2, documents=void)[1] == []
    assert "expected keyholder to declare it void" in play.said("site-1")


def test_a_hospital_that_was_started_anew_signs_a_first_list_and_no_second(play: Restored) -> None:
    hospital = play.stage.consortium.hospitals[1]
    play.stage.consortium.hospitals[1] = replace(hospital, participant=replace(hospital.participant, sent_now={}))
    first = play.listed(*ALL)
    assert len(first[1]) == len(ALL)
    assert len(play.listed(*FEWER, closing=2, documents=play.void(first))[1]) == len(FEWER) - 1
    assert "started anew since it sent its update" in play.said("site-1")


def test_the_older_list_is_not_the_newest_because_it_is_signed_again(play: Restored) -> None:
    first = play.listed(*ALL)
    play.listed(*FEWER, closing=2, documents=play.void(first))
    play.stage.consortium.hospitals[1].participant.handle(play.stage.item("attest", {"commitments": first[0]}))
    play.restart(restored=True)
    assert play.signed_again(first, 1, documents=play.wish(first))[1] == []


def test_the_word_of_another_start_round_or_party_counts_for_nothing(play: Restored) -> None:
    first = play.listed(*ALL)
    play.restart()
    wish = play.wish(first)
    again = play.signed_again(first, *ALL, documents=wish)
    play.restart()
    assert play.read(again) is None  # it draws another word at every start
    asked = parse(Refusal, dict(wish["refusal"].payload))
    keyholder = play.stage.keyholder.home.identity()
    false = [seal(play.stage.liar.identity, "refusal", asked)]
    false += [seal(keyholder, "refusal", replace(asked, **changes)) for changes in ({"round": 2}, {"fresh": ""})]  # type: ignore[arg-type]
    for signed in false:
        assert play.signed_again(first, 1, documents={"refusal": signed})[1] == []


def test_a_keyholder_that_was_only_killed_answers_the_list_once_it_is_signed_for_good(play: Restored) -> None:
    first = play.listed(*ALL)
    play.restart()
    again = play.signed_again(first, *ALL, documents=play.wish(first))
    assert is_total(play.read(again), *ALL)
    assert is_total(play.read(first), *ALL)  # the same answer once more, from the record
