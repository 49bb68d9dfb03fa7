"""The thread of every study at the orchestrator: what hospitals and scientists said, kept in order and acted upon.

Words lie in the store as the documents of round 0 called ``word``, numbered from 1 by ``closing``. A hospital reads the
words that concern it (:meth:`~datasites.study.thread.Word.concerns`); the scientists read all.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from datasites.study.parties import parse_time
from datasites.study.proposal import Proposal
from datasites.study.signing import Signed, dump, parse, seal
from datasites.study.thread import ENDINGS, OVER_FOR_GOOD, WORD, ScientistKind, Word, accepted, conditions_of, open_word
from privacy.errors import Refused

if TYPE_CHECKING:
    from orchestrator.rounds.service import Service
    from orchestrator.rounds.store import Store


def words(store: Store, study: str) -> Iterator[tuple[int, Word]]:
    """Yield the thread of a study with the place of each word, oldest first."""
    for place, document in sealed_words(store, study):
        yield place, parse(Word, document["payload"])


def sealed_words(store: Store, study: str, reader: str = "", since: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the signed words after place ``since``; only those that concern ``reader``, if one is named."""
    for place in range(since + 1, store.count(study, 0, WORD, author="") + 1):
        document = store.document(study, 0, WORD, closing=place)
        if document is not None and (not reader or parse(Word, document["payload"]).concerns(reader)):
            yield place, document


def withdrawn_sites(store: Store, study: str) -> dict[str, str]:
    """Return the hospitals that revoked their approval or were dropped, each with the sentence that says so."""
    found = {}
    for _, word in words(store, study):
        if word.kind in ("revoked", "dropped"):
            found[word.to or word.author] = word.sentence
    return found


def unaccepted(store: Store, study: str) -> set[str]:
    """Return the hospitals whose conditions the scientist has not accepted; the word may come after the approval."""
    known = [word for _, word in words(store, study)]
    stated = {word.author for word in known if word.kind == "conditions"}
    approvals = store.documents(study, 0, "approval")
    stating = {site for site, approval in approvals.items() if conditions_of(approval["payload"])}
    return (stating - stated) | {site for site in stated if not accepted(known, site)}


class Threads:
    """Takes words, acts on them, and writes the orchestrator's own."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._looked: dict[tuple[str, str], tuple[int, int]] = {}  # words that were read, and the last for a reader
        self._hashes: dict[str, str] = {}

    def latest(self, reader: str, *, all_words: bool) -> dict[str, dict[str, Any]]:
        """Return, for every study with words for ``reader``, its proposal's hash and the place of the last one."""
        found, name = {}, "" if all_words else reader
        for study, count in self._service.store.counts(0, WORD).items():
            last = self._last(study, name, count)
            if last:
                found[study] = {"proposal_hash": self._hash(study), "last": last}
        return found

    def _last(self, study: str, reader: str, count: int) -> int:
        """Return the place of the last of ``count`` words for a reader; every hospital asks for it all the time."""
        known, last = self._looked.get((study, reader), (0, 0))
        if count > known:
            last = max((place for place, _ in sealed_words(self._service.store, study, reader, known)), default=last)
            self._looked[study, reader] = (count, last)
        return last

    def _hash(self, study: str) -> str:
        if study not in self._hashes:
            self._hashes[study] = parse(Proposal, dict(self._service.store.study(study)[0].payload)).proposal_hash
        return self._hashes[study]

    async def take(self, study: str, signed: Signed, author: str) -> int:
        """Keep a word that its author sent, act on it, and return its place; the same word again does nothing.

        Raises:
            InvalidInput, Tampered: not a word of this study, or not of this author.
            Refused: another word has this number, or the study is past it.
        """
        store, proposal = self._service.store, self._service.proposal(study)
        _, state, _ = store.study(study)
        word = open_word(signed, proposal)
        if word.author != author:
            raise Refused(f"{author!r} cannot send a word of {word.author!r}")
        known = dict(sealed_words(store, study))
        for place, document in known.items():
            if (document["payload"]["author"], document["payload"]["number"]) == (author, word.number):
                if document["signature"] != signed.signature:
                    raise Refused(f"{author} has said something else as word {word.number} of {study!r}")
                return place
        self._check(word, proposal, state)
        place = self._keep(word, signed)
        await self._act(word, proposal, state)
        return place

    def close(self, study: str) -> None:
        """Write the orchestrator's own last word about a study that is finished or expired, once."""
        store = self._service.store
        _, state, reason = store.study(study)
        last = {word.kind for _, word in words(store, study)} & (ENDINGS | {"finished"})
        if state in OVER_FOR_GOOD and not last:
            self._say(self._service.proposal(study), "finished" if state == "finished" else "ended", reason)

    async def expire(self, now: dt.datetime) -> None:
        """End every paused or failed study whose proposal has expired at ``now``: no hospital would serve it again."""
        for study, signed, state, reason in self._service.store.studies():
            expires = str(signed.payload["expires"])
            if state in ("paused", "failed") and now >= parse_time(expires):
                await self.end(study, "expired", f"the proposal expired at {expires} while it was {state}: {reason}")
                self.close(study)

    def tell(self, study: str, kind: ScientistKind, text: str) -> None:
        """Write a word of the orchestrator's own about a study."""
        self._say(self._service.proposal(study), kind, text)

    async def say_for(
        self, proposal: Proposal, person: str, *, kind: ScientistKind, text: str, to: str, answers: str
    ) -> Word:
        """Write a word for the scientist who asked for a study, act on it, and return it.

        Raises:
            InvalidInput: not a word as hospitals read it.
            Refused: the study is past it.
        """
        word = self._own(proposal, kind, text, person=person, to=to, answers=answers)
        await self.take(proposal.study, seal(self._service.identity, WORD, word), word.author)
        return word

    def _check(self, word: Word, proposal: Proposal, state: str) -> None:
        if word.author != proposal.orchestrator.name:
            return
        running = state in ("running", "paused", "failed")
        if word.kind in ENDINGS and state in OVER_FOR_GOOD:
            raise Refused(f"the study is {state} already")
        if word.kind == "withdrawn" and self._started(word.study):
            raise Refused("rounds of this study have run; `tessera study cancel` ends it")
        if word.kind in ("paused", "resumed") and state in OVER_FOR_GOOD:
            raise Refused(f"the study is {state}; it cannot go on, propose a new one")
        if word.kind == "paused" and state == "paused":
            raise Refused("the study is paused already; `tessera study resume` lets it go on")
        if word.kind == "dropped":
            if not running:
                raise Refused(
                    f"the study is {state}: every hospital it names has to approve it first; propose a new version "
                    "without that hospital (--replaces)"
                )
            gone = {*withdrawn_sites(self._service.store, word.study), word.to}
            if not _enough_left(proposal, gone):
                raise Refused(f"fewer than {proposal.min_sites} hospitals would be left in a sum; cancel the study")

    async def _act(self, word: Word, proposal: Proposal, state: str) -> None:
        service, study = self._service, word.study
        if word.kind in ("withdrawn", "cancelled"):
            await self.end(study, word.kind, word.text)
        elif word.kind == "denied":
            if not self._goes_on_without(proposal):
                await self._end_for_all(proposal, state, "denied", word)
        elif word.kind in ("revoked", "dropped"):
            early = not self._started(study) and state != "running"
            gone = withdrawn_sites(service.store, study)
            if not (self._goes_on_without(proposal) if early else _enough_left(proposal, set(gone))):
                await self._end_for_all(proposal, state, "revoked", word)
            elif study in service.runners:
                service.runners[study].leave_out(word.to or word.author, word.sentence)
        elif word.kind == "paused":
            await service.stop(study)
            service.board.withdraw(study)
            service.store.set_state(study, "paused", f"paused by {word.who}: {word.text}")
        elif word.kind == "resumed":
            service.resume(study)
        elif study in service.runners:
            service.runners[study].wake()

    def _goes_on_without(self, proposal: Proposal) -> bool:
        """Return whether the study may begin without those who have said no: only if its proposal says so."""
        said_no = ("denied", "revoked", "dropped")
        gone = {w.to or w.author for _, w in words(self._service.store, proposal.study) if w.kind in said_no}
        left = len(proposal.participants) - len(gone)
        return 0 < proposal.waits.starts_with <= left and _enough_left(proposal, gone)

    async def _end_for_all(self, proposal: Proposal, state: str, new: str, word: Word) -> None:
        if state not in OVER_FOR_GOOD:
            await self.end(proposal.study, new, word.sentence)
            self._say(proposal, "ended", word.sentence)

    async def end(self, study: str, state: str, reason: str) -> None:
        """End a study for good, without a word of its own in the thread."""
        service = self._service
        await service.stop(study)
        service.store.set_state(study, state, reason)
        service.journal.append("study-ended", {"study": study, "state": state, "reason": reason})
        service.board.withdraw(study)
        service.tell_end(study)

    def _say(self, proposal: Proposal, kind: ScientistKind, text: str) -> None:
        word = self._own(proposal, kind, text)
        self._keep(word, seal(self._service.identity, WORD, word))

    def _own(
        self, proposal: Proposal, kind: ScientistKind, text: str, *, person: str = "", to: str = "", answers: str = ""
    ) -> Word:
        own = proposal.orchestrator.name
        number = 1 + sum(word.author == own for _, word in words(self._service.store, proposal.study))
        return Word(
            study=proposal.study,
            proposal_hash=proposal.proposal_hash,
            author=own,
            number=number,
            kind=kind,
            person=person or own,
            text=text,
            at=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            to=to,
            answers=answers,
        )

    def _keep(self, word: Word, signed: Signed) -> int:
        store = self._service.store
        place = store.count(word.study, 0, WORD, author="") + 1
        store.put_document(word.study, 0, WORD, signed, closing=place)
        self._service.journal.append("word", {"place": place, **dump(word)})
        return place

    def _started(self, study: str) -> bool:
        return self._service.store.last_round(study, "plan") > 0


def _enough_left(proposal: Proposal, gone: set[str]) -> bool:
    """Return whether every exchanged block still has ``min_sites`` institutions without the sites that are gone."""
    return all(
        len(proposal.institutions(set(proposal.contributors(block)) - gone)) >= proposal.min_sites
        for block in proposal.exchanged_blocks()
    )
