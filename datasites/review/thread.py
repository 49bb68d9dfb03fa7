"""The thread of every request at this datasite: own decisions on their way out, and what others said.

The datasite's identity seals each decision of its people as a word; the messenger sends it. Words that come back are
checked and kept. One that ends a study for good closes the request here and returns what was reserved for it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from typing import Any

from datasites.review.records import Decision, ReviewRecords
from datasites.study.proposal import Proposal
from datasites.study.signing import Signed, parse, seal
from datasites.study.text import shortened, spans
from datasites.study.thread import LONGEST, WORD, SiteKind, Word, open_word
from privacy.errors import InvalidInput
from privacy.identity import Identity
from privacy.sentences import say

_KINDS: dict[str, SiteKind] = {
    "approved": "approved",
    "approved-automatically": "approved",
    "denied": "denied",
    "changes-requested": "asked",
    "revoked": "revoked",
    "returned": "returned",
    "failed": "failed",
    "continued": "continued",
}
_CLOSED = frozenset({"denied", "revoked", "ended"})


class ThreadHere:
    """Words of one datasite, kept with its approvals.

    Args:
        records: the rows.
        site: this datasite's name.
        identity: its key, which seals its words.
        record: the journal's ``append``.
        release: gives back what was reserved for a proposal and never charged, with the reason.
    """

    def __init__(
        self,
        records: ReviewRecords,
        *,
        site: str,
        identity: Identity,
        record: Callable[[str, dict[str, Any]], object],
        release: Callable[[str, str], object] | None,
    ) -> None:
        self._records, self._site, self._identity = records, site, identity
        self._record, self._release = record, release

    def release(self, proposal_hash: str, reason: str) -> None:
        """Give back what was reserved for a proposal and never charged; nothing can run under it any more."""
        if self._release is not None:
            self._release(proposal_hash, reason)

    def say(self, proposal: Proposal, decision: Decision) -> None:
        """Seal a decision as a word, inside the transaction that makes it; a single signature is no decision yet."""
        kind = _KINDS.get(decision.kind)
        if kind is None:
            return
        hashed = proposal.proposal_hash
        own = [w for w in self._records.words(hashed) if w.author == self._site]
        word = Word(
            study=proposal.study,
            proposal_hash=hashed,
            author=self._site,
            number=len(own) + 1,
            kind="conditions" if decision.kind == "approved" and decision.reason else kind,
            person=decision.person,
            text=decision.reason,
            at=decision.at,
            titled=decision.titled,
        )
        self._records.add_word(hashed, word, seal(self._identity, WORD, word))

    def say_returned(self, proposal_hash: str, rounds: Sequence[int], by: str, reason: str, at: str) -> None:
        """Tell the scientist once which rounds of a study went back uncharged here at ``at``, and why.

        Nothing is said about an unknown proposal, nor twice about one release.
        """
        try:
            proposal = self._records.request(proposal_hash).proposal
        except InvalidInput:
            return
        text = shortened(
            say("rounds {rounds} were not charged: {reason}", rounds=spans(rounds), reason=reason), LONGEST
        )
        with self._records.transaction():
            said = [w for w in self._records.words(proposal_hash) if w.author == self._site and w.kind == "returned"]
            if (text, at) not in [(word.text, word.at) for word in said]:
                self.say(proposal, Decision(kind="returned", person=by, reason=text, at=at))

    def say_failed(self, proposal_hash: str, round_: int, *, now: dt.datetime) -> None:
        """Tell the scientist once that a round failed here, and that people look at it; never why it failed."""
        text = say(
            "Round {number} failed here. No further round is charged before our people have looked at it.",
            number=round_,
        )
        self._say_once(proposal_hash, Decision(kind="failed", person=self._site, reason=text, at=now.isoformat()))

    def say_continued(
        self, proposal_hash: str, rounds: Sequence[int], *, by: str, reason: str, now: dt.datetime
    ) -> None:
        """Tell the scientist that the study goes on here after failed rounds, with what a person says about it."""
        text = shortened(say("after round {rounds}: {reason}", rounds=spans(rounds), reason=reason), LONGEST)
        self._say_once(proposal_hash, Decision(kind="continued", person=by, reason=text, at=now.isoformat()))

    def _say_once(self, proposal_hash: str, decision: Decision) -> None:
        try:
            proposal = self._records.request(proposal_hash).proposal
        except InvalidInput:
            return
        with self._records.transaction():
            own = [(w.kind, w.text) for w in self._records.words(proposal_hash) if w.author == self._site]
            if (decision.kind, decision.reason) not in own:
                self.say(proposal, decision)

    def decline(self, proposal: Proposal, reason: str, *, now: dt.datetime) -> bool:
        """Tell the scientist that a proposal was not even taken for review, so that the study cannot start.

        Nothing is said, and False returned, about one that is here, was declined before, or does not name this
        datasite under its own key.
        """
        hashed = proposal.proposal_hash
        own = [p for p in proposal.participants if p.name == self._site and p.public_key == self._identity.public_key]
        if not own or self._records.words(hashed) or self._records.has(hashed):
            return False
        text = shortened(f"It could not be taken for review: {reason}", LONGEST)
        with self._records.transaction():
            self.say(proposal, Decision(kind="denied", person=self._site, reason=text, at=now.isoformat()))
        return True

    def unsent(self) -> tuple[tuple[str, Signed], ...]:
        """Return own words that the orchestrator has not taken yet, with their proposal's hash."""
        return self._records.unsent_words(self._site)

    def taken(self, proposal_hash: str, signed: Signed, place: int) -> None:
        """Note that the orchestrator has taken an own word, as the ``place``-th of the study's thread."""
        with self._records.transaction():
            self._records.add_word(proposal_hash, parse(Word, dict(signed.payload)), signed, max(1, place))

    def last_place(self, proposal_hash: str) -> int:
        """Return how far the orchestrator's thread of a study is known here."""
        return self._records.last_place(proposal_hash)

    def hear(self, proposal_hash: str, signed: Signed, place: int, *, now: dt.datetime) -> Word:
        """Keep a word of the orchestrator's thread; hearing it again changes nothing but its place.

        Raises:
            InvalidInput, Tampered: not a word of this study, or not its author's.
        """
        if place < 1:
            raise InvalidInput(say("expected places from 1 in a thread, got {place}", place=place))
        request = self._records.request(proposal_hash)
        word = open_word(signed, request.proposal)
        with self._records.transaction():
            new = self._records.add_word(proposal_hash, word, signed, place)
            if new:
                self._note(word, closed=request.state in _CLOSED, now=now)
        if new and (word.final or word.kind == "finished" or (word.kind, word.to) == ("dropped", self._site)):
            self.release(proposal_hash, word.sentence)
        return word

    def _note(self, word: Word, *, closed: bool, now: dt.datetime) -> None:
        body = {"study": word.study, "proposal_hash": word.proposal_hash, "author": word.author, "kind": word.kind}
        self._record("word-received", {**body, "text": word.text, "person": word.who})
        kind = "ended" if word.final and not closed else "answered" if word.kind == "answered" else ""
        if kind:
            person = word.person if word.author == word.person else f"{word.person} ({word.author})"
            titled = f"{word.titled} ({word.author})" if word.titled else ""
            decision = Decision(kind=kind, person=person, reason=word.text, at=now.isoformat(), titled=titled)
            self._records.add_decision(word.proposal_hash, decision)
