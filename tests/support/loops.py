"""A played consortium whose hospitals also carry threads, and whose people decide."""

from __future__ import annotations

import datetime as dt
from typing import Any

from support.played import Played

from datasites.hospital.thread import Thread
from datasites.review.accounts import Account
from datasites.review.endings import RETURNED, Endings
from datasites.study.proposal import Proposal
from datasites.study.signing import dump, seal
from privacy.canonical import sha256_hex
from privacy.identity import Identity

SITES, LENGTH = 4, 40


class Loops(Played):
    """A played consortium whose hospitals also carry threads, and whose people decide."""

    def request(self, study: str, **settings: Any) -> Proposal:
        """Register a study and put it before every hospital; nobody has decided yet."""
        proposal = self.propose(study, approve=False, length=LENGTH, **settings)
        for hospital in self.hospitals:
            (hospital.home.folder / "code").mkdir(exist_ok=True)
            signed = seal(self.identity, "proposal", proposal)
            hospital.approvals.receive(signed, hospital.home.folder / "code", now=dt.datetime.now(dt.UTC))
            part = hospital.participant
            endings = Endings(ledger=part.ledger, journal=part.journal, approvals=part.approvals)
            hospital.approvals.thread._release = endings.study_ended
        return proposal

    def steward(self, index: int) -> tuple[Account, Identity]:
        key = Identity.from_seed(bytes.fromhex(sha256_hex(self.names[index].encode())))
        return Account(name=f"steward-{index}", role="steward", public_key=key.public_key), key

    def decide(self, index: int, proposal: Proposal, act: str, words: str = "") -> None:
        """Have one hospital's steward decide, and send what was decided."""
        hospital, (person, key), now = self.hospitals[index], self.steward(index), dt.datetime.now(dt.UTC)
        if act == "approve":
            found = hospital.approvals.approve(
                proposal.proposal_hash, reviewer=person, key=key, now=now, conditions=words
            )
            hospital.client.post_json(f"/studies/{proposal.study}/approvals", dump(found.approval))
        else:
            getattr(hospital.approvals, act)(proposal.proposal_hash, reviewer=person, reason=words, now=now)
        self.carry(index)

    def carry(self, *indices: int) -> None:
        """Let the hospitals (all without numbers) send their words and hear the others'."""
        for index in indices or range(len(self.hospitals)):
            hospital = self.hospitals[index]
            part = hospital.participant
            Thread(client=hospital.client, approvals=part.approvals, journal=part.journal).step()

    def returned(self, index: int) -> list[tuple[list[int], str]]:
        """Return which rounds came back at a hospital, and why."""
        entries = self.hospitals[index].participant.journal.entries(kind=RETURNED)
        return [(e.body["rounds"], e.body["reason"]) for e in entries]

    def state(self, index: int, proposal: Proposal) -> str:
        return self.hospitals[index].approvals.request(proposal.proposal_hash).state

    def kinds(self, index: int, proposal: Proposal) -> list[str]:
        return [w.kind for w in self.hospitals[index].approvals.request(proposal.proposal_hash).words]
