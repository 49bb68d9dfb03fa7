"""One hospital seals junk to keyholder or helpers, to cost everybody the round; or a helper says so of an honest one.

Played in a whole consortium: junk for one helper, for both, for the keyholder, and for the only helper that is there;
and a helper that accuses an honest hospital. The list is checked by all holders before anybody signs it, so junk costs
nobody but its sender. On the code before, a hospital that sealed junk to both helpers paused the study with nobody
named, and one that sealed junk to one of them had the round lost whenever the other was away.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from harness.consortium import BOUND, LEVELS, steps_of
from support.helped import H, J
from support.passing_time import Until
from support.played import Played, commit_falsely, played

from datasites.helper.custody import PadCustody
from datasites.hospital.rounds import round_pads
from datasites.hospital.rounds.round_pads import Padded
from datasites.keyholder.opened import BadPads
from orchestrator.rounds import helping
from privacy.encryption import pads, shares

__all__ = ["played"]
LENGTH, LIAR = 100, "site-1"


def seal_junk(played: Played, monkeypatch: pytest.MonkeyPatch, victims: Collection[str]) -> None:
    """Have the lying hospital seal other seeds to ``victims`` than it signs for."""
    real = round_pads.padded

    def lying(proposal: Any, plan: Any, site: str, keys: Any, blocks: Any) -> Padded:
        padded = real(proposal, plan, site, keys, blocks)
        if site != LIAR:
            return padded
        for victim in victims:
            holder = played.homes[victim].identity().public_key
            label = pads.PadLabel(
                study=plan.study, round=plan.round, plan_hash=plan.plan_hash, site=site, holder=holder
            )
            junk = shares.joined(shares.new_seeds(), (1, 2))
            if victim == "keyholder":
                padded = replace(padded, pad=pads.seal_seed(junk, keys.round_key.pad_key, label))
            elif victim in keys.helpers:
                sealed = pads.seal_seed(junk, keys.helpers[victim].pad_key, label)
                padded = replace(padded, helper_pads={**padded.helper_pads, victim: sealed})
        return padded

    monkeypatch.setattr(round_pads, "padded", lying)


def accused(played: Played) -> list[tuple[str, list[str], list[str]]]:
    found = played.service.journal.entries(kind="pads-unreadable")
    return [(entry.body["by"], entry.body["sites"], entry.body["left_out"]) for entry in found]


def check_model(played: Played, status: dict[str, Any], sites: Collection[int]) -> None:
    mean = sum(steps_of(i, "shared", LENGTH) for i in sites) * BOUND / LEVELS / len(sites)
    assert np.allclose(played.model(status)["shared"], mean, atol=1e-5)


def test_junk_for_one_helper_costs_nothing_and_names_its_sender(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    seal_junk(played, monkeypatch, {H})
    played.propose("pilot", length=LENGTH)
    status = played.play("pilot")
    assert (status["state"], status["reason"]) == ("finished", "")
    assert accused(played) == [(H, [LIAR], [])]
    check_model(played, status, range(4))


@pytest.mark.parametrize("victims", [(H, J), ("keyholder",), ("keyholder", H, J)], ids="+".join)
def test_junk_for_both_helpers_or_the_keyholder_costs_its_sender_the_round(
    played: Played, monkeypatch: pytest.MonkeyPatch, victims: tuple[str, ...]
) -> None:
    seal_junk(played, monkeypatch, victims)
    played.propose("pilot", length=LENGTH)
    status = played.play("pilot")
    assert (status["state"], status["reason"]) == ("finished", "")
    assert {(by, *sites) for by, sites, _ in accused(played)} == {(victim, LIAR) for victim in victims}
    assert all(left_out == [LIAR] for _, _, left_out in accused(played))
    assert status["checkpoints"][0]["sites"] == ["site-0", "site-2", "site-3"]
    check_model(played, status, (0, 2, 3))
    assert any("the pads of site-1 do not open" in str(refusal) for refusal in status["refusals"].values())


def test_junk_for_the_only_helper_that_is_there_costs_its_sender_the_round(
    played: Played, monkeypatch: pytest.MonkeyPatch, without_the_gone: Callable[..., Until]
) -> None:
    seal_junk(played, monkeypatch, {H})
    played.close_helper(J)
    played.propose("pilot", length=LENGTH)
    status = played.play("pilot", until=without_the_gone())
    assert (status["state"], status["reason"]) == ("finished", "")
    assert accused(played) == [(H, [LIAR], [LIAR])]
    check_model(played, status, (0, 2, 3))


def test_nobody_signed_the_list_that_held_junk_so_that_no_void_is_needed(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    seal_junk(played, monkeypatch, {"keyholder"})
    played.propose("pilot", length=LENGTH)
    played.play("pilot")
    store = played.service.store
    assert not store.documents("pilot", 1, "attestation", closing=1)
    assert not store.documents("pilot", 1, "void")
    assert set(store.documents("pilot", 1, "attestation", closing=2)) == {"site-0", "site-2", "site-3"}


def accuse(monkeypatch: pytest.MonkeyPatch, played: Played, liar: str) -> None:
    """Have a helper say that it cannot open the seeds of an honest hospital."""
    real = PadCustody.commit

    def lying(custody: PadCustody, listed: Any, name: str) -> Any:
        if name == liar and LIAR in listed.headers:
            raise BadPads([LIAR])
        return real(custody, listed, name)

    monkeypatch.setattr(PadCustody, "commit", lying)


def test_a_helper_that_accuses_an_honest_hospital_is_not_believed_while_the_other_can_answer(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    accuse(monkeypatch, played, H)
    played.propose("pilot", length=LENGTH)
    status = played.play("pilot")
    assert accused(played) == [(H, [LIAR], [])]
    check_model(played, status, range(4))


def test_a_lone_helper_that_accuses_costs_the_hospital_that_round_and_no_other(
    played: Played, monkeypatch: pytest.MonkeyPatch, without_the_gone: Callable[..., Until]
) -> None:
    """What remains, and less than the helper could cost by being away, too: its word stands in the journal."""
    accuse(monkeypatch, played, H)
    played.close_helper(J)
    played.propose("pilot", length=LENGTH, rounds=2)
    played.play("pilot", until=without_the_gone(lambda status: status["rounds_completed"] >= 1))
    monkeypatch.undo()
    status = played.play("pilot", until=without_the_gone())
    assert status["state"] == "finished"
    assert accused(played)[0] == (H, [LIAR], [LIAR])
    assert status["checkpoints"][0]["sites"] == ["site-0", "site-2", "site-3"]


def test_accusations_down_to_too_few_hospitals_cost_the_round_and_pause_the_study_with_the_name(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    seal_junk(played, monkeypatch, {"keyholder"})
    played.propose("pilot", length=LENGTH, min_sites=4, rounds=2)
    status = played.play("pilot")
    assert status["state"] == "paused"
    assert "the pads of site-1 do not open" in status["reason"]
    monkeypatch.undo()  # people have asked, and the hospital is honest now
    played.client.post_json("/studies/pilot/resume", {})
    status = played.play("pilot")
    assert (status["state"], [bool(c.get("lost")) for c in status["checkpoints"]]) == ("finished", [True, False])


def test_a_helper_that_commits_to_a_false_sum_is_left_out_before_anybody_signs(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit_falsely(monkeypatch, H, lambda _, parts: dict.fromkeys(parts, "0" * 64))
    played.propose("pilot", length=LENGTH)
    status = played.play("pilot")
    check_model(played, status, range(4))
    assert played.service.store.document("pilot", 1, helping.CHOSEN, closing=1) == {"parties": [J, "keyholder"]}
