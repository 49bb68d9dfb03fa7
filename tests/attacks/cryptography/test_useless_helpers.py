"""One helper alone stops a study while the other one works: with a key or a commitment that nobody can use.

Played: pad keys of zeros, without the lattice half, of digits that are no key; commitments to no part, to one, to one
too many. Before, every hospital was charged and failed to seal to such a key, or refused to sign under such a
commitment, round after round. Such a helper counts as absent in that round now, and the orchestrator's journal names
it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from support.helped import ALL, H, HelpedStage, J
from support.passing_time import Until
from support.played import Played, commit_falsely, played

from datasites.helper.custody import PadCustody
from datasites.study.messages import HelperKey, RoundKey, UpdateHeader
from datasites.study.signing import parse, seal
from orchestrator.api import helper_calls
from orchestrator.rounds import helping
from privacy.encryption import pads

__all__ = ["played"]
LENGTH = 100
EVERYBODY = [f"site-{i}" for i in ALL]
KEYS = {"short": "ab", "zeros": "0" * pads.HYBRID_KEY_HEX, "no lattice": "f" * (pads.HYBRID_KEY_HEX - 64)}
"""What a bad key begins with; a true X25519 half follows where there is room."""


def bad_keys(true: str) -> dict[str, str]:
    return {how: begins + true[len(begins) :] if how == "no lattice" else begins for how, begins in KEYS.items()} | {
        "capitals": true.upper(),
        "half": true[-64:],
    }


def refused(played: Played) -> set[tuple[str, int, str]]:
    entries = played.service.journal.entries(kind="part-refused")
    return {(entry.body["party"], entry.body["round"], entry.body["what"]) for entry in entries}


def test_a_helper_with_a_key_of_no_use_counts_as_absent_and_is_named(
    played: Played, monkeypatch: pytest.MonkeyPatch, without_the_gone: Callable[..., Until]
) -> None:
    real = PadCustody.open_round

    def lying(custody: PadCustody, proposal: Any, number: int, name: str) -> HelperKey:
        key = real(custody, proposal, number, name)
        return replace(key, pad_key=KEYS["zeros"]) if name == J else key

    monkeypatch.setattr(PadCustody, "open_round", lying)
    played.propose("pilot", length=LENGTH, rounds=1)
    status = played.play("pilot", until=without_the_gone())
    assert (status["state"], status["reason"]) == ("finished", "")
    assert status["checkpoints"][0]["sites"] == EVERYBODY
    assert refused(played) == {(J, 1, "key")}
    assert not played.service.store.document("pilot", 1, "helper-key", author=J)


@pytest.mark.parametrize("how", ["short", "zeros", "no lattice", "capitals", "half"])
def test_a_hospital_seals_to_the_other_helper_and_is_charged_only_where_one_is_left(
    helped: HelpedStage, how: str
) -> None:
    """Played with an orchestrator that passes the key on."""
    for name in (J, H):
        said = parse(HelperKey, dict(helped.helper_keys[f"key/{name}"].payload))
        bad = replace(said, pad_key=bad_keys(said.pad_key)[how])
        helped.helper_keys[f"key/{name}"] = seal(helped.consortium.homes[name].identity(), "helper-key", bad)
        if name == J:
            assert helped.train(0)
            assert set(parse(UpdateHeader, dict(helped.updates["site-0"].payload)).helper_pads) == {H}
    journal = helped.consortium.hospitals[1].participant.journal
    before = len(list(journal.entries(kind="round-charged")))
    assert not helped.train(1)
    assert "no helper's key came with the plan" in helped.refusal("site-1")
    assert len(list(journal.entries(kind="round-charged"))) == before


def test_a_keyholders_key_of_no_use_is_refused_before_the_charge(helped: HelpedStage) -> None:
    key = replace(parse(RoundKey, dict(helped.key.payload)), pad_key=KEYS["zeros"])
    journal = helped.consortium.hospitals[0].participant.journal
    before = len(list(journal.entries(kind="round-charged")))
    assert not helped.train(0, key=seal(helped.keyholder.home.identity(), "round-key", key))
    assert "the pad key of keyholder is of no use" in helped.refusal("site-0")
    assert len(list(journal.entries(kind="round-charged"))) == before


PARTS: dict[str, Callable[[dict[str, str]], dict[str, str]]] = {
    "none": lambda _: {},
    "one too few": lambda parts: {"3": parts["3"]},
    "one too many": lambda parts: {**parts, "2" if "1" in parts else "1": "0" * 64},
    "no hash": lambda parts: {**parts, "3": "junk"},
}


@pytest.mark.parametrize("kept", [False, True], ids=["at the door", "kept from before"])
def test_a_helper_that_commits_to_other_parts_than_its_own_counts_as_absent_and_is_named(
    played: Played, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    ways = list(PARTS.values())[: 3 if kept else 4]
    commit_falsely(monkeypatch, J, lambda number, parts: ways[number - 1](parts))
    if kept:
        monkeypatch.setattr(helper_calls, "require_own_parts", lambda _, said: said)
    played.propose("pilot", length=LENGTH, rounds=len(ways))
    status = played.play("pilot")
    assert (status["state"], status["reason"]) == ("finished", "")
    for number in range(1, len(ways) + 1):
        assert status["checkpoints"][number - 1]["sites"] == EVERYBODY
        chosen = played.service.store.document("pilot", number, helping.CHOSEN, closing=1)
        assert chosen == {"parties": [H, "keyholder"]}
    rounds = [] if kept else range(1, len(ways) + 1)
    assert refused(played) == {(J, number, "commitment") for number in rounds}
