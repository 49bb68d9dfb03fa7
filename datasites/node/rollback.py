"""A datasite that was restored from an old backup notices it, and does no work until a person imported the gap.

The orchestrator gives back every update header that this site signed, each with the heads of journal and ledger of
that moment. A head that the present files lack says that they are older than what the world has seen. Nothing here
needs trust in the orchestrator: the headers carry this site's own signature; it can only keep some back.

What all three roles do about a gap (remember it, say so, refuse to work, let a person import it) is :class:`Gap`.

    >>> standing = Standing(home=home, client=client, ledger=ledger, journal=journal)
    >>> standing.holds()      # asked before any work; False: `standing.trouble` says why
    False
    >>> import_gap(home, by="B. Steward", reason="restored the backup of Monday")
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasites.node.files import write_atomically
from datasites.node.home import Home
from datasites.node.http import SignedClient
from datasites.study.messages import UpdateHeader
from datasites.study.proposal import Proposal
from datasites.study.signing import Signed, open_sealed, parse
from privacy.errors import InvalidInput, Refused
from privacy.ledger.costs import study_cost
from privacy.ledger.journal import Journal
from privacy.ledger.ledger import Ledger

IMPORTED = "gap-imported"
ROLLED_BACK = "rolled-back"
GAP = "gap.json"
_COMMAND = "tessera datasite import-gap --home HOME --by NAME --reason TEXT"


@dataclass(frozen=True, kw_only=True)
class Gap:
    """What a role has shown to others and its own files lack, in one file, until a person has imported it.

    The same for hospital, keyholder and orchestrator; what is evidence, and what an import books, each role knows.
    """

    folder: Path

    @property
    def known(self) -> bool:
        """Whether a gap was noticed and not imported; also known after a restart."""
        return self._path.exists()

    @property
    def trouble(self) -> str:
        """Why this role does no work, as a sentence for its people; or nothing."""
        return str(self.read()["reason"]) if self.known else ""

    def require(self) -> None:
        """Raise Refused while a gap is known."""
        if self.trouble:
            raise Refused(self.trouble)

    def read(self) -> dict[str, Any]:
        """Return the reason and the evidence."""
        return dict(json.loads(self._path.read_bytes()))

    def write(self, value: Mapping[str, Any]) -> None:
        """Keep reason and evidence."""
        write_atomically(self._path, json.dumps(value).encode())

    def notice(self, journal: Journal, reason: str, *, entry: Mapping[str, Any], evidence: Mapping[str, Any]) -> None:
        """Keep a new gap and journal it once, however often it is noticed."""
        if not self.known:
            journal.append(ROLLED_BACK, {"reason": reason, **entry})
            self.write({"reason": reason, **evidence})

    def forget(self) -> None:
        """Remove the file: there is no gap, or none any more."""
        self._path.unlink(missing_ok=True)

    @contextmanager
    def importing(self, *, by: str, reason: str) -> Iterator[dict[str, Any]]:
        """Yield reason and evidence to a person's import, and forget the gap once everything is booked.

        Raises:
            InvalidInput: there is no gap, nobody acts, or no reason is given.
        """
        if not self.known:
            raise InvalidInput(
                "there is no gap to import here; `tessera status` and a hospital's portal say so when one is noticed"
            )
        if not by.strip() or not reason.strip():
            raise InvalidInput("expected who imports the gap, and a reason: both become part of the record")
        yield self.read()
        self.forget()

    @property
    def _path(self) -> Path:
        return self.folder / GAP


@dataclass(frozen=True, kw_only=True)
class SentStudy:
    """One study and the updates of this site in it, oldest first, all signatures checked."""

    proposal: Proposal
    headers: tuple[UpdateHeader, ...]
    evidence: Mapping[str, Any] = field(repr=False)

    @classmethod
    def read(cls, home: Home, item: Mapping[str, Any], own: Collection[str]) -> SentStudy:
        """Read what ``GET /heads`` says about one study; ``own`` are the keys that this site has signed with.

        Raises:
            InvalidInput, Tampered: not a proposal of our orchestrator, or a header that this site did not sign.
        """
        proposal = open_sealed(parse(Signed, item["proposal"]), "proposal", home.orchestrator_keys(), Proposal)
        headers = [open_sealed(parse(Signed, update), "update", own, UpdateHeader) for update in item["updates"]]
        for header in headers:
            if (header.study, header.proposal_hash) != (proposal.study, proposal.proposal_hash):
                raise InvalidInput("expected update headers of the proposal beside them, got those of another one")
        return cls(proposal=proposal, headers=tuple(sorted(headers, key=lambda h: h.round)), evidence=dict(item))


@dataclass
class Standing:
    """Whether this site's chains hold everything that it has shown to others.

    ``trouble`` is empty, or the sentence for the hospital's people.
    """

    home: Home
    client: SignedClient
    ledger: Ledger
    journal: Journal

    @property
    def trouble(self) -> str:
        """Return why this site does no work; known from the file that :meth:`holds` leaves, also after a restart."""
        return self._known_gap.trouble

    @property
    def _known_gap(self) -> Gap:
        return Gap(folder=self.home.folder)

    def require(self) -> None:
        """Raise Refused while a gap is known: nothing is approved, reserved or charged before it is imported."""
        self._known_gap.require()

    def holds(self) -> bool:
        """Ask the orchestrator what this site has shown, and compare; the first thing to do after a start.

        Raises:
            TesseraError: the orchestrator cannot be asked; ask again before working.
        """
        items = self.client.get_json("/heads", max_bytes=1 << 28)
        gaps = [
            gap
            for gap in (self._gap(SentStudy.read(self.home, item, self.journal.public_keys)) for item in items)
            if gap
        ]
        if not gaps:
            self._known_gap.forget()
            return True
        rounds = "; ".join(f"{g['study']} {', '.join(map(str, g['rounds']))}" for g in gaps)
        reason = (
            f"journal or ledger are older than what this site has sent (rounds: {rounds}): they were restored from a "
            f"backup. Restore the newest copy, or import the gap: {_COMMAND}"
        )
        bare = [{name: gap[name] for name in ("study", "proposal_hash", "rounds")} for gap in gaps]
        self._known_gap.notice(self.journal, reason, entry={"gaps": bare}, evidence={"gaps": gaps})
        return False

    def _gap(self, sent: SentStudy) -> dict[str, Any] | None:
        known = set(_imported_heads(self.journal))
        missing = [h for h in sent.headers if not self._holds(h) and (h.journal_head, h.ledger_head) not in known]
        if not missing:
            return None
        rounds = [header.round for header in missing]
        updates = [u for u in sent.evidence["updates"] if u["payload"]["round"] in rounds]
        return {
            "study": sent.proposal.study,
            "proposal_hash": sent.proposal.proposal_hash,
            "rounds": rounds,
            "evidence": {**sent.evidence, "updates": updates},
        }

    def _holds(self, header: UpdateHeader) -> bool:
        return self.journal.contains(header.journal_head) and self.ledger.contains(header.ledger_head)


def import_gap(home: Home, *, by: str, reason: str) -> list[dict[str, Any]]:
    """Book the rounds that journal and ledger have forgotten, as a person's act; return what was booked.

    A round that is still reserved is charged as that round, so it can never be charged twice; where the reservation
    is lost as well, its worst case is booked as an import. Doing it again changes nothing.

    Raises:
        InvalidInput: there is no gap, nobody acts, or no reason is given.
        Tampered: the evidence is not what this site signed.
    """
    with Gap(folder=home.folder).importing(by=by, reason=reason) as gap, ExitStack() as stores:
        identity = home.identity()
        journal = stores.enter_context(closing(Journal(home.folder / "journal.sqlite", identity)))
        ledger = stores.enter_context(closing(Ledger(home.folder / "ledger.sqlite", identity)))
        sent = [SentStudy.read(home, g["evidence"], journal.public_keys) for g in gap["gaps"]]
        booked = [_booked(home, ledger, one, by, reason) for one in sent]
        journal.append(IMPORTED, {"by": by, "reason": reason, "studies": booked})
    return booked


def was_imported(journal: Journal, study: str, number: int) -> bool:
    """Return whether what was sent in this round is known from a gap only: it can never be trained a second time."""
    return any(
        booked["study"] == study and number in booked["rounds"]
        for entry in journal.entries(kind=IMPORTED)
        for booked in entry.body["studies"]
    )


def _booked(home: Home, ledger: Ledger, sent: SentStudy, by: str, reason: str) -> dict[str, Any]:
    proposal, rounds = sent.proposal, [header.round for header in sent.headers]
    lost = []
    for number in rounds:
        try:
            ledger.charge(proposal.proposal_hash, number)
        except Refused:  # no reservation, freed, closed or over the cap: what left is spent all the same
            lost.append(number)
    if lost:
        _import(ledger, proposal, home.config().name, lost, by, reason)
    return {
        "study": proposal.study,
        "proposal_hash": proposal.proposal_hash,
        "rounds": rounds,
        "imported_as_spend": lost,
        "heads": [
            {"round": h.round, "journal_head": h.journal_head, "ledger_head": h.ledger_head} for h in sent.headers
        ],
    }


def _import(ledger: Ledger, proposal: Proposal, site: str, rounds: list[int], by: str, reason: str) -> None:
    dataset = proposal.participant(site).dataset
    population = ledger.population_of(dataset.name, dataset.version)
    listed = ", ".join(map(str, rounds))
    name = f"study {proposal.study} ({proposal.proposal_hash[:12]}), rounds {listed}: missing after a restore"
    if any(posting.name == name for posting in ledger.account(population).imports):
        return
    whole = study_cost(proposal.charged)
    cost = whole.once + whole.of_rounds(rounds)
    ledger.import_spend(population, name=name, cost=cost, by=by, reason=reason)


def _imported_heads(journal: Journal) -> Iterator[tuple[str, str]]:
    for entry in journal.entries(kind=IMPORTED):
        for booked in entry.body["studies"]:
            for head in booked["heads"]:
                yield head["journal_head"], head["ledger_head"]
