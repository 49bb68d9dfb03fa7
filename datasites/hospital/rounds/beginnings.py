"""A hospital that was started anew: cleared by keyholder and both helpers before it sends an update.

A process cannot tell a restart from a restored copy, which has forgotten that an update of a round was sent. Two
updates of one round could stand in two lists, and both could be read. So a process draws a word at its start, and its
updates carry it. Before the first one it asks keyholder and helpers, who say in which rounds they open no update of
this hospital without that word (:class:`~datasites.study.messages.Clearance`). In every other round it sends nothing.

A study whose approval people signed since the start needs none of this: no earlier process had a part in it. Proof and
price: docs/decisions/0025-cleared-after-a-start.md.
"""

from __future__ import annotations

import datetime as dt
import secrets
from dataclasses import dataclass, field

from datasites.node.http import SignedClient
from datasites.node.rollback import was_imported
from datasites.review.approvals import ApprovalStore
from datasites.study.messages import Arrival, Clearance, WorkItem
from datasites.study.parties import parse_time
from datasites.study.proposal import Proposal
from datasites.study.signing import dump, open_sealed, seal
from privacy.errors import Refused
from privacy.identity import Identity
from privacy.ledger.journal import Journal

ARRIVAL, CLEARANCE = "arrival", "clearance/"
"""Where a work item's documents lie that are about a hospital's start."""


class NeverInThisRound(Refused):
    """This hospital sends no update in a round, whoever asks; the orchestrator hears it, and need not wait for it."""


def require_never_sent(journal: Journal, study: str, number: int) -> None:
    """Check that no update of a round was made that is gone from here: a second one would have other noise.

    Raises:
        NeverInThisRound: one was.
    """
    if was_imported(journal, study, number):
        raise NeverInThisRound(f"round {number} was sent before a restore; it is never trained a second time")
    if (study, number) in journal.by_round("update-encrypted"):
        raise NeverInThisRound(f"round {number} was trained here, and its update is gone; it is not done twice")


@dataclass(kw_only=True)
class Beginning:
    """One start of a hospital's process.

    ``at`` is its time, never earlier than the journal's newest entry; ``cleared`` are clearances by study and party.
    """

    at: dt.datetime | None = None
    word: str = field(default_factory=lambda: secrets.token_hex(16))
    cleared: dict[tuple[str, str], Clearance] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Clearing:
    """Has a hospital cleared for the rounds of a study."""

    site: str
    client: SignedClient
    approvals: ApprovalStore
    identity: Identity
    beginning: Beginning

    def word(self, proposal: Proposal) -> str:
        """Return the word that an update carries; none in studies from before there were clearances."""
        return self.beginning.word if proposal.helpers and proposal.protocol >= 3 else ""

    def is_cleared(self, proposal: Proposal, item: WorkItem) -> bool:
        """Return whether an update may be sent in a round; False where it was asked for and the item comes once more.

        Args:
            proposal: the study's.
            item: of kind ``train``; the orchestrator shows it again with what the others said.

        Raises:
            Refused: somebody is not there to clear this hospital.
            NeverInThisRound: somebody cannot clear it for this round.
            InvalidInput, Tampered: a clearance is not signed by its party.
        """
        if not self.word(proposal) or self._approved_since(proposal):
            return True
        self._take(proposal, item)
        parties = (proposal.keyholder, *proposal.helpers)
        missing = [p.name for p in parties if (proposal.study, p.name) not in self.beginning.cleared]
        if missing and not self._was_asked(item):
            arrival = Arrival(study=item.study, site=self.site, begun=self.beginning.word)
            path = f"/studies/{item.study}/rounds/{item.round}/arrival"
            self.client.post_json(path, dump(seal(self.identity, ARRIVAL, arrival)))
            return False
        if missing:
            raise Refused(
                f"round {item.round}: this hospital was started anew, and {', '.join(missing)} did not say that no "
                "earlier update of it is opened; it takes part again once they are there"
            )
        cleared = self.beginning.cleared
        unknown = [p.name for p in parties if not cleared[(proposal.study, p.name)].covers(item.round)]
        if unknown:
            raise NeverInThisRound(
                f"round {item.round}: this hospital was started anew, and {', '.join(unknown)} cannot know that no "
                "earlier update of it is opened in this round; it takes part in a later one"
            )
        return True

    def _approved_since(self, proposal: Proposal) -> bool:
        """Say whether people approved the study in this process: no earlier one has sent anything in it."""
        approval = self.approvals.request(proposal.proposal_hash).approval
        if approval is None or not approval.payload["reviewers"] or self.beginning.at is None:
            return False
        return parse_time(str(approval.payload["approved"])) > self.beginning.at

    def _was_asked(self, item: WorkItem) -> bool:
        shown = item.documents.get(ARRIVAL)
        return shown is not None and shown.payload.get("begun") == self.beginning.word

    def _take(self, proposal: Proposal, item: WorkItem) -> None:
        """Keep the clearances that come with an item; the first of each party counts for the whole process."""
        for party in (proposal.keyholder, *proposal.helpers):
            signed = item.documents.get(CLEARANCE + party.name)
            if signed is None:
                continue
            said = open_sealed(signed, "clearance", party.public_key, Clearance, since=proposal.canonical)
            if (said.study, said.site, said.begun) == (proposal.study, self.site, self.beginning.word):
                self.beginning.cleared.setdefault((proposal.study, party.name), said)
