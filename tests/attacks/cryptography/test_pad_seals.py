"""Seeds that go astray: sealed to the wrong holder, different for two holders, under weak or foreign keys.

Played: a hospital that seals other seeds to a helper than to the keyholder, or copies another's; an orchestrator that
gives a hospital no helper's key, its own, one of another round, or the keyholder's without ML-KEM; helpers that are not
in the roster, or not independent; a header written to make keyholder and helpers fail on it for ever.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from support.helped import H, HelpedStage, J

from datasites.hospital.rounds import round_pads
from datasites.hospital.rounds.round_pads import Padded
from datasites.keyholder.checks import check_study
from datasites.study.messages import HelperKey, RoundKey, UpdateHeader
from datasites.study.parties import check_parties
from datasites.study.signing import parse, seal
from privacy.encryption import pads, shares
from privacy.errors import InvalidInput, Refused

ALL = (0, 1, 2, 3)


@pytest.mark.parametrize("victim", [H, J, "keyholder"])
def test_a_hospital_that_seals_other_seeds_to_one_holder_is_named(
    helped: HelpedStage, monkeypatch: pytest.MonkeyPatch, victim: str
) -> None:
    real = round_pads.padded

    def lying(proposal: Any, plan: Any, site: str, keys: Any, blocks: Any) -> Padded:
        padded = real(proposal, plan, site, keys, blocks)
        if site != "site-1":
            return padded
        key = helped.key_of(victim)
        label = pads.PadLabel(study=plan.study, round=plan.round, plan_hash=plan.plan_hash, site=site, holder=key)
        other = shares.joined(shares.new_seeds(), (1, 2))
        if victim == "keyholder":
            return replace(padded, pad=pads.seal_seed(other, keys.round_key.pad_key, label))
        sealed = pads.seal_seed(other, keys.helpers[victim].pad_key, label)
        return replace(padded, helper_pads={**padded.helper_pads, victim: sealed})

    monkeypatch.setattr(round_pads, "padded", lying)
    helped.train_all()
    closed = helped.listed(*ALL)
    assert "the pads of site-1 do not open" in helped.refusal(victim)
    if victim == "keyholder":
        assert closed[1] == []  # nobody has signed; the list is made once more, without site-1
        others = helped.listed(0, 2, 3, closing=2)
        assert helped.read(others) is not None
    else:
        assert len(closed[1]) == 4
        assert helped.ask_pads(victim, closed) is None
        assert helped.read(closed, J if victim == H else H) is not None  # the other helper can read all


def test_a_seed_copied_from_another_header_opens_nowhere(helped: HelpedStage, monkeypatch: pytest.MonkeyPatch) -> None:
    real, first = round_pads.padded, list[Padded]()

    def copying(proposal: Any, plan: Any, site: str, keys: Any, blocks: Any) -> Padded:
        first.append(real(proposal, plan, site, keys, blocks))
        if site != "site-3":
            return first[-1]
        return replace(first[-1], helper_pads=first[0].helper_pads, seed_hashes=first[0].seed_hashes, pad=first[0].pad)

    monkeypatch.setattr(round_pads, "padded", copying)
    helped.train_all()
    assert helped.listed(*ALL)[1] == []
    for name in ("keyholder", H, J):
        assert "the pads of site-3 do not open" in helped.refusal(name)


def _small_order(sealed: str) -> str:
    """Return a sealed seed whose X25519 half is a point of small order."""
    raw = bytes.fromhex(sealed)
    return (raw[:1088] + bytes(32) + raw[1120:]).hex()


WRITTEN: dict[str, Callable[[UpdateHeader], UpdateHeader]] = {
    "hashes beyond ASCII": lambda h: replace(h, seed_hashes=("\u00e9" * 64,) * 3),
    "empty hashes": lambda h: replace(h, seed_hashes=("",) * 3),
    "hashes in capitals": lambda h: replace(h, seed_hashes=tuple(s.upper() for s in h.seed_hashes)),
    "a hash with a line end": lambda h: replace(h, seed_hashes=tuple(f"{s}\n" for s in h.seed_hashes)),
    "a point of small order": lambda h: replace(h, pad=_small_order(h.pad)),
    "a seed beyond ASCII": lambda h: replace(h, pad="\u00e9" * len(h.pad)),
    "a seed of NULs": lambda h: replace(h, pad="\0" * len(h.pad)),
    "a seed with a space": lambda h: replace(h, pad=f" {h.pad[:-1]}"),
    "no helper": lambda h: replace(h, helper_pads={}),
    "a helper more": lambda h: replace(h, helper_pads={**h.helper_pads, "helper-2": h.pad}),
    "a block twice": lambda h: replace(h, blocks=h.blocks * 2),
}


@pytest.mark.parametrize("how", WRITTEN)
def test_a_header_made_to_fail_on_is_refused_by_keyholder_and_helpers(helped: HelpedStage, how: str) -> None:
    """Played: an error that nobody expects stops the one loop of a keyholder, and with it all studies it serves."""
    helped.train_all()
    own = parse(UpdateHeader, dict(helped.updates["site-1"].payload))
    key = helped.consortium.hospitals[1].home.identity()
    documents = helped.answers(helped.listed(*ALL))
    helped.updates["site-1"] = seal(key, "update", WRITTEN[how](own))
    closed = helped.listed(*ALL, asked=())
    lied = (closed[0], [helped.forged(i, closed) for i in ALL])
    assert helped.decrypt(*lied, documents=documents) is None
    for name in (H, J):
        assert helped.ask_pads(name, lied) is None


def own_helper_key(stage: HelpedStage, name: str, **changes: Any) -> HelperKey:
    return replace(parse(HelperKey, dict(stage.helper_keys[f"key/{name}"].payload)), **changes)


def test_without_a_helpers_key_no_hospital_trains(helped: HelpedStage) -> None:
    helped.helper_keys = {}
    assert not helped.train(0)
    assert "no helper's key came with the plan" in helped.refusal("site-0")


def test_a_helper_key_of_the_orchestrators_own_is_refused(helped: HelpedStage) -> None:
    pair = pads.generate_pad_key(hybrid=True)
    forged = own_helper_key(helped, H, pad_key=pair.public)
    helped.helper_keys[f"key/{H}"] = seal(helped.liar.identity, "helper-key", forged)
    assert not helped.train(0)
    assert "carries another key than the one expected" in helped.refusal("site-0")


@pytest.mark.parametrize("changes", [{"round": 2}, {"study": "another"}, {"helper": J}, {"proposal_hash": "0" * 64}])
def test_a_helper_key_of_another_round_or_helper_is_refused(helped: HelpedStage, changes: dict[str, Any]) -> None:
    key = helped.consortium.homes[H].identity()
    helped.helper_keys[f"key/{H}"] = seal(key, "helper-key", own_helper_key(helped, H, **changes))
    assert not helped.train(0)
    assert f"the key of {H} is for another study or round" in helped.refusal("site-0")


@pytest.mark.parametrize("whose", ["keyholder", H])
def test_a_key_without_the_lattice_half_is_refused(helped: HelpedStage, whose: str) -> None:
    weak = pads.generate_pad_key().public
    identity = helped.consortium.homes[whose].identity()
    if whose == "keyholder":
        key = replace(parse(RoundKey, dict(helped.key.payload)), pad_key=weak)
        assert not helped.train(0, key=seal(identity, "round-key", key))
    else:  # the other helper alone has seeds sealed to it then (test_useless_helpers.py)
        helped.helper_keys = {f"key/{H}": seal(identity, "helper-key", own_helper_key(helped, H, pad_key=weak))}
        assert not helped.train(0)
    assert "X25519 and ML-KEM-768 together" in helped.refusal("site-0")


def test_with_one_helper_gone_hospitals_seal_to_the_other(helped: HelpedStage) -> None:
    del helped.helper_keys[f"key/{H}"]
    helped.train_all()
    closed = helped.listed(*ALL)
    assert helped.ask_pads(H, closed) is None
    assert helped.read(closed, J) is not None


def test_a_helper_outside_the_roster_is_served_by_nobody(helped: HelpedStage) -> None:
    roster = helped.consortium.roster
    approvals = [seal(helped.liar.identity, "approval", parse(HelperKey, dict(helped.helper_keys[f"key/{H}"].payload)))]
    with pytest.raises(Refused, match="not in the roster that was confirmed here: the study's helpers"):
        check_study(
            seal(helped.liar.identity, "proposal", helped.proposal),
            approvals,
            orchestrator=roster.orchestrator,
            keyholder=roster.keyholder,
            hospitals=roster.sites,
            helpers=roster.helpers[:1],
            now=helped.consortium.hospitals[0].participant.journal.now(),
        )


def test_helpers_are_independent_of_one_another_and_of_orchestrator_and_keyholder(helped: HelpedStage) -> None:
    one, two = helped.proposal.helpers
    for institution in (one.institution, " study  OFFICE ", "notary"):
        with pytest.raises(Refused, match="two helpers of different institutions"):
            check_parties(replace(helped.proposal, helpers=(one, replace(two, institution=institution))))
    for changes in ({"name": "site-3"}, {"public_key": helped.proposal.participants[0].public_key}):
        with pytest.raises(Refused, match="a name or a key that somebody else in the study has"):
            check_parties(replace(helped.proposal, helpers=(one, replace(two, **changes))))


def test_a_study_has_two_helpers_or_none_and_publishes_only_with_them(helped: HelpedStage) -> None:
    with pytest.raises(InvalidInput, match="no helpers or two"):
        replace(helped.proposal, helpers=helped.proposal.helpers[:1])
    with pytest.raises(InvalidInput, match="only with helpers"):
        replace(helped.proposal, helpers=())
