"""Two lists of one round, to read the difference: one hospital's update, whatever the pads.

Played: an orchestrator that lies together with the keyholder, or with one helper, or with hospitals; false, stolen and
early voids; lists that complete late; keyholder, helpers and hospitals that are started anew or restored in between.
Nobody ever gets the sums of two lists that hold the same honest hospital.
"""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import replace

import numpy as np
import pytest
from harness.consortium import steps_of
from support.helped import H, HelpedStage, J, List

from datasites.study.messages import Commitments, Refusal
from datasites.study.signing import Signed, parse, seal

ALL, FEWER = (0, 1, 2, 3), (1, 2, 3)


def total(*sites: int) -> list[int]:
    return [int(v) for v in sum(steps_of(i, "shared", 700) for i in sites)]


def is_total(found: np.ndarray | None, *sites: int) -> bool:
    return found is not None and found.tolist() == total(*sites)


def second(stage: HelpedStage, **named: object) -> List:
    """A second list, without hospital 0, under the signatures that can be had."""
    return stage.listed(*FEWER, closing=2, **named)  # type: ignore[arg-type]


def test_the_honest_round_is_read_with_either_helper_alone(helped: HelpedStage) -> None:
    helped.train_all()
    closed = helped.listed(*ALL)
    assert is_total(helped.read(closed, H), *ALL)
    assert is_total(helped.read(closed, J), *ALL)


def test_honest_hospitals_sign_one_list_so_that_the_two_helpers_cannot_be_given_two(helped: HelpedStage) -> None:
    helped.train_all()
    first = helped.listed(*ALL)
    assert helped.ask_pads(H, first) is not None
    other = second(helped)
    assert other[1] == []
    assert "another list was signed here" in helped.refusal("site-1")
    assert helped.ask_pads(J, other) is None
    assert "not attested by" in helped.refusal(J)


def test_one_lying_hospital_is_not_enough_for_a_second_list(helped: HelpedStage) -> None:
    helped.train_all()
    helped.ask_pads(H, helped.listed(*ALL))
    other = second(helped)
    assert helped.ask_pads(J, (other[0], [helped.forged(1, other)])) is None
    assert "not attested by site-2, site-3" in helped.refusal(J)


@pytest.mark.parametrize("liars", [("keyholder",), ("keyholder", H), ("keyholder", J), (H, J), (H,)], ids=str)
def test_false_voids_of_fewer_than_all_three_move_no_hospital(helped: HelpedStage, liars: tuple[str, ...]) -> None:
    helped.train_all()
    first = helped.listed(*ALL)
    false = {f"void/1/{name}": helped.false_void(name, first) for name in liars}
    assert second(helped, documents=false)[1] == []
    missing = sorted({"keyholder", H, J} - set(liars))
    assert f"expected {', '.join(missing)} to declare it void" in helped.refusal("site-1")


def test_a_void_of_another_list_round_or_signer_counts_for_nothing(helped: HelpedStage) -> None:
    helped.train_all()
    first = helped.listed(*ALL)
    true = helped.voids(first, "keyholder", J)
    for changes in ({"list_hash": "0" * 64}, {"round": 2}, {"study": "another"}, {"party": J}):
        false = {**true, f"void/1/{H}": helped.false_void(H, first, **changes)}
        assert second(helped, documents=false)[1] == []
    stolen = {**true, f"void/1/{H}": true[f"void/1/{J}"]}  # signed by the other helper
    assert second(helped, documents=stolen)[1] == []
    assert "carries another key" in helped.refusal("site-1")


def test_who_answered_a_list_declares_it_void_no_more(helped: HelpedStage) -> None:
    helped.train_all()
    first = helped.listed(*ALL)
    assert is_total(helped.read(first, H), *ALL)
    assert set(helped.voids(first)) == {f"void/1/{J}"}
    assert "was answered; it cannot be void" in helped.refusal(H)
    assert "was answered; it cannot be void" in helped.refusal("keyholder")


def test_a_void_list_is_answered_by_nobody_when_its_last_signature_turns_up(helped: HelpedStage) -> None:
    helped.train_all()
    first = helped.listed(*ALL)  # hospital 0 signed, the orchestrator says that it vanished
    voids = helped.voids(first)
    assert len(voids) == 3
    other = second(helped, documents=voids)
    assert len(other[1]) == 3
    assert is_total(helped.read(other), *FEWER)
    for name in (H, J):
        assert helped.ask_pads(name, first) is None
        assert "declared void and is never answered" in helped.refusal(name)
    assert helped.decrypt(*first, documents=helped.answers(other)) is None


def test_a_vanished_hospital_costs_its_update_and_nothing_else(helped: HelpedStage) -> None:
    helped.train_all()
    first = helped.listed(*ALL, asked=FEWER)
    other = second(helped, documents=helped.voids(first))
    assert is_total(helped.read(other, J), *FEWER)


def test_voids_are_repeated_and_bind_for_every_later_list_too(helped: HelpedStage) -> None:
    helped.train_all()
    first = helped.listed(*ALL)
    voids = helped.voids(first)
    assert helped.voids(first) == voids
    other = second(helped, documents=voids)
    third = helped.listed(0, 2, 3, closing=3, documents=voids)
    assert [s.payload["site"] for s in third[1]] == ["site-0"]  # who signed the second one waits for its void
    assert is_total(helped.read(other), *FEWER)


def test_a_helper_answers_one_list_whatever_hospitals_lie(helped: HelpedStage) -> None:
    helped.train_all()
    first, other = helped.listed(*ALL), second(helped)
    lied = (other[0], [helped.forged(i, other) for i in FEWER])  # three hospitals and the orchestrator
    assert helped.ask_pads(H, first) is not None
    assert helped.ask_pads(H, lied) is None
    assert "one list per round" in helped.refusal(H)
    assert helped.ask_pads(H, first) is not None


def test_the_keyholder_answers_one_list_whatever_a_helper_and_hospitals_lie(helped: HelpedStage) -> None:
    helped.train_all()
    first, other = helped.listed(*ALL), second(helped)
    lied = (other[0], [helped.forged(i, other) for i in FEWER])
    documents = helped.answers(first, H)
    helped.restart_helper(J)  # it lies: forgets what it answered
    assert is_total(helped.decrypt(*first, documents=documents), *ALL)
    assert helped.decrypt(*lied, documents=documents) is None
    assert "answered with another sum" in helped.refusal("keyholder")


def test_the_same_sum_under_a_shorter_list_is_another_list(helped: HelpedStage) -> None:
    helped.train_all()
    first = helped.listed(*ALL)
    listed = parse(Commitments, dict(first[0].payload))
    shorter = replace(listed, updates=listed.updates[1:], closing=2)
    sealed = seal(helped.liar.identity, "commitments", shorter)
    helped.commitments[sealed.signature] = helped.committed(sealed, "keyholder", H)
    lied = (sealed, [helped.forged(i, (sealed, [])) for i in FEWER])
    pads_of_first = {place: signed for place, signed in helped.answers(first).items() if place.startswith("pads/")}
    documents = {**pads_of_first, **helped.shown(lied)}
    assert is_total(helped.read(first), *ALL)
    assert helped.decrypt(*lied, documents=documents) is None
    assert "tags do not add up" in helped.refusal("keyholder")
    assert helped.ask_pads(H, lied) is None


def test_a_list_of_too_few_institutions_is_answered_by_no_helper(helped: HelpedStage) -> None:
    helped.train_all()
    few = helped.listed(0, 1)
    assert helped.ask_pads(H, few) is None
    assert "expected updates of at least 3 institutions" in helped.refusal(H)


def test_two_lists_without_a_common_hospital_need_min_sites_each(helped: HelpedStage) -> None:
    helped.train_all()
    assert helped.ask_pads(H, helped.listed(0, 1, 2)) is not None
    assert helped.ask_pads(J, helped.listed(3, closing=2)) is None


# started anew, restored --------------------------------------------------------------------------------------------


def test_a_helper_that_was_started_anew_repeats_its_answer_and_declares_nothing_void(helped: HelpedStage) -> None:
    helped.train_all()
    first = helped.listed(*ALL)
    answer = helped.ask_pads(H, first)
    assert answer is not None
    left = [path.suffix for path in (helped.folder / f"{H}-rounds").iterdir()]
    assert left == [".answer"]  # sent: the key is destroyed
    helped.restart_helper(H)
    again = helped.ask_pads(H, first)
    assert again is not None and again.payload == answer.payload
    assert helped.ask_void(H, first) is None
    other = second(helped)
    assert helped.ask_pads(H, (other[0], [helped.forged(i, other) for i in FEWER])) is None
    assert "one list per round" in helped.refusal(H)


@pytest.mark.parametrize("when", ["before its key", "after its key"])
def test_a_restored_helper_that_has_forgotten_its_answer_gives_no_second_one(helped: HelpedStage, when: str) -> None:
    """Played: orchestrator and keyholder restore an honest helper's folder, and show it another list."""
    folder = helped.folder / f"{H}-rounds"
    copy = shutil.copytree(folder, helped.folder / "copy") if when == "after its key" else None
    helped.train_all()
    first = helped.listed(*ALL)
    assert helped.ask_pads(H, first) is not None
    shutil.rmtree(folder)
    if copy is not None:
        shutil.copytree(copy, folder)
    helped.restart_helper(H)
    other = second(helped)
    lied = (other[0], [helped.forged(i, other) for i in FEWER])
    assert helped.ask_pads(H, lied) is None
    assert ("sign this one once more" if copy is not None else "holds nothing") in helped.refusal(H)
    if copy is None:
        return
    asked = {f"refusal/{H}": helped.liar.sent["refusal"][-1]}
    assert len(confirmed(helped, first, asked)) == 4
    assert not confirmed(helped, other, asked)  # an honest hospital signs no other list for good, nor any other at all
    assert not helped.attested(other[0], FEWER, helped.shown(other))
    assert helped.ask_void(H, first) is None
    good = (first[0], confirmed(helped, first, asked))
    assert helped.ask_pads(H, (first[0], [*good[1][:3], helped.liar.sent["attestation"][0]])) is None
    assert helped.ask_pads(H, good) is not None  # the list that it answered before
    assert helped.ask_pads(H, lied) is None


def confirmed(stage: HelpedStage, closed: List, asked: dict[str, Signed]) -> list[Signed]:
    """Return what honest hospitals sign when they are asked to sign a list for good."""
    before = len(stage.liar.sent["attestation"])
    for hospital in stage.consortium.hospitals:
        hospital.participant.handle(stage.item("confirm", {"commitments": closed[0], **asked}))
    return stage.liar.sent["attestation"][before:]


def test_no_stranger_and_no_other_round_moves_a_hospital_to_sign_for_good(helped: HelpedStage) -> None:
    helped.train_all()
    first = helped.listed(*ALL)
    refusal = Refusal(study=helped.proposal.study, round=1, party=H, reason="", fresh="ab" * 16)
    own = helped.consortium.homes[H].identity()
    for key, changed in (
        (helped.consortium.homes["keyholder"].identity(), refusal),
        (helped.consortium.homes[J].identity(), refusal),
        (own, replace(refusal, round=2)),
        (own, replace(refusal, study="another")),
        (own, replace(refusal, fresh="")),
        (own, replace(refusal, fresh="ab+cd")),
        (own, replace(refusal, fresh="ab" * 40)),
    ):
        assert not confirmed(helped, first, {f"refusal/{H}": seal(key, "refusal", changed)})
    assert not confirmed(helped, first, {})
    assert len(confirmed(helped, first, {f"refusal/{H}": seal(own, "refusal", refusal)})) == 4


def resealed(stage: HelpedStage) -> Signed:
    """The list of all updates as they are now, signed by the orchestrator."""
    return stage.listed(*ALL, asked=(), closing=2, committing=())[0]


def ask_every_round_after(helped: HelpedStage, name: str) -> None:
    """Ask a helper for the keys of two later rounds, after which it destroys the first one's."""
    for number in (2, 3):
        helped.helpers[name].handle(replace(helped.item("key"), round=number))


def restore(helped: HelpedStage) -> None:
    """Start a helper anew from an empty folder."""
    shutil.rmtree(helped.folder / f"{H}-rounds")
    helped.restart_helper(H)


FORGETFUL = {
    "restored": lambda helped: restore(helped),
    "told that the study is over": lambda helped: helped.helpers[H].handle(helped.item("forget")),
    "told that the study has ended well": lambda helped: helped.helpers[H].handle(helped.item("finished")),
    "asked for keys of later rounds": lambda helped: ask_every_round_after(helped, H),
}


@pytest.mark.parametrize("helped", [{"rounds": 4}], indirect=True, ids=["four rounds"])
@pytest.mark.parametrize("how", FORGETFUL)
def test_a_void_of_a_helper_that_forgot_what_it_answered_moves_no_hospital(helped: HelpedStage, how: str) -> None:
    """Played: orchestrator and keyholder have one honest helper forget its answer and then declare the list void."""
    helped.train_all()
    first = helped.listed(*ALL)
    pads_of_first = helped.answers(first, H)  # orchestrator and keyholder can read the first sum
    assert pads_of_first
    FORGETFUL[how](helped)
    with contextlib.suppress(IndexError):
        helped.offer_key(H)
    voids = {f"void/1/{name}": helped.ask_void(name, first) for name in (H, J)}
    voids["void/1/keyholder"] = helped.false_void("keyholder", first)
    other = second(helped, documents={place: signed for place, signed in voids.items() if signed is not None})
    assert other[1] == []
    assert helped.ask_pads(J, other) is None


def test_a_helpers_folder_holds_no_key_of_any_round(helped: HelpedStage) -> None:
    helped.train_all()
    private = {name: helped.helpers[name].custody._rounds[(helped.proposal.study, 1)].private for name in (H, J)}
    for name, key in private.items():
        assert len(key) == 96
        files = [p for p in helped.consortium.homes[name].folder.rglob("*") if p.is_file()]
        assert files
        assert not any(key[-32:] in path.read_bytes() for path in files)


def test_a_restored_keyholder_answers_nothing_on_the_word_of_one_helper(helped: HelpedStage) -> None:
    helped.train_all()
    copy = helped.folder / "copy"
    shutil.copytree(helped.folder / "keys", copy)
    held = helped.helpers[H].custody._rounds[(helped.proposal.study, 1)]
    private = held.private
    first = helped.listed(*ALL)
    other = second(helped, documents=helped.voids(first))
    assert is_total(helped.read(other), *FEWER)
    helped.keyholder.custody.close()
    shutil.rmtree(helped.folder / "keys")
    shutil.copytree(copy, helped.folder / "keys")
    helped.restart_keyholder()  # it knows neither of its void nor of its answer
    held.private, held.answer, held.voided = private, None, set()  # helper H lies
    false = helped.answers(first)
    assert {place for place in false if place.startswith("pads/")} == {
        f"pads/{H}"
    }  # the honest one has declared the list void
    assert helped.decrypt(*first, documents=false) is None
    assert helped.wanted() == (J,)


def test_a_restored_keyholder_declares_nothing_void(helped: HelpedStage) -> None:
    helped.train_all()
    copy = helped.folder / "copy"
    shutil.copytree(helped.folder / "keys", copy)
    first = helped.listed(*ALL)
    assert is_total(helped.read(first, H), *ALL)
    helped.keyholder.custody.close()
    shutil.rmtree(helped.folder / "keys")
    shutil.copytree(copy, helped.folder / "keys")
    helped.restart_keyholder()
    assert helped.ask_void("keyholder", first) is None
    assert "started anew since the key was made" in helped.refusal("keyholder")


def test_a_keyholder_that_was_started_anew_answers_what_both_helpers_answered(helped: HelpedStage) -> None:
    helped.train_all()
    first = helped.listed(*ALL)
    helped.restart_keyholder()
    assert helped.read(first, H) is None
    assert helped.wanted() == (J,)
    assert is_total(helped.read(first), *ALL)


def test_a_hospital_that_was_started_anew_signs_only_what_it_signed(helped: HelpedStage) -> None:
    helped.train_all()
    first = helped.listed(*ALL, asked=(0, 1))
    helped.restart_hospital(0)
    helped.restart_hospital(2)
    again = helped.listed(*ALL)
    assert [s.payload["site"] for s in again[1]] == ["site-0", "site-1", "site-3"]
    assert "started anew since it sent its update" in helped.refusal("site-2")
    assert first[0] == again[0]
