"""One round, one key, one list: a helper's keys live in memory, so that no kill and no restore brings one back.

A round passes through these states, all of them gone when the process ends::

    (none) --open_round--> open --answer--> answered    its list's pad sums repeat, the private key is gone
                             |--void-->                 open, but never for the lists that were declared void
                             `--forget-->               (none): another key may be made, which opens no old seed

A helper that was started anew since it made a round's key holds nothing of that round. The other helper answers.

    >>> custody = PadCustody(identity.public_key)
    >>> key = custody.open_round(proposal, 1, "helper-north")
    >>> sums, body = custody.answer(check_list(proposal, round_key, request), "helper-north")
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from datasites.keyholder.checks import CheckedList
from datasites.keyholder.opened import open_parts, own_parts, parts_of, require_vouched
from datasites.keyholder.vouched import OwnParts, commit_to
from datasites.study.messages import HelperKey, PadCommitment, PadSums
from datasites.study.proposal import Proposal
from privacy.canonical import sha256_hex
from privacy.encryption import pads, shares
from privacy.errors import Refused


@dataclass
class _Round:
    """What is held of one round; ``private`` is gone once there is an answer."""

    key: HelperKey
    private: bytes = field(repr=False)
    voided: set[str] = field(default_factory=set)
    opened: tuple[str, OwnParts] | None = field(default=None, repr=False)
    answer: tuple[PadSums, bytes] | None = None


class PadCustody:
    """The round keys and answers of one helper, for as long as its process lives.

    Args:
        public_key: the helper's identity, which sites seal to as well.
    """

    def __init__(self, public_key: str) -> None:
        self._holder = public_key
        self._rounds: dict[tuple[str, int], _Round] = {}
        self._lock = threading.RLock()

    def open_round(self, proposal: Proposal, number: int, name: str) -> HelperKey:
        """Return a round's key, made at the first call of this process; the keys of rounds long over are destroyed.

        Args:
            proposal: as :func:`datasites.keyholder.checks.check_study` returned it.
            number: the round, 1 to ``proposal.rounds``.
            name: this helper's name in the study.

        Raises:
            Refused: no such round, or not a helper of this study.
        """
        parts_of(proposal, name)
        if not 1 <= number <= proposal.rounds:
            raise Refused(f"expected a round between 1 and {proposal.rounds}, got {number}")
        with self._lock:
            for study, earlier in [place for place in self._rounds if place[0] == proposal.study]:
                if earlier < number - 1:  # the key of the next round is made while this one runs
                    del self._rounds[(study, earlier)]
            found = self._rounds.get((proposal.study, number))
            if found is None:
                pair = pads.generate_pad_key(hybrid=True)
                key = HelperKey(
                    study=proposal.study,
                    proposal_hash=proposal.proposal_hash,
                    round=number,
                    helper=name,
                    pad_key=pair.public,
                )
                found = self._rounds[(proposal.study, number)] = _Round(key=key, private=pair.private)
            if found.key.proposal_hash != proposal.proposal_hash:
                raise Refused(f"round {number} has a key for another proposal of the same name")
            return found.key

    def void(self, study: str, number: int, list_hash: str) -> HelperKey:
        """Bind this helper never to answer a list with the key it holds, and return that key; twice does no harm.

        It may have held another key of the round before, and have answered the list with that one: whoever sealed to
        that key does not count this void.

        Raises:
            Refused: the list was answered, or nothing is held of the round: then it may have been.
        """
        with self._lock:
            found = self._held(study, number)
            if found.answer is not None and found.answer[0].list_hash == list_hash:
                raise Refused(f"round {number}: this list was answered; it cannot be void")
            found.voided.add(list_hash)
            return found.key

    def answer(self, listed: CheckedList, name: str) -> tuple[PadSums, bytes]:
        """Return the answer to a list, the same one again for the same list; any other list is refused for ever.

        Returns:
            The hashes of this helper's two pad sums, and the bytes of the sum that the keyholder lacks.

        Raises:
            BadPads: a listed site's seeds do not open, or are not those it signed for or tagged; nothing is bound.
            Refused: another list was answered, this one is void, or nothing is held of the round.
        """
        proposal, plan, list_hash = listed.proposal, listed.plan, listed.commitments.list_hash
        with self._lock:
            found = self._held(proposal.study, plan.round)
            if list_hash in found.voided:
                raise Refused(f"round {plan.round}: this list was declared void and is never answered")
            if found.answer is None:
                found.answer = self._sums(listed, name, found)
                found.private, found.opened = b"", None
            if found.answer[0].list_hash != list_hash:
                raise Refused(f"round {plan.round} was answered with another list; one list per round")
            return found.answer

    def commit(self, listed: CheckedList, name: str) -> PadCommitment:
        """Return what this helper will say about the pads of a list that nobody has signed; it binds no round.

        Raises:
            BadPads: a listed site's seeds do not open, or are not those it signed for.
            Refused: nothing is held of the round, or a list of it was answered.
        """
        with self._lock:
            held = self._held(listed.proposal.study, listed.round)
            if held.answer is not None:
                raise Refused(f"round {listed.round} was answered here; nothing more is said about its pads")
            own = self._own(listed, name, held)
            return commit_to(listed.proposal, listed.commitments, name, own, listed.proposal.encryption)

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

    def forget(self, study: str) -> None:
        """Destroy everything that is held of a study that is over."""
        with self._lock:
            for place in [place for place in self._rounds if place[0] == study]:
                del self._rounds[place]

    def _held(self, study: str, number: int) -> _Round:
        found = self._rounds.get((study, number))
        if found is None:
            raise Refused(
                f"this helper holds nothing of round {number}: it was started anew since, or the round is long over"
            )
        return found
