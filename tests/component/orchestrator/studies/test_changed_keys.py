"""Running studies when a party's key has become another one: who is left goes on, or the study ends with the reason."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.loops import SITES, Loops

from datasites.node.joining.documents import read_signed
from datasites.node.joining.rotating import rotate, with_key
from datasites.node.rollback import Standing
from datasites.study.proposal import Proposal
from orchestrator.rounds.changed_keys import settle
from privacy.identity import Identity
from privacy.ledger.verification import verify_folder


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


def test_whoever_has_a_new_key_trains_the_next_study_and_its_records_hold(loops: Loops) -> None:
    """Keyholder, a hospital and the orchestrator itself: each closes, rotates, and opens from what lies on disk."""
    first = approved(loops)
    assert loops.play("pilot")["state"] == "finished"
    for name in ("keyholder", "orchestrator", "site-1"):
        loops.close()
        home, everybody = loops.homes[name], loops.homes.values()
        old = home.identity().public_key
        rotate(home, now=dt.datetime(2026, 3, 1, tzinfo=dt.UTC))
        handed = read_signed(home.folder / "handover.json")
        (home.folder / "handover.json").unlink()
        loops.roster = with_key(loops.roster, old, home.identity().public_key)
        for one in everybody:
            loops.roster.save(one.folder / "roster.json")
            one.keep_handovers([*one.handovers(), handed])
        loops.open()
        study = f"after-{name}"
        proposal = loops.request(study)
        for site in range(SITES):
            loops.decide(site, proposal, "approve")
        status = loops.play(study)
        assert status["state"] == "finished", status["reason"]
        assert all(len(checkpoint["sites"]) == SITES for checkpoint in status["checkpoints"])
        found = verify_folder(home.folder, public_key=home.identity().public_key)
        assert found.holds, found.findings
        assert loops.status("pilot")["state"] == "finished"
    site = loops.hospitals[1].participant
    standing = Standing(home=loops.homes["site-1"], client=site.client, ledger=site.ledger, journal=site.journal)
    assert standing.holds() and loops.keyholder is not None and loops.keyholder.standing.holds()
    assert loops.service.standing.look()
    charged = [(e.body["proposal_hash"], e.body["round"]) for e in site.ledger.entries(kind="charge")]
    assert len(charged) == len(set(charged)) >= 4 and (first.proposal_hash, 1) in charged
