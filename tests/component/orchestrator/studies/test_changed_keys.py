"""Running studies when a party's key has become another one: who is left goes on, or the study ends with the reason."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.loops import SITES, Loops

from datasites.node.joining.rotating import with_key
from datasites.study.proposal import Proposal
from orchestrator.rounds.changed_keys import settle
from privacy.identity import Identity


@pytest.fixture
def loops(tmp_path: Path) -> Iterator[Loops]:
    with Loops(tmp_path, sites=SITES) as made:
        made.open()
        yield made


def approved(loops: Loops) -> Proposal:
    proposal = loops.request("pilot")
    for site in range(SITES):
        loops.decide(site, proposal, "approve")
    return proposal


def changes(loops: Loops, *names: str) -> None:
    roster = loops.service.roster
    for name in names:
        roster = with_key(roster, roster.by_name(name).public_key, Identity.generate().public_key)
    loops.service.roster = roster
    assert loops.wire.app is not None and loops.wire.app.portal is not None
    for _ in range(2):  # at the change, and again at a start
        loops.wire.app.portal.call(settle, loops.service)


def test_a_hospital_with_a_new_key_is_dropped_and_the_others_train(loops: Loops) -> None:
    approved(loops)
    loops.play("pilot", until=lambda status: status["state"] == "running")
    changes(loops, "site-3")
    assert loops.play("pilot")["state"] == "finished"
    (word,) = [line for line in loops.status("pilot")["words"] if "another key" in line["payload"]["text"]]
    assert (word["payload"]["kind"], word["payload"]["to"]) == ("dropped", "site-3")


def test_too_few_are_left_and_the_study_ends(loops: Loops) -> None:
    approved(loops)
    loops.play("pilot", until=lambda status: status["state"] == "running")
    changes(loops, "site-2", "site-3")
    status = loops.status("pilot")
    assert status["state"] in ("withdrawn", "cancelled") and "another key" in status["reason"]


@pytest.mark.parametrize("who", ["keyholder", "orchestrator"])
def test_no_study_goes_on_under_another_key_of_the_middle(loops: Loops, who: str) -> None:
    proposal = approved(loops)
    if who == "orchestrator":
        loops.service.identity = Identity.generate()
    changes(loops, who)
    status = loops.status("pilot") if who == "keyholder" else dict(zip(("state", "reason"), _kept(loops), strict=True))
    assert status["state"] in ("withdrawn", "cancelled") and f"{who} has another key" in status["reason"]
    if who == "keyholder":
        loops.carry()
        assert [loops.state(site, proposal) for site in range(SITES)] == ["ended"] * SITES


def _kept(loops: Loops) -> tuple[str, str]:
    _, state, reason = loops.service.store.study("pilot")
    return state, reason


def test_a_new_scientist_or_hospital_changes_nothing(loops: Loops) -> None:
    approved(loops)
    roster = loops.service.roster
    party = replace(roster.sites[0], name="site-9", public_key=Identity.generate().public_key)
    loops.service.roster = replace(roster, scientists=(party,))
    changes(loops)
    assert loops.status("pilot")["state"] in ("waiting", "running", "finished")
