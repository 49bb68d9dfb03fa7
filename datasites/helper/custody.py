"""One round, one key, one list: what a helper has decided lies on disk before anybody is told of it.

A round passes through these states, each durable before anything leaves::

    (none) --open_round--> open --answer--> answered    its list's pad sums repeat; sent, the private key is destroyed
                             |--void-->                 open, but never for the lists that were declared void
                             `--forget-->               over: nothing is held, and no other key is ever made

A process that was started anew cannot know whether its files are an older copy, which lacks an answer or a void. So
under a key from before its start it declares nothing void, and answers only a list that all its hospitals sign once
more and for good, with a word that this start drew (docs/decisions/0022-helpers-started-anew.md).

    >>> custody = PadCustody(home / "rounds-kept", identity)
    >>> key = custody.open_round(proposal, 1, "helper-north")
    >>> sums, body = custody.answer(check_list(proposal, round_key, request), "helper-north")
"""

from __future__ import annotations

import hmac
import secrets
import threading
from dataclasses import dataclass, field
from pathlib import Path

from datasites.helper.round_files import KINDS, RoundFiles
from datasites.keyholder.checks import CheckedList
from datasites.keyholder.opened import (
    FreshWanted,
    Updates,
    clearance_of,
    open_parts,
    own_parts,
    parts_of,
    require_vouched,
)
from datasites.keyholder.vouched import OwnParts, commit_to
from datasites.study.messages import Arrival, Clearance, HelperKey, PadCommitment, PadSums
from datasites.study.proposal import Proposal
from datasites.study.signing import dump, parse
from privacy.canonical import sha256_hex
from privacy.encryption import pads, shares
from privacy.errors import Refused
from privacy.identity import Identity


@dataclass
class _Round:
    """What is held of one round; ``private`` is gone once there is an answer.

    ``made_now`` says that the key was made since this process began, which therefore knows all that was decided.
    ``updates`` are those that this process opens.
    """

    key: HelperKey
    private: bytes = field(repr=False)
    voided: set[str] = field(default_factory=set)
    opened: tuple[str, OwnParts] | None = field(default=None, repr=False)
    answer: tuple[PadSums, bytes] | None = None
    made_now: bool = True
    updates: Updates = field(default_factory=Updates)


class PadCustody:
    """The round keys and answers of one helper.

    Args:
        folder: where they lie; made with mode 0700.
        identity: the helper, whose key sites seal to as well.
    """

    def __init__(self, folder: Path, identity: Identity) -> None:
        self._holder = identity.public_key
        self._files = RoundFiles(folder, identity)
        self._rounds: dict[tuple[str, int], _Round] = {}
        self._newest: dict[str, int] = {}
        self._start = secrets.token_hex(16)
        self._lock = threading.RLock()

    def open_round(self, proposal: Proposal, number: int, name: str) -> HelperKey:
        """Return a round's key, the same at every call; those of rounds long over are destroyed.

        Args:
            proposal: as :func:`datasites.keyholder.checks.check_study` returned it.
            number: the round, 1 to ``proposal.rounds``.
            name: this helper's name in the study.

        Raises:
            Refused: no such round, one that is long over, or not a helper of this study.
        """
        parts_of(proposal, name)
        if not 1 <= number <= proposal.rounds:
            raise Refused(f"expected a round between 1 and {proposal.rounds}, got {number}")
        with self._lock:
            for earlier in self._known(proposal.study):
                if earlier < number - 1:  # the key of the next round is made while this one runs
                    self._drop(proposal.study, earlier)
            found = self._found(proposal.study, number)
            if found is None:
                if number <= self._files.over(proposal.study):
                    raise Refused(f"round {number} is over here and what was held of it is destroyed")
                pair = pads.generate_pad_key(hybrid=True)
                key = HelperKey(
                    study=proposal.study,
                    proposal_hash=proposal.proposal_hash,
                    round=number,
                    helper=name,
                    pad_key=pair.public,
                )
                found = _Round(key=key, private=pair.private)
                self._keep(found)
                self._rounds[(proposal.study, number)] = found
            if found.key.proposal_hash != proposal.proposal_hash:
                raise Refused(f"round {number} has a key for another proposal of the same name")
            return found.key

    def void(self, study: str, number: int, list_hash: str) -> HelperKey:
        """Bind this helper never to answer a list with the key it holds, and return that key; twice does no harm.

        It may have held another key of the round before, and have answered the list with that one: whoever sealed to
        that key does not count this void.

        Raises:
            Refused: the list was answered, or nothing is held of the round, or its key is from before this start: then
                it may have been.
        """
        with self._lock:
            found = self._held(study, number)
            if list_hash in found.voided:
                return found.key
            if not found.made_now:
                raise Refused(f"round {number}: started anew since the key was made; no list of it is declared void")
            if found.answer is not None and found.answer[0].list_hash == list_hash:
                raise Refused(f"round {number}: this list was answered; it cannot be void")
            found.voided.add(list_hash)
            self._keep(found)
            return found.key

    def answer(self, listed: CheckedList, name: str) -> tuple[PadSums, bytes]:
        """Return the answer to a list, the same one again for the same list; any other list is refused for ever.

        Returns:
            The hashes of this helper's two pad sums, and the bytes of the sum that the keyholder lacks.

        Raises:
            BadPads: a listed site's seeds do not open, or are not those it signed for or tagged; nothing is bound.
            FreshWanted: the key is from before this start; nothing is bound.
            Refused: another list was answered, this one is void, or nothing is held of the round.
        """
        proposal, plan, list_hash = listed.proposal, listed.plan, listed.commitments.list_hash
        with self._lock:
            found = self._held(proposal.study, plan.round)
            if list_hash in found.voided:
                raise Refused(f"round {plan.round}: this list was declared void and is never answered")
            if found.answer is None:
                self._require_signed_for_good(found, listed)
                found.updates.see(listed.headers)
                answer = self._sums(listed, name, found)
                self._keep(found, answer)
                found.answer, found.private, found.opened = answer, b"", None
            if found.answer[0].list_hash != list_hash:
                raise Refused(f"round {plan.round} was answered with another list; one list per round")
            return found.answer

    def commit(self, listed: CheckedList, name: str) -> PadCommitment:
        """Return what this helper will say about the pads of a list that nobody has signed; it binds no round.

        Raises:
            BadPads: a listed site's seeds do not open, are not those it signed for, or are others than it sealed for an
                earlier list of the round.
            Refused: nothing is held of the round, a list of it was answered, or a later round has begun.
        """
        with self._lock:
            held = self._held(listed.proposal.study, listed.round)
            if held.answer is not None:
                raise Refused(f"round {listed.round} was answered here; nothing more is said about its pads")
            if listed.round < self._newest.get(listed.proposal.study, 0):
                raise Refused(f"round {listed.round} is over: a list of a later one was shown here")
            own = self._own(listed, name, held)
            held.updates.see(listed.headers)
            self._newest[listed.proposal.study] = listed.round
            return commit_to(listed.proposal, listed.commitments, name, own, listed.proposal.encryption)

    def clear(self, arrival: Arrival, name: str) -> Clearance:
        """Bind this helper to open no update of a hospital that was sent before it was started anew, and say so.

        Left out are the rounds of which that is not known: such an update was opened, the round was answered or is
        over, or its key is from before this start.
        """
        study = arrival.study
        with self._lock:
            without = set(range(1, self._files.over(study) + 1))
            for number in self._known(study):
                held = self._found(study, number)
                if held is None or not held.made_now or held.answer is not None or not held.updates.clear(arrival):
                    without.add(number)
            return clearance_of(arrival, name, without)

    def _require_signed_for_good(self, held: _Round, listed: CheckedList) -> None:
        """Under a key from before this start, want the list signed once more: an older copy knows of no answer.

        A hospital that stands in an answered list signs no other one for good
        (docs/decisions/0022-helpers-started-anew.md).
        """
        fresh = any(hmac.compare_digest(word.encode(), self._start.encode()) for word in listed.fresh)
        if not held.made_now and not fresh:
            raise FreshWanted(listed.round, self._start, "this helper")

    def _own(self, listed: CheckedList, name: str, held: _Round) -> OwnParts:
        """Return this helper's parts of a list: its seeds and their sums, kept until the round is answered."""
        list_hash, proposal = listed.list_hash, listed.proposal
        if held.opened is None or held.opened[0] != list_hash:
            label = pads.PadLabel(
                study=proposal.study,
                round=listed.plan.round,
                plan_hash=listed.plan.plan_hash,
                site="",
                holder=self._holder,
            )
            sealed = {site: header.helper_pads.get(name, "") for site, header in listed.headers.items()}
            seeds = open_parts(listed.headers, sealed, parts_of(proposal, name), held.private, label)
            held.opened = list_hash, own_parts(proposal, listed.contributors, seeds)
        return held.opened[1]

    def _sums(self, listed: CheckedList, name: str, held: _Round) -> tuple[PadSums, bytes]:
        own = self._own(listed, name, held)
        require_vouched(listed.proposal, listed.vouched, listed.headers, own)
        sums = {part: shares.to_bytes(total) for part, total in own.sums.items()}
        answer = PadSums(
            study=listed.proposal.study,
            round=listed.plan.round,
            list_hash=listed.commitments.list_hash,
            helper=name,
            parts={str(part): sha256_hex(data) for part, data in sums.items()},
            salt=own.salt(listed.proposal, shares.MISSING_PART, listed.list_hash).hex(),
        )
        return answer, sums[shares.MISSING_PART]

    def destroy_key(self, study: str, number: int) -> None:
        """Destroy the private key of a round that is answered; it waits on disk until the answer was sent."""
        with self._lock:
            if self._held(study, number).answer is not None:
                self._files.destroy(study, number, "key")

    def forget(self, study: str) -> None:
        """Destroy everything that is held of a study that is over."""
        with self._lock:
            for number in self._known(study):
                self._drop(study, number)
            self._newest.pop(study, None)

    def _held(self, study: str, number: int) -> _Round:
        found = self._found(study, number)
        if found is None:
            raise Refused(
                f"this helper holds nothing of round {number}: it made no key for it, or the round is long over"
            )
        return found

    def _found(self, study: str, number: int) -> _Round | None:
        """Return what is held of a round, from memory or as an earlier process left it on disk."""
        place = study, number
        if place not in self._rounds:
            for kind in KINDS:  # an answer first: a crash may have left its key behind
                kept = self._files.load(study, number, kind)
                if kept is not None:
                    answer = (parse(PadSums, kept.values["sums"]), kept.body) if kind == "answer" else None
                    if answer is not None:  # a crash came before its key was destroyed
                        self._files.destroy(study, number, "key")
                    self._rounds[place] = _Round(
                        key=parse(HelperKey, kept.values["key"]),
                        private=b"" if answer else kept.body,
                        voided=set(kept.values["voided"]),
                        answer=answer,
                        made_now=False,
                    )
                    break
        return self._rounds.get(place)

    def _keep(self, held: _Round, answer: tuple[PadSums, bytes] | None = None) -> None:
        """Write down what is held of a round, durably."""
        answer = answer or held.answer
        study, number = held.key.study, held.key.round
        values = {"key": dump(held.key), "voided": sorted(held.voided)}
        if answer is None:
            self._files.store(study, number, "key", values, held.private)
        else:
            self._files.store(study, number, "answer", {**values, "sums": dump(answer[0])}, answer[1])

    def _known(self, study: str) -> set[int]:
        return self._files.rounds(study) | {number for name, number in self._rounds if name == study}

    def _drop(self, study: str, number: int) -> None:
        self._files.note_over(study, number)  # first: no other key of the round is ever made
        self._rounds.pop((study, number), None)
        self._files.destroy(study, number, *KINDS)
