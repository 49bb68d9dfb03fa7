"""The orchestrator gives a part of a study to somebody whom people confirmed for another one.

Played: a scientist, a hospital's old partner or a helper as the keyholder, who could read single updates together with
the orchestrator; helpers among the hospitals; a hospital as a helper. All fingerprints were compared and confirmed.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import replace

import pytest
from harness.consortium import Consortium
from harness.proposals import make_participant
from support.helped import H, J, helped_consortium

from datasites.review.accounts import Account
from datasites.study.proposal import Party, Proposal
from datasites.study.signing import seal
from privacy.errors import Refused
from privacy.identity import Identity

__all__ = ["helped_consortium"]
NOW = dt.datetime.now(dt.UTC)
SCIENTIST = Identity.from_seed(b"x" * 32)
STEWARD = Identity.from_seed(b"s" * 32)


def _a_scientist_holds_the_keys(_: Consortium, proposal: Proposal) -> Proposal:
    someone = Party(name="dr-x", institution="University X", public_key=SCIENTIST.public_key)
    return replace(proposal, keyholder=someone)


def _a_helper_holds_the_keys(consortium: Consortium, proposal: Proposal) -> Proposal:
    return replace(proposal, keyholder=consortium.homes[H].party(), helpers=(), published=False, protocol=2)


def _the_keyholder_under_another_name(_: Consortium, proposal: Proposal) -> Proposal:
    return replace(proposal, keyholder=replace(proposal.keyholder, name="key-office"))


def _helpers_take_part(consortium: Consortium, proposal: Proposal) -> Proposal:
    helpers = tuple(make_participant(consortium.homes[name].party()) for name in (H, J))
    real = proposal.participants[:2]
    return replace(proposal, participants=(*real, *helpers), helpers=(), published=False, protocol=2)


EXCHANGES: dict[str, tuple[Callable[[Consortium, Proposal], Proposal], str]] = {
    "a scientist holds the keys": (_a_scientist_holds_the_keys, "the study's keyholder is dr-x"),
    "a helper holds the keys": (_a_helper_holds_the_keys, "the keyholder's institution"),
    "the keyholder under another name": (_the_keyholder_under_another_name, "the study's keyholder is key-office"),
    "helpers take part": (_helpers_take_part, "2 of the study's hospitals are not in the roster"),
}


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_nobody_gets_a_part_that_the_roster_does_not_give(helped_consortium: Consortium, exchange: str) -> None:
    change, reason = EXCHANGES[exchange]
    hospital, person = helped_consortium.hospitals[0], Account(name="s", role="steward", public_key=STEWARD.public_key)
    proposal = change(helped_consortium, helped_consortium.proposal(f"parts-{len(exchange)}"))
    folder = hospital.home.folder / "code"
    folder.mkdir(exist_ok=True)
    request = hospital.approvals.receive(seal(helped_consortium.identity, "proposal", proposal), folder, now=NOW)
    known = {confirmation.public_key for confirmation in hospital.approvals.confirmations()}
    for party in (proposal.keyholder, *proposal.participants):
        if party.public_key not in known and party.name != hospital.participant.site:
            hospital.approvals.confirm(
                party.public_key, name=party.name, institution=party.institution, person=person, now=NOW
            )
    with pytest.raises(Refused, match=reason):
        hospital.approvals.approve(request.proposal_hash, reviewer=person, key=STEWARD, now=NOW)
