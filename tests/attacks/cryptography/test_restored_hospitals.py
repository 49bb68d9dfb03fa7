"""A hospital that was restored to before its upload sends a second update of the round, to stand in two readable sums.

Played: an orchestrator that lies together with the keyholder, shows each update to one helper and calls the other one
gone; one that lies together with a helper before a restored keyholder; false, stolen and early clearances; parties that
are made to forget what they opened; a restored hospital that is asked to sign an old list for good. A hospital that was
started anew sends nothing before keyholder and both helpers have said that they open no earlier update of it.
"""

from __future__ import annotations

import datetime as dt
import shutil
from collections.abc import Callable
from dataclasses import replace

import pytest
from harness.consortium import Hospital
from support.helped import H, HelpedStage, J

from datasites.hospital.rounds.beginnings import Beginning
from datasites.study.messages import Arrival, Clearance, Refusal, UpdateHeader
from datasites.study.signing import Signed, parse, seal

ALL = (0, 1, 2, 3)
K = "keyholder"


def false_clearance(stage: HelpedStage, signer: str, **changes: object) -> Signed:
    """What a lying party says to a hospital that was started anew, whatever it opened."""
    arrival = parse(Arrival, dict(stage.liar.sent["arrival"][-1].payload))
    said = Clearance(study=arrival.study, site=arrival.site, begun=arrival.begun, party=signer, over=0, without=())
    return seal(stage.consortium.homes[signer].identity(), "clearance", replace(said, **changes))


def sends_nothing(stage: HelpedStage, said: dict[str, Signed | None]) -> str:
    """Show hospital 0, which was started anew, what is said; check that it sends nothing, and return why."""
    arrival = stage.arrive(0)
    documents = {f"clearance/{name}": signed for name, signed in said.items() if signed is not None}
    assert not stage.train(0, more={"arrival": arrival, **documents})
    return stage.refusal("site-0")


def test_a_hospital_that_was_only_killed_before_its_upload_is_cleared_and_takes_part(helped: HelpedStage) -> None:
    for index in (1, 2, 3):
        assert helped.train(index)
    helped.restart_hospital(0)
    assert helped.train_cleared(0)
    assert helped.read(helped.listed(*ALL)) is not None
    helped.restart_hospital(0)
    assert helped.liar.sent["arrival"][-1].payload["begun"] != helped.consortium.hospitals[0].participant.beginning.word


@pytest.mark.parametrize("shown", [H, J])
def test_no_update_is_shown_to_one_helper_and_a_second_one_to_the_other(helped: HelpedStage, shown: str) -> None:
    """Played: the attack that decision 22 left open, by orchestrator and keyholder."""
    hidden = J if shown == H else H
    helped.train_all()
    first = helped.listed(*ALL, committing=(K, shown))
    assert helped.ask_pads(shown, first) is not None  # the first sum can be read
    helped.forget_upload(0)
    arrival = helped.arrive(0)
    true = {hidden: helped.ask_clearance(hidden, arrival), K: false_clearance(helped, K)}
    assert f"{shown} did not say" in sends_nothing(helped, true)
    true[shown] = helped.ask_clearance(shown, arrival)
    assert f"{shown} cannot know" in sends_nothing(helped, true)


@pytest.mark.parametrize("asked", ["committed", "answered"])
def test_whoever_opened_an_update_clears_no_second_one(helped: HelpedStage, asked: str) -> None:
    helped.train_all()
    first = helped.listed(*ALL)
    if asked == "answered":
        assert helped.read(first) is not None
    helped.forget_upload(0)
    arrival = helped.arrive(0)
    for name in (K, H, J):
        said = helped.ask_clearance(name, arrival)
        assert said is not None and not parse(Clearance, dict(said.payload)).covers(1)
    assert not helped.train_cleared(0)


def test_false_stolen_and_old_clearances_move_no_hospital(helped: HelpedStage) -> None:
    helped.train_all()
    helped.listed(*ALL)
    helped.forget_upload(0)
    helped.arrive(0)
    lied = {K: false_clearance(helped, K), H: false_clearance(helped, H)}
    for changes in ({"study": "another"}, {"site": "site-1"}, {"begun": "0" * 32}):
        assert f"{J} did not say" in sends_nothing(helped, {**lied, J: false_clearance(helped, J, **changes)})
    for thief in (K, H, "orchestrator"):
        stolen = false_clearance(helped, thief if thief != "orchestrator" else K, party=J)
        if thief == "orchestrator":
            stolen = seal(helped.liar.identity, "clearance", parse(Clearance, dict(stolen.payload)))
        assert "another key" in sends_nothing(helped, {**lied, J: stolen})
    early = false_clearance(helped, J)
    helped.restart_hospital(0)  # once more: the words of the earlier start count no more
    helped.arrive(0)
    again = {K: false_clearance(helped, K), H: false_clearance(helped, H), J: early}
    assert f"{J} did not say" in sends_nothing(helped, again)


def test_an_orchestrator_speaks_for_no_hospital_that_was_started_anew(helped: HelpedStage) -> None:
    """Played: words of its own making, so that a helper opens no true update, or says what it knows to no hospital."""
    arrival = Arrival(study=helped.proposal.study, site="site-0", begun="ab" * 16)
    for identity, value in (
        (helped.liar.identity, arrival),
        (helped.consortium.homes["site-1"].identity(), arrival),
        (helped.consortium.homes["site-0"].identity(), replace(arrival, study="another")),
        (helped.consortium.homes["site-0"].identity(), replace(arrival, begun="short")),
    ):
        assert all(helped.ask_clearance(name, seal(identity, "arrival", value)) is None for name in (K, H, J))


def test_who_cleared_a_hospital_opens_its_earlier_update_no_more(helped: HelpedStage) -> None:
    """Played: the first update is kept back, and shown only after the second one was made."""
    helped.train_all()
    updates, bodies = dict(helped.updates), dict(helped.bodies)
    helped.forget_upload(0)
    assert helped.train_cleared(0)
    late = (dict(helped.updates), dict(helped.bodies))
    helped.updates, helped.bodies = updates, bodies
    first, _ = helped.listed(*ALL, asked=(), committing=())
    for name in (K, H, J):
        assert not helped.committed(first, name)
        assert "others than those of their first update" in helped.refusal(name)
    helped.updates, helped.bodies = late
    assert helped.read(helped.listed(*ALL, closing=2)) is not None


def test_an_arrival_that_was_kept_back_brings_no_earlier_update_back(helped: HelpedStage) -> None:
    """Played: an earlier process was started anew as well, and its word is shown after the later one's."""
    helped.train_all()
    helped.forget_upload(0)
    assert helped.train_cleared(0, J) is False
    early = helped.liar.sent["arrival"][-1]
    first = helped.consortium.hospitals[0].participant.beginning
    helped.restart_hospital(0)
    late = helped.arrive(0)
    said = {name: helped.ask_clearance(name, late) for name in (K, H)}
    assert all(one is not None and parse(Clearance, dict(one.payload)).covers(1) for one in said.values())
    for name in (K, H):
        kept_back = helped.ask_clearance(name, early)
        assert kept_back is not None and not parse(Clearance, dict(kept_back.payload)).covers(1)
    updates, bodies = dict(helped.updates), dict(helped.bodies)
    header = parse(UpdateHeader, dict(updates["site-0"].payload))
    own = helped.consortium.homes["site-0"].identity()
    helped.updates["site-0"] = seal(own, "update", replace(header, begun=first.word))  # it sent an update, too
    listed, _ = helped.listed(*ALL, asked=(), committing=())
    assert not helped.committed(listed, K, H)
    for name in (K, H):
        assert "others than those of their first update" in helped.refusal(name)
    helped.updates, helped.bodies = updates, bodies
    said[J] = helped.ask_clearance(J, late)  # J heard the earlier word first
    assert f"{J} cannot know" in sends_nothing(helped, said)


def later_keys(stage: HelpedStage) -> None:
    for number in (2, 3):
        stage.helpers[H].handle(replace(stage.item("key"), round=number))


FORGETFUL: dict[str, Callable[[HelpedStage], object]] = {
    "started anew": lambda stage: stage.restart_helper(H),
    "told that the study is over": lambda stage: stage.helpers[H].handle(stage.item("forget")),
    "asked for keys of later rounds": later_keys,
}


@pytest.mark.parametrize("helped", [{"rounds": 4}], indirect=True, ids=["four rounds"])
@pytest.mark.parametrize("how", FORGETFUL)
def test_a_helper_that_was_made_to_forget_what_it_opened_clears_nobody(helped: HelpedStage, how: str) -> None:
    helped.train_all()
    first = helped.listed(*ALL, committing=(K, H))
    assert helped.ask_pads(H, first) is not None
    FORGETFUL[how](helped)
    keys = len(helped.liar.sent["helper-key"])
    helped.helpers[H].handle(helped.item("key"))
    if how != "started anew":  # no other key of the round is ever made
        assert len(helped.liar.sent["helper-key"]) == keys and "is over here" in helped.refusal(H)
    helped.forget_upload(0)
    said = helped.ask_clearance(H, helped.arrive(0))
    assert said is not None and not parse(Clearance, dict(said.payload)).covers(1)
    helped.restart_helper(H)
    said = helped.ask_clearance(H, helped.arrive(0))
    assert said is not None and not parse(Clearance, dict(said.payload)).covers(1)


def test_a_restored_keyholder_clears_nobody_for_a_key_of_its_backup(helped: HelpedStage) -> None:
    """Played: orchestrator and helper H read the first sum; keyholder and hospital are restored; J saw nothing."""
    copy = shutil.copytree(helped.folder / "keys", helped.folder / "copy")
    helped.train_all()
    first = helped.listed(*ALL, committing=(K, H))
    assert helped.read(first, H) is not None
    helped.keyholder.custody.close()
    shutil.rmtree(helped.folder / "keys")
    shutil.copytree(copy, helped.folder / "keys")
    helped.restart_keyholder()
    helped.forget_upload(0)
    arrival = helped.arrive(0)
    said = {name: helped.ask_clearance(name, arrival) for name in (K, J)} | {H: false_clearance(helped, H)}
    assert "keyholder cannot know" in sends_nothing(helped, said)


def approved_again(stage: HelpedStage) -> None:
    """Restore hospital 0 to before the study's approval; its people approve it a second time."""
    stage.forget_upload(0)
    hospital = stage.consortium.hospitals[0]
    begun = Beginning(at=dt.datetime(2000, 1, 1, tzinfo=dt.UTC))
    again = replace(hospital.participant, beginning=begun)
    stage.consortium.hospitals[0] = Hospital(
        home=hospital.home, url="", participant=again, approvals=hospital.approvals
    )


def test_a_helper_opens_one_update_of_a_hospital_in_a_round(helped: HelpedStage) -> None:
    """Played: a hospital that needs no clearance, since its people approved the study twice, sends a second update."""
    helped.train_all()
    assert len(helped.listed(*ALL)[1]) == 4
    approved_again(helped)
    assert helped.train(0)
    second, _ = helped.listed(*ALL, asked=(), closing=2, committing=())
    for name in (K, H, J):
        assert not helped.committed(second, name)
        assert "others than those of their first update" in helped.refusal(name)
        assert parse(Refusal, dict(helped.liar.sent["refusal"][-1].payload)).without == ("site-0",)


def test_a_helper_that_was_shown_one_update_answers_no_list_with_another(helped: HelpedStage) -> None:
    """Played: the other helper alone commits to the second list. It has seen no first one, and answers it."""
    helped.train_all()
    assert len(helped.listed(*ALL, committing=(K, H))[1]) == 4
    approved_again(helped)
    assert helped.train(0)
    sealed, _ = helped.listed(*ALL, asked=(), closing=2, committing=(J,))
    lying = helped.keyholder.custody
    lying._updates.clear()  # the keyholder lies
    helped.commitments[sealed.signature] |= helped.committed(sealed, K)
    lied = (sealed, [helped.forged(i, (sealed, [])) for i in ALL])
    assert helped.ask_pads(H, lied) is None
    assert "others than those of their first update" in helped.refusal(H)
    assert helped.ask_pads(J, lied) is not None  # what docs/what-could-go-wrong.md says


def test_a_hospital_that_was_started_anew_signs_no_list_for_good(helped: HelpedStage) -> None:
    """Played: a hospital signs a first list, sees its voids, and signs a second one, which is answered.

    It and a helper are restored to before the voids: for both, the first list is the newest, and would be read, too.
    """
    helped.train_all()
    first = helped.listed(*ALL)
    rounds = helped.folder / f"{H}-rounds"
    copy = shutil.copytree(rounds, helped.folder / "copy")
    second, signed = helped.listed(0, 1, 2, asked=(1, 2), closing=2, documents=helped.voids(first))
    forgotten = helped.forged(0, (second, []))  # hospital 0 signed it; its restored journal lacks it
    assert helped.read((second, [forgotten, *signed]), J) is not None
    shutil.rmtree(rounds)
    shutil.copytree(copy, rounds)
    helped.restart_helper(H)
    helped.restart_hospital(0)
    assert helped.ask_pads(H, first) is None
    asked = {f"refusal/{H}": helped.liar.sent["refusal"][-1]}
    assert parse(Refusal, dict(asked[f"refusal/{H}"].payload)).fresh
    before = len(helped.liar.sent["attestation"])
    participant = helped.consortium.hospitals[0].participant
    participant.handle(helped.item("confirm", {"commitments": first[0], **asked}))
    assert len(helped.liar.sent["attestation"]) == before
    assert "cannot know that this is the newest list" in helped.refusal("site-0")
