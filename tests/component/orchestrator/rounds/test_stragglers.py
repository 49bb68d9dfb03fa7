"""Rounds that do not wait for everybody: a grace after enough came, hospitals passed over, and late joiners."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.charges import is_charged
from support.played import Played

from datasites.study.patience import Patience, passed_over
from datasites.study.signing import seal
from privacy.errors import InvalidInput

LENGTH = 40
HERE = ("site-0", "site-1", "site-2", "keyholder")


@pytest.fixture
def played(tmp_path: Path) -> Iterator[Played]:
    with Played(tmp_path, sites=4) as made:
        made.open()
        yield made


def waits_for(text: str) -> Callable[[dict[str, Any]], bool]:
    return lambda status: status["waiting"].endswith(text)


def sites(status: dict[str, Any]) -> list[int]:
    return [len(checkpoint["sites"]) for checkpoint in status["checkpoints"]]


def test_a_round_closes_when_the_grace_after_enough_sites_is_over(
    played: Played, let_pass: Callable[[float], None]
) -> None:
    played.propose("grace", length=LENGTH, deadline_seconds=3600, patience=Patience(grace_seconds=20))
    played.play("grace", "site-0", "site-1", "keyholder", until=waits_for("updates of site-2, site-3"))
    let_pass(1000)  # two are too few: the grace has not begun
    played.play("grace", *HERE, until=waits_for("updates of site-3"))
    let_pass(20)
    status = played.play("grace", *HERE)
    assert status["state"] == "finished" and sites(status) == [3]


def test_a_site_that_stays_away_is_passed_over_uncharged_until_it_asks_for_work(
    played: Played, let_pass: Callable[[float], None]
) -> None:
    patience = Patience(grace_seconds=20, pass_over_after=2)
    proposal = played.propose("away", length=LENGTH, rounds=6, deadline_seconds=3600, patience=patience)
    for number in (1, 2):
        played.play("away", *HERE, until=waits_for(f"round {number}: updates of site-3"))
        let_pass(20)
    past = played.play("away", *HERE, until=lambda s: s["rounds_completed"] >= 3)["checkpoints"]
    assert [c.get("passed_over", []) for c in past[:3]] == [[], [], ["site-3"]]
    played.step("site-3")
    status = played.play("away", "site-3", *HERE)
    assert status["state"] == "finished" and status["checkpoints"][-1]["sites"] == played.names
    ledger = played.hospitals[3].participant.ledger
    charged = [number for number in range(1, 7) if is_charged(ledger, proposal.proposal_hash, number)]
    assert charged == [c + 1 for c, done in enumerate(status["checkpoints"]) if "site-3" in done["sites"]]


def test_a_late_hospital_joins_with_its_approval_and_is_charged_from_there(played: Played) -> None:
    patience = Patience(starts_with=3)
    proposal = played.propose("late", approve=False, length=LENGTH, rounds=4, patience=patience)
    signed = seal(played.identity, "proposal", proposal)
    for hospital in played.hospitals[:2]:
        hospital.approve(signed)
    played.play("late", *HERE, until=lambda s: "approval by site-2, site-3" in s["waiting"])
    played.hospitals[2].approve(signed)
    played.play("late", "site-3", *HERE, until=lambda s: s["rounds_completed"] >= 1)
    played.hospitals[3].approve(signed)
    status = played.play("late", "site-3", *HERE)
    assert status["state"] == "finished", status["reason"]
    first = next(n for n, c in enumerate(status["checkpoints"], 1) if "site-3" in c["sites"])
    assert 2 <= first <= 3 and sites(status) == [3] * (first - 1) + [4] * (5 - first)
    assert status["checkpoints"][0]["not_joined"] == ["site-3"]
    ledger = played.hospitals[3].participant.ledger
    assert [is_charged(ledger, proposal.proposal_hash, n) for n in range(1, 5)] == [n >= first for n in range(1, 5)]


@pytest.mark.parametrize(
    ("past", "passed"),
    [
        ([], False),
        ([{"sites": ["a"]}, {"sites": []}], False),
        ([{"sites": ["a"]}, {"sites": []}, {"sites": []}], True),
        ([{"sites": []}, {"sites": []}, {"sites": ["a"]}], False),
        ([{"sites": []}, {"sites": [], "lost": "by the keyholder"}], False),
        ([{"sites": []}, {"sites": [], "not_joined": ["a"]}], False),
        ([{"sites": []}, {"sites": [], "passed_over": ["a"]}], True),
        ([{"sites": [], "passed_over": ["a"]}, {"sites": []}], True),
        ([{"sites": [], "passed_over": ["a"]}, {"sites": ["a"]}], False),
    ],
    ids=["new", "once", "twice", "came", "lost", "not-joined", "still", "asked-and-missed", "back"],
)
def test_who_missed_two_rounds_in_a_row_is_passed_over(past: list[dict[str, Any]], passed: bool) -> None:
    assert passed_over(past, frozenset("a"), 2) == (frozenset("a") if passed else frozenset())
    assert not passed_over(past, frozenset("a"), 0)


@pytest.mark.parametrize(
    "wrong",
    [{"grace_seconds": -1}, {"grace_seconds": 10**9}, {"pass_over_after": -1}, {"starts_with": -1}],
    ids=["grace", "long-grace", "missed", "begin"],
)
def test_patience_has_bounds(wrong: dict[str, int]) -> None:
    with pytest.raises(InvalidInput, match="expected"):
        Patience(**wrong)
    for begin in (2, 5):
        with pytest.raises(InvalidInput, match="begin with 3 to 4 hospitals"):
            Patience(starts_with=begin).check(min_sites=3, participants=4)
