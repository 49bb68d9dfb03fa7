"""Rounds of studies with two helpers: the sum is right and can be checked; kills, restores and absences."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import numpy as np
import pytest
from harness.consortium import BOUND, LEVELS, steps_of
from support.passing_time import Until
from support.played import Played, played

from orchestrator.rounds.checkpoints import NEXT_ROUND

__all__ = ["played"]
LENGTH = 300


def expected(played: Played, sites: range | list[int], rounds: int = 1) -> np.ndarray:
    mean = sum(steps_of(i, "shared", LENGTH) for i in sites) * BOUND / LEVELS / len(list(sites))
    return (rounds * mean).astype(np.float32)


def kinds(played: Played, name: str) -> list[str]:
    from privacy.ledger.journal import Journal

    journal = Journal(played.homes[name].folder / "journal.sqlite", None)
    try:
        return [entry.kind for entry in journal.entries()]
    finally:
        journal.close()


def test_a_study_with_helpers_gives_the_right_model_and_every_site_recomputes_it(played: Played) -> None:
    played.propose("pilot", length=LENGTH, rounds=2)
    status = played.play("pilot")
    assert (status["state"], status["reason"]) == ("finished", "")
    assert np.allclose(played.model(status)["shared"], expected(played, range(4), 2), atol=1e-5)
    for name in played.names:
        played.step(name)
        assert "models-followed" in kinds(played, name)
        assert "sum-unconfirmed" not in kinds(played, name)
    for name in played.helpers:
        played.step(name)
        assert kinds(played, name).count("pads-summed") == 2


# kills -------------------------------------------------------------------------------------------------------------

STATES = (
    *("helper-key", "plan", "update", "commitments", "pad-commitment", "pad-commitments-chosen"),
    *("attestation", "pads", "opening", "result"),
)
"""What is stored in the course of a round, in this order; a role is killed when it first is there."""


def is_stored(played: Played, number: int, kind: str) -> bool:
    store = played.service.store
    return bool(store.documents("pilot", number, kind)) or store.document("pilot", number, kind) is not None


def kill(played: Played, role: str) -> None:
    """End a role without a word, and start it again from what lies on its disk."""
    if role == "both helpers":
        for name in played.helpers:
            kill(played, name)
    elif role in played.helpers:
        played.close_helper(role)
        played.open_helper(role)
    elif role == "keyholder":
        played.close_keyholder()
        played.open_keyholder()
    else:
        played.close_orchestrator()
        played.open_orchestrator()


def lists_answered(played: Played, name: str) -> list[tuple[int, str]]:
    return [
        (entry.body["round"], entry.body["list_hash"])
        for entry in played.helping[name].journal.entries(kind="pads-summed")
    ]


@pytest.mark.parametrize(
    "role", [pytest.param("helper-0", marks=pytest.mark.thorough), "both helpers", "keyholder", "orchestrator"]
)
def test_a_kill_in_every_state_of_a_round_loses_nothing_and_gives_no_second_answer(played: Played, role: str) -> None:
    played.propose("pilot", length=LENGTH, rounds=len(STATES))
    for number, kind in enumerate(STATES, 1):

        def reached(_: object, number: int = number, kind: str = kind) -> bool:
            return is_stored(played, number, kind)

        played.play("pilot", until=reached)
        kill(played, role)
    status = played.play("pilot")
    assert (status["state"], status["reason"]) == ("finished", "")
    assert not [c["lost"] for c in status["checkpoints"] if c.get("lost")]
    assert np.allclose(played.model(status)["shared"], expected(played, range(4), len(STATES)), atol=1e-4)
    for name in played.helpers:
        answered = lists_answered(played, name)
        assert len({number for number, _ in answered}) == len(set(answered)) == len(answered)


def test_with_one_helper_gone_the_study_goes_on_and_every_sum_is_vouched_for(
    played: Played, without_the_gone: Callable[..., Until]
) -> None:
    played.propose("pilot", length=LENGTH, rounds=3)
    played.play("pilot", until=lambda status: status["rounds_completed"] >= 1)
    played.close_helper("helper-1")
    status = played.play("pilot", until=without_the_gone())
    assert status["state"] == "finished"
    assert np.allclose(played.model(status)["shared"], expected(played, range(4), 3), atol=1e-4)
    for name in played.names:
        played.step(name)
        assert "sum-unconfirmed" not in kinds(played, name)
        assert "models-followed" in kinds(played, name)


def test_a_helper_that_comes_back_takes_part_again(played: Played, without_the_gone: Callable[..., Until]) -> None:
    played.close_helper("helper-1")
    played.propose("pilot", length=LENGTH, rounds=5)
    played.play("pilot", until=without_the_gone(lambda status: status["rounds_completed"] >= 1))
    played.open_helper("helper-1")
    status = played.play("pilot")
    assert status["state"] == "finished"
    assert played.service.store.documents("pilot", 5, "pads").keys() == {"helper-0", "helper-1"}


def test_with_both_helpers_gone_the_study_waits_for_one(played: Played, without_the_gone: Callable[..., Until]) -> None:
    for name in played.helpers:
        played.close_helper(name)
    played.propose("pilot", length=LENGTH)
    played.play("pilot", until=without_the_gone(lambda status: "a key of helper-0, helper-1" in status["waiting"]))
    played.open_helper("helper-0")
    assert played.play("pilot", until=without_the_gone())["state"] == "finished"


@pytest.mark.parametrize("others", [(), ("keyholder",)], ids=["helpers alone", "with the keyholder"])
def test_both_helpers_started_anew_in_one_round_cost_one_more_signature(
    played: Played, others: tuple[str, ...]
) -> None:
    """What they answer a list on is the hospitals' word that they sign no other one."""
    played.propose("pilot", length=LENGTH, rounds=2)
    played.play("pilot", until=lambda _: is_stored(played, 1, "commitments"))
    for name in (*played.helpers, *others):
        kill(played, name)
    status = played.play("pilot")
    assert (status["state"], status["reason"]) == ("finished", "")
    assert not [c["lost"] for c in status["checkpoints"] if c.get("lost")]
    assert np.allclose(played.model(status)["shared"], expected(played, range(4), 2), atol=1e-4)
    assert all("confirmed" in kinds(played, name) for name in played.names)


# hospitals that vanish between upload and signature --------------------------------------------------------------


def restart_hospital_before_it_signs(played: Played) -> None:
    played.play("pilot", until=lambda _: len(played.service.store.documents("pilot", 1, "update")) == 4)
    index = 3
    played.hospitals[index].close()
    played.open_hospital(index)


def test_a_hospital_that_cannot_sign_costs_its_update_and_the_list_is_declared_void_by_all(played: Played) -> None:
    played.propose("pilot", length=LENGTH)
    restart_hospital_before_it_signs(played)
    status = played.play("pilot")
    assert (status["state"], status["reason"]) == ("finished", "")
    assert status["checkpoints"][0]["sites"] == played.names[:3]
    assert np.allclose(played.model(status)["shared"], expected(played, range(3)), atol=1e-5)
    voids = played.service.store.documents("pilot", 1, "void", closing=1)
    assert set(voids) == {"keyholder", "helper-0", "helper-1"}


def test_a_hospital_that_cannot_sign_beside_a_helper_that_was_started_anew_costs_the_round(played: Played) -> None:
    played.propose("pilot", length=LENGTH, rounds=2)
    restart_hospital_before_it_signs(played)
    kill(played, "helper-0")
    status = played.play("pilot")
    assert status["state"] == "paused"
    assert "helper-0 did not declare the list void" in status["reason"]
    played.client.post_json("/studies/pilot/resume", {})
    assert played.play("pilot")["state"] == "finished"


def test_a_round_that_too_few_can_sign_is_lost_and_the_study_goes_on(played: Played) -> None:
    played.propose("pilot", length=LENGTH, rounds=2, min_sites=4)
    restart_hospital_before_it_signs(played)
    status = played.play("pilot")
    assert status["state"] == "paused"
    assert "site-3 cannot sign the list of the round, and the others are too few" in status["reason"]
    played.client.post_json("/studies/pilot/resume", {})
    status = played.play("pilot")
    assert status["state"] == "finished"
    assert [bool(c.get("lost")) for c in status["checkpoints"]] == [True, False]


def is_closed_again(played: Played, kind: str) -> bool:
    """Say whether a document about the second list of the round is stored."""
    store = played.service.store
    return bool(store.documents("pilot", 1, kind, closing=2)) or (
        store.document("pilot", 1, kind, closing=2) is not None
    )


REDONE = {"void": "both helpers", "commitments": "orchestrator", "attestation": "keyholder"}
"""By default every state is met by one kill, and every kind of role is killed once."""


@pytest.mark.parametrize(
    ("role", "kind"),
    [
        pytest.param(role, kind, marks=() if REDONE[kind] == role else pytest.mark.thorough)
        for kind in REDONE
        for role in ("helper-0", "both helpers", "keyholder", "orchestrator")
    ],
)
def test_a_kill_while_a_list_is_redone_loses_nothing_and_gives_no_second_answer(
    played: Played, role: str, kind: str
) -> None:
    played.propose("pilot", length=LENGTH)
    restart_hospital_before_it_signs(played)

    def reached(_: object) -> bool:
        voids = played.service.store.documents("pilot", 1, "void", closing=1)
        return len(voids) == 3 if kind == "void" else is_closed_again(played, kind)

    played.play("pilot", until=reached)
    kill(played, role)
    status = played.play("pilot")
    assert (status["state"], status["reason"]) == ("finished", "")
    assert status["checkpoints"][0]["sites"] == played.names[:3] and not status["checkpoints"][0].get("lost")
    assert np.allclose(played.model(status)["shared"], expected(played, range(3)), atol=1e-5)
    for name in played.helpers:
        assert len(set(lists_answered(played, name))) == len(lists_answered(played, name)) <= 1


@pytest.mark.parametrize("role", ["helper-0", "keyholder", "orchestrator"])
def test_a_kill_while_a_hospital_is_cleared_loses_no_round(played: Played, role: str) -> None:
    """It may cost the hospital its part: a holder that was started anew does not know what it opened."""
    played.propose("pilot", length=LENGTH, rounds=4)
    restart_hospital_before_it_sends(played, 3)
    played.step("site-3")
    kill(played, role)
    status = played.play("pilot")
    assert (status["state"], status["reason"]) == ("finished", "")
    sites = [checkpoint["sites"] for checkpoint in status["checkpoints"]]
    assert all(set(played.names[:3]) <= set(found) for found in sites) and sites[-1] == played.names
    assert not [c["lost"] for c in status["checkpoints"] if c.get("lost")]


def restart_hospital_before_it_sends(played: Played, index: int) -> None:
    """Start a hospital anew once a round was planned; it has sent nothing in this round."""
    played.play(
        "pilot",
        *(n for n in (*played.names, "keyholder", *played.helpers) if n != played.names[index]),
        until=lambda _: len(played.service.store.documents("pilot", 1, "update")) == 3,
    )
    played.hospitals[index].close()
    played.open_hospital(index)


def test_a_hospital_that_was_killed_before_it_sent_its_update_is_cleared_and_takes_part(played: Played) -> None:
    played.propose("pilot", length=LENGTH, rounds=2)
    restart_hospital_before_it_sends(played, 3)
    status = played.play("pilot")
    assert (status["state"], status["reason"]) == ("finished", "")
    assert all(checkpoint["sites"] == played.names for checkpoint in status["checkpoints"])
    assert np.allclose(played.model(status)["shared"], expected(played, range(4), 2), atol=1e-4)


def test_a_round_that_nobody_can_be_cleared_for_is_lost_and_the_study_goes_on(played: Played) -> None:
    """Else it would be asked for again for ever: who was started anew beside the keyholder sends nothing in it."""
    played.propose("pilot", length=LENGTH, rounds=4, min_sites=4)
    restart_hospital_before_it_sends(played, 3)
    kill(played, "keyholder")
    status = played.play("pilot")
    assert status["state"] == "paused"
    assert "site-3 cannot send an update in this round, and the others are too few" in status["reason"]
    assert status["reason"].endswith(NEXT_ROUND)  # a composed consortium goes on by it
    lost = [bool(c.get("lost")) for c in status["checkpoints"]]
    while status["state"] == "paused":
        played.client.post_json("/studies/pilot/resume", {})
        status = played.play("pilot")
        assert len(status["checkpoints"]) > len(lost), status["reason"]  # each resumption comes further
        lost = [bool(c.get("lost")) for c in status["checkpoints"]]
    assert status["state"] == "finished"
    assert lost[0] and lost[2:] == [False, False]  # the second round's key may have been made ahead


def test_a_hospital_that_was_started_anew_waits_for_a_helper_that_is_gone_and_the_others_go_on(
    played: Played, without_the_gone: Callable[..., Until]
) -> None:
    played.propose("pilot", length=LENGTH, rounds=5)
    restart_hospital_before_it_sends(played, 3)
    played.close_helper("helper-1")
    played.play("pilot", until=without_the_gone(lambda status: status["rounds_completed"] >= 2))
    played.open_helper("helper-1")
    status = played.play("pilot")
    assert status["state"] == "finished"
    sites = [checkpoint["sites"] for checkpoint in status["checkpoints"]]
    assert sites[0] == sites[1] == played.names[:3]
    refused = [e.body["reason"] for e in played.hospitals[3].participant.journal.entries(kind="refused")]
    assert any("helper-1 did not say" in reason for reason in refused)
    assert sites[-1] == played.names


# restores ----------------------------------------------------------------------------------------------------------


def test_a_helper_restored_from_a_backup_notices_it_and_the_study_goes_on(played: Played) -> None:
    played.propose("pilot", length=LENGTH, rounds=4)
    played.play("pilot", until=lambda status: status["rounds_completed"] >= 1)
    home = played.homes["helper-0"].folder
    played.close_helper("helper-0")
    shutil.copytree(home, played.folder / "copy")
    played.open_helper("helper-0")
    played.play("pilot", until=lambda _: "helper-0" in played.service.store.documents("pilot", 4, "pads"))
    played.close_helper("helper-0")
    shutil.rmtree(home)
    shutil.copytree(played.folder / "copy", home)
    played.open_helper("helper-0")
    assert played.play("pilot")["state"] == "finished"
    played.step("helper-0")
    noticed = list(played.helping["helper-0"].journal.entries(kind="restored-noticed"))
    assert len(noticed) == 1
    assert {number for _, number in noticed[0].body["rounds"]} >= {4}
