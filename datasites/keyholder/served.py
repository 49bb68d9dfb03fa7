"""The studies that a keyholder or a helper serves: checked before every key and every answer, kept once they hold."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from datasites.keyholder.checks import check_study
from datasites.node.files import state_of, write_atomically
from datasites.node.home import Home
from datasites.node.http import SignedClient
from datasites.node.joining.entering import is_unconfirmed
from datasites.node.places import hashed_place, is_of_study
from datasites.study.messages import Arrival, Commitments, PadCommitment, Refusal, Void, WorkItem
from datasites.study.proposal import Proposal
from datasites.study.signing import Signed, dump, open_sealed, parse, seal
from privacy.canonical import sha256_hex
from privacy.errors import InvalidInput, Refused
from privacy.ledger.journal import Journal

_SHORT_DIGITS = 32
_WORD = re.compile("[0-9a-f]{32}")


@dataclass(frozen=True, kw_only=True)
class _Status:
    """A study's signed proposal, and what its participants signed, by their names; nothing of it is checked."""

    proposal: Signed
    approvals: Mapping[str, Signed]

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> _Status:
        approvals = {str(name): parse(Signed, document) for name, document in said["approvals"].items()}
        return cls(proposal=parse(Signed, said["proposal"]), approvals=approvals)

    @classmethod
    def kept(cls, path: Path) -> _Status | None:
        """Return what lies in a file; it is asked for many times in a round, and parsed when it has changed."""
        return _kept(path, state_of(path)) if path.exists() else None


@lru_cache(maxsize=32)
def _kept(path: Path, _: tuple[int, ...]) -> _Status:
    return _Status.of(json.loads(path.read_bytes()))


@dataclass(frozen=True, kw_only=True)
class Served:
    """The studies of one keyholder or helper."""

    home: Home
    client: SignedClient
    journal: Journal

    def study(self, study: str, listed: Signed | None = None) -> Proposal:
        """Return the proposal of ``study`` after checking that every participant has approved it.

        In a study that begins before all have approved it, enough of them, and everybody in the list.

        Args:
            study: its name.
            listed: the list of a round.

        Raises:
            Refused: it cannot be served; says why.
        """
        if is_unconfirmed(self.home):  # first: nothing that the orchestrator sends is even read
            raise Refused(
                "nobody here has compared the fingerprints of the roster that the orchestrator sent; compare them by "
                "telephone, then: tessera confirm-roster --by NAME"
            )
        sites = {str(u["payload"]["site"]) for u in _updates(listed)}
        path = hashed_place(
            self.home.folder / "studies",
            study,
            ".json",
            is_of=lambda old: is_of_study(old, study, "proposal", "payload", "study"),
        )
        kept = _Status.kept(path)
        joined = kept is not None and "patience" in kept.proposal.payload and not sites <= set(kept.approvals)
        status = kept
        if status is None or joined:
            status = _Status.of(self.client.get_json(f"/studies/{study}"))
        proposal = self._checked(status, sites)
        if status is not kept:
            approvals = {name: dump(approval) for name, approval in status.approvals.items()}
            write_atomically(path, json.dumps({"proposal": dump(status.proposal), "approvals": approvals}).encode())
        if kept is None:
            self.journal.append("study-served", {"study": study, "proposal_hash": proposal.proposal_hash})
        return proposal

    def _checked(self, status: _Status, sites: Collection[str]) -> Proposal:
        roster = self.home.roster()
        return check_study(
            status.proposal,
            [*status.approvals.values()],
            orchestrator=roster.orchestrator,
            keyholder=roster.keyholder,
            hospitals=roster.sites,
            helpers=roster.helpers,
            now=self.journal.now(),
            needed=sites,
        )

    def refuse(self, item: WorkItem, reason: str, **more: Any) -> None:
        """Journal a refusal and tell it to the orchestrator; ``more`` are other fields of the refusal."""
        party = self.home.config().name
        refusal = Refusal(study=item.study, round=item.round, party=party, reason=reason[:500], **more)
        self.journal.append("refused", {"item": item.kind, **dump(refusal)})
        self.send(item, "refusal", refusal)

    def send(self, item: WorkItem, kind: str, message: Any) -> None:
        """Sign a message about the item's round and send it to the address that its kind names."""
        path = f"/studies/{item.study}/rounds/{item.round}/{kind}"
        self.client.post_json(path, dump(seal(self.home.identity(), kind, message)))

    def declare_void(self, item: WorkItem, list_hash: str, pad_key: str) -> None:
        """Journal, and say under signature, that a list is never answered with a pad key."""
        void = Void(
            study=item.study,
            round=item.round,
            list_hash=list_hash,
            party=self.home.config().name,
            pad_key_hash=sha256_hex(pad_key.encode()),
        )
        self.journal_once(f"void-{list_hash}-{void.pad_key_hash}", "list-voided", dump(void))
        self.send(item, "void", void)

    def commit(self, item: WorkItem, commitment: PadCommitment) -> None:
        """Journal, and say under signature, what the pads of a list add up to."""
        about = {"study": item.study, "round": item.round, "list_hash": commitment.list_hash}
        self.journal_once(f"commit-{commitment.list_hash}", "pads-committed", about)
        self.send(item, "pad-commitment", commitment)

    def journal_once(self, what: str, kind: str, body: Mapping[str, Any]) -> None:
        """Journal an event; a repeated answer is no new one (after a crash in between it may stand there twice)."""
        self.journal_each_once([(what, kind, body)])

    def journal_each_once(self, events: Iterable[tuple[str, str, Mapping[str, Any]]]) -> None:
        """Journal several events as :meth:`journal_once` does, those that are new all together."""
        new = [event for event in events if not was_journaled(self.home, event[0])]
        if new:
            self.journal.append_all((kind, dict(body)) for _, kind, body in new)
        for what, _, _ in new:
            mark = _marks(self.home, what)[0]
            mark.parent.mkdir(exist_ok=True)
            mark.touch(mode=0o600)


def _updates(listed: Signed | None) -> list[Any]:
    """Return the updates of a list that was not checked yet.

    Raises:
        InvalidInput: it is no list.
    """
    found = [] if listed is None else listed.payload.get("updates")
    if not isinstance(found, list) or not all(
        isinstance(one, dict) and isinstance(one.get("payload"), dict) and "site" in one["payload"] for one in found
    ):
        raise InvalidInput("expected the list of a round with a site for every update")
    return found


def void_list(proposal: Proposal, item: WorkItem) -> Commitments:
    """Return the list that a work item asks to declare void.

    Raises:
        Refused: the list is of another study or round.
        InvalidInput, Tampered: the orchestrator did not sign it.
    """
    signed = item.documents["commitments"]
    listed = open_sealed(signed, "commitments", proposal.orchestrator.public_key, Commitments, since=proposal.canonical)
    if (listed.study, listed.round) != (item.study, item.round):
        raise Refused("only a list of this round can be declared void")
    return listed


def arrival_in(proposal: Proposal, item: WorkItem) -> Arrival:
    """Return what a hospital that was started anew says, and asks this party to answer.

    Raises:
        Refused: it is about another study, or has no word.
        InvalidInput, Tampered: no hospital of the study signed it.
    """
    signed = item.documents["arrival"]
    site = proposal.participant(str(signed.payload.get("site"))[:100])
    arrival = open_sealed(signed, "arrival", site.public_key, Arrival, since=proposal.canonical)
    if (arrival.study, arrival.site) != (item.study, site.name) or not _WORD.fullmatch(arrival.begun):
        raise Refused("expected the word of a hospital that was started anew, for this study")
    return arrival


def was_journaled(home: Home, what: str) -> bool:
    """Say whether an event was journaled here, as a file says that is named by its hash."""
    return any(mark.exists() for mark in _marks(home, what))


def _marks(home: Home, what: str) -> tuple[Path, Path]:
    """Return the mark of an event: by the whole hash, and as it was before, by half of it."""
    digest = sha256_hex(what.encode())
    return home.folder / "journaled" / digest, home.folder / "journaled" / digest[:_SHORT_DIGITS]


def served_proposals(home: Home) -> list[Signed]:
    """Return the signed proposals of all studies that were served here."""
    paths = sorted((home.folder / "studies").glob("*.json"))
    return [parse(Signed, json.loads(path.read_bytes())["proposal"]) for path in paths]
