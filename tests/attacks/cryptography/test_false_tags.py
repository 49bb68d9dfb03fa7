"""A hospital signs the list of a round with a false tag of one of its pads, so that nobody can use the sum.

Played with every part and with both helpers or one of them there. The keyholder cannot check tags of the part that it
lacks: before helpers were heeded, a hospital that tagged this part falsely paused the study, in every round anew, and
nobody was named. A helper that accuses an honest hospital while the other one answers is not believed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from support.passing_time import Until
from support.played import Played, played

from datasites.helper.custody import PadCustody
from datasites.hospital.rounds.round_pads import OwnPads
from datasites.keyholder.opened import BadPads

__all__ = ["played"]
LENGTH, LIAR = 700, "site-1"
H, J = "helper-0", "helper-1"


def tag_falsely(played: Played, monkeypatch: pytest.MonkeyPatch, part: int) -> None:
    """Have the lying hospital add one to its tag of a part, under every list."""
    real = OwnPads.tags

    def lying(own: OwnPads, *about: Any) -> dict[str, tuple[str, ...]]:
        tags = real(own, *about)
        mine = [sent.own for sent in liar.sent_now.values()]
        if any(own is one for one in mine):
            first, *rest = tags[str(part)]
            tags[str(part)] = (str(int(first) ^ 1), *rest)
        return tags

    liar = next(h.participant for h in played.hospitals if h.participant.site == LIAR)
    monkeypatch.setattr(OwnPads, "tags", lying)


@pytest.mark.parametrize(("part", "gone"), [(1, ""), (2, ""), (3, ""), (3, J)], ids=["1", "2", "3", "3-one-helper"])
def test_a_false_tag_costs_one_round_and_its_sender_the_study(
    played: Played, monkeypatch: pytest.MonkeyPatch, without_the_gone: Callable[..., Until], part: int, gone: str
) -> None:
    tag_falsely(played, monkeypatch, part)
    if gone:
        played.close_helper(gone)
    played.propose("pilot", length=LENGTH)
    status = played.play("pilot", until=without_the_gone())
    assert (status["state"], status["reason"]) == ("finished", "")
    first, *later = status["checkpoints"]
    assert LIAR in first["lost"] and "not those that they tagged" in first["lost"]
    assert list(first["without"]) == [LIAR]
    assert all(checkpoint["sites"] == ["site-0", "site-2", "site-3"] for checkpoint in later)


def test_a_helper_that_accuses_an_honest_hospital_is_not_believed_while_the_other_answers(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = PadCustody.answer

    def lying(custody: PadCustody, listed: Any, name: str) -> Any:
        if name == H:
            raise BadPads([LIAR], "are not those that they tagged when they signed the list")
        return real(custody, listed, name)

    monkeypatch.setattr(PadCustody, "answer", lying)
    played.propose("pilot", length=LENGTH)
    status = played.play("pilot")
    assert (status["state"], status["reason"]) == ("finished", "")
    assert all(checkpoint["sites"] == [f"site-{i}" for i in range(4)] for checkpoint in status["checkpoints"])
