"""A keyholder that was restored from an old backup notices it, and answers nothing until a person imported the gap.

A key that lay in the backup is a key again: it could decrypt a second sum of a round, and the difference of two sums
is somebody's update. Three things keep that from happening:

* the orchestrator gives back every key and result that this keyholder signed, and they are compared with the record;
* record and journal are compared with one another, so that neither can be restored alone;
* under a round key from before this start, only a list is answered that its sites sign once more and for good, or that
  both helpers answered (:mod:`datasites.keyholder.custody`): so even where the orchestrator keeps back what it knows.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from typing import Any

from datasites.keyholder.custody import KeyCustody
from datasites.keyholder.served import was_journaled
from datasites.node.home import Home
from datasites.node.http import SignedClient
from datasites.node.rollback import IMPORTED, Gap
from datasites.study.messages import RoundKey, SumResult
from datasites.study.proposal import Proposal
from datasites.study.signing import Signed, dump, open_sealed, parse
from privacy.errors import Refused
from privacy.ledger.journal import Journal

_COMMAND = "tessera keyholder import-gap --home HOME --by NAME --reason TEXT"
_MOST_BYTES = 1 << 28


@dataclass(frozen=True, kw_only=True)
class Signature:
    """A key that this keyholder signed, and the sum it says it decrypted with it, if any."""

    key: RoundKey
    sum_hash: str | None


@dataclass(kw_only=True)
class KeyholderStanding:
    """Whether record and journal hold every key and every answer that was given out.

    ``stands`` says that they were compared since this start, and did.
    """

    home: Home
    client: SignedClient
    custody: KeyCustody
    journal: Journal
    stands: bool = False

    @property
    def trouble(self) -> str:
        """Return why nothing is answered here, or nothing; also known after a restart."""
        return Gap(folder=self.home.folder).trouble

    def holds(self) -> bool:
        """Ask for everything that was signed here, and compare; the first thing to do after a start.

        Raises:
            TesseraError: the orchestrator cannot be asked; ask again before working.
        """
        known = Gap(folder=self.home.folder)
        items = self.client.get_json("/heads", max_bytes=_MOST_BYTES)
        missing = [s for item in items for s in _signed_in(self.home, item, self.journal.public_keys) if self._lacks(s)]
        forgotten = sorted({(s.key.study, s.key.round) for s in missing} | set(self._unlike()))
        self.stands = not forgotten
        if self.stands:
            known.forget()
            return True
        named = "; ".join(f"{study} {number}" for study, number in forgotten)
        reason = (
            f"record or journal of the keyholder are older than what it has signed (rounds: {named}): they were "
            f"restored from a backup. Restore the newest copy, or import the gap: {_COMMAND}"
        )
        rounds = [list(each) for each in forgotten]
        lacking = [{"key": dump(s.key), "sum_hash": s.sum_hash} for s in missing]
        known.notice(self.journal, reason, entry={"rounds": rounds}, evidence={"missing": lacking, "rounds": rounds})
        return False

    def _lacks(self, signature: Signature) -> bool:
        if (signature.key.study, signature.key.round) in self._imported():
            return False
        return self.custody.lacks(signature.key, signature.sum_hash)

    def _unlike(self) -> Iterator[tuple[str, int]]:
        """Yield rounds that the journal says were answered and the record does not, or the other way round."""
        journaled = {(e.body["study"], e.body["round"]): e.body for e in self.journal.entries(kind="decrypted")}
        imported = self._imported()
        for (study, number), body in journaled.items():
            if (study, number) not in imported and self.custody.answered_sum(study, number) != body["sum_hash"]:
                yield study, number
        for study, number in self.custody.answered():
            marked = was_journaled(self.home, f"answer-{study}-{number}")  # else a crash came in between
            if marked and (study, number) not in journaled and (study, number) not in imported:
                yield study, number

    def _imported(self) -> set[tuple[str, int]]:
        entries = self.journal.entries(kind=IMPORTED)
        return {(str(study), int(number)) for entry in entries for study, number in entry.body["rounds"]}


def import_gap(home: Home, *, by: str, reason: str) -> list[tuple[str, int]]:
    """Write every forgotten round down as over, as a person's act: its key is destroyed and it gets no other sum.

    Returns:
        The rounds (study, number). Doing it again after a crash on the way changes nothing.

    Raises:
        InvalidInput: there is no gap, nobody acts, or no reason is given.
    """
    with Gap(folder=home.folder).importing(by=by, reason=reason) as gap, ExitStack() as stores:
        identity = home.identity()
        custody = stores.enter_context(closing(KeyCustody(home.folder / "keys", identity)))
        journal = stores.enter_context(closing(Journal(home.folder / "journal.sqlite", identity)))
        over = set(custody.answered())
        for missing in gap["missing"]:
            key = parse(RoundKey, missing["key"])
            custody.close_round(key, missing["sum_hash"])
            over.add((key.study, key.round))
        rounds = [(str(study), int(number)) for study, number in gap["rounds"]]
        decrypted = {(e.body["study"], e.body["round"]): e.body["sum_hash"] for e in journal.entries(kind="decrypted")}
        for study, number in sorted(set(rounds) - over):  # journal and record disagree: no key stays alive
            with suppress(Refused):  # this record knows no key of it
                custody.close_round(custody.round_key(study, number), decrypted.get((study, number)))
        journal.append(IMPORTED, {"by": by, "reason": reason, "rounds": [list(r) for r in rounds]})
    return rounds


def _signed_in(home: Home, item: dict[str, Any], own: Collection[str]) -> Iterator[Signature]:
    """Read what ``GET /heads`` says about one study; every signature is our own."""
    proposal = open_sealed(parse(Signed, item["proposal"]), "proposal", home.orchestrator_keys(), Proposal)
    results = [open_sealed(parse(Signed, r), "sum-result", own, SumResult) for r in item["results"]]
    sums = {(r.study, r.round): r.sum_hash for r in results}
    for signed in item["keys"]:
        key = open_sealed(parse(Signed, signed), "round-key", own, RoundKey)
        if key.study == proposal.study:
            yield Signature(key=key, sum_hash=sums.get((key.study, key.round)))
