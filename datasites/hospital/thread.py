"""The thread of every study, carried: own words go to the orchestrator until it has taken them, its words come here."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from datasites.node.http import SignedClient
from datasites.review.approvals import ApprovalStore
from datasites.review.records import Request
from datasites.study.proposal import Proposal
from datasites.study.signing import Signed, dump, parse
from privacy.errors import InvalidInput, Refused, TesseraError
from privacy.ledger.journal import Journal

_LOOK_SECONDS = 3.0
_AGAIN_SECONDS = 10.0


@dataclass(kw_only=True)
class Thread:
    """Sends what this datasite's people said and fetches what concerns it; a failing network is tried again.

    ``forget`` deletes the models of a study once its orchestrator has deleted its own.
    """

    client: SignedClient
    approvals: ApprovalStore
    journal: Journal
    forget: Callable[[Proposal], object] = lambda _: None
    _looked: float = float("-inf")
    _declined: dict[str, float] = field(default_factory=dict)
    _passed: dict[str, int] = field(default_factory=dict)

    def step(self) -> None:
        """Send what was not taken yet; every few seconds look for what is new."""
        for proposal_hash, signed in self.approvals.thread.unsent():
            self._send(proposal_hash, signed)
        if time.monotonic() - self._looked >= _LOOK_SECONDS:
            self._looked = time.monotonic()
            self.look()

    def look(self) -> None:
        """Fetch every new word of the studies that were proposed here.

        Raises:
            TesseraError: the orchestrator does not answer.
        """
        requests = self.approvals.requests()
        if not requests:
            return
        known = {r.proposal_hash: r for r in requests}
        for study, shown in self.client.get_json("/words").items():
            request = known.get(str(shown["proposal_hash"]))
            if request is not None and int(shown["last"]) > self._seen(request.proposal_hash):
                self._fetch(str(study), request)

    def _seen(self, proposal_hash: str) -> int:
        return max(self.approvals.thread.last_place(proposal_hash), self._passed.get(proposal_hash, 0))

    def _fetch(self, study: str, request: Request) -> None:
        hashed = request.proposal_hash
        for item in self.client.get_json(f"/studies/{study}/words?since={self._seen(hashed)}"):
            place = int(item["place"])
            try:
                signed, now = parse(Signed, item["word"]), dt.datetime.now(dt.UTC)
                if self.approvals.thread.hear(hashed, signed, place, now=now).kind == "deleted":
                    self.forget(request.proposal)
            except TesseraError as error:  # a lie is journaled once; what comes after it is read all the same
                self.journal.append("word-refused", {"study": study, "place": place, "reason": str(error)[:500]})
            self._passed[hashed] = place

    def _send(self, proposal_hash: str, signed: Signed) -> None:
        mark = signed.signature
        if time.monotonic() < self._declined.get(mark, 0.0):
            return
        study = str(signed.payload["study"])
        try:
            answer = self.client.post_json(f"/studies/{study}/words", dump(signed))
        except (Refused, InvalidInput) as error:
            if mark not in self._declined:
                self.journal.append("word-unwanted", {"study": study, "reason": str(error)[:500]})
            self._declined[mark] = time.monotonic() + _AGAIN_SECONDS
            return
        self.approvals.thread.taken(proposal_hash, signed, int(answer["place"]))
