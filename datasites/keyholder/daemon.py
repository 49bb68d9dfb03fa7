"""The keyholder's process: dials the orchestrator, offers round keys, answers sums that pass every check.

It listens nowhere. Every key, answer and refusal goes to its journal; a refusal is told to the orchestrator with the
reason, and says nothing about values.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from datasites.keyholder.checks import (
    CheckedSum,
    ListRequest,
    SumRequest,
    check_sum_request,
    check_unsigned_list,
)
from datasites.keyholder.custody import KeyCustody
from datasites.keyholder.opened import BadPads, FreshWanted, HelperAnswer, HelpersWanted, counts_of, split_opening
from datasites.keyholder.record import Answer
from datasites.keyholder.rollback import KeyholderStanding
from datasites.keyholder.served import Served, arrival_in, served_proposals, void_list
from datasites.keyholder.vouched import shown_commitments
from datasites.node.files import lack_of_room, remove_unfinished
from datasites.node.home import Home
from datasites.node.http import Declined, SignedClient
from datasites.node.process import alone_in, work_until_asked
from datasites.node.tracing.spans import traced
from datasites.node.wellbeing import watched
from datasites.node.work import Witness, WorkQueue
from datasites.study.messages import Opening, PadSums, SumResult, WorkItem
from datasites.study.proposal import Proposal
from datasites.study.signing import dump, open_sealed, pack_envelope, seal
from privacy.canonical import sha256_hex
from privacy.encryption.ciphertexts import body_bytes
from privacy.encryption.shares import MISSING_PART, sum_bytes
from privacy.errors import InvalidInput, Refused, Tampered
from privacy.ledger.journal import Journal

_ROLLED_BACK_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class Keyholder:
    """Does the keyholder's work items."""

    home: Home
    client: SignedClient
    custody: KeyCustody
    journal: Journal
    queue: WorkQueue
    standing: KeyholderStanding | None = None
    witness: Witness | None = None

    def step(self) -> float:
        """Do what is to be done now, or wait for it; nothing while the record is older than what was signed."""
        if self.standing is not None and not (self.standing.stands or self.standing.holds()):
            if self.witness is not None:
                self.witness.meet()  # it shows why nothing is answered
            return _ROLLED_BACK_SECONDS
        self.queue.deal(self.handle)
        return 0.0

    @traced
    def handle(self, item: WorkItem) -> None:
        """Do one work item; what is refused is journaled and told."""
        try:
            if item.kind == "key":
                self._offer_key(item)
            elif item.kind == "decrypt":
                self._answer(item)
            elif item.kind == "commit":
                self._commit(item)
            elif item.kind == "void":
                self._void(item)
            elif item.kind == "clear":
                self._clear(item)
            elif item.kind in ("finished", "forget"):
                self._forget(item.study)
        except BadPads as error:
            self.served.refuse(item, str(error), without=error.sites)
        except HelpersWanted as error:
            self.served.refuse(item, str(error), wants=error.helpers)
        except FreshWanted as error:
            self.served.refuse(item, str(error), fresh=error.fresh)
        except Declined:  # the orchestrator's no, not ours: nothing is refused here
            raise
        except (Refused, InvalidInput, Tampered) as error:
            self.served.refuse(item, str(error))
        except KeyError:
            self.served.refuse(item, "the work item lacks a document")

    def _offer_key(self, item: WorkItem) -> None:
        proposal = self.served.study(item.study)
        key, public = self.custody.open_round(proposal, item.round)
        signed = seal(self.home.identity(), "round-key", key)
        self.served.journal_once(f"key-{item.study}-{item.round}", "round-key", dump(key))
        self._put(item, "key", pack_envelope(signed, public))

    def _commit(self, item: WorkItem) -> None:
        """Say, before a site signs a list, what its pads add up to."""
        proposal = self.served.study(item.study, item.documents["commitments"])
        request = ListRequest(plan=item.documents["plan"], commitments=item.documents["commitments"], attestations=())
        listed = check_unsigned_list(proposal, self.custody.round_key(item.study, item.round), request)
        self.served.commit(item, self.custody.commit(listed, proposal.keyholder.name))

    def _answer(self, item: WorkItem) -> None:
        commitments = item.documents["commitments"]
        proposal = self.served.study(item.study, commitments)
        sum_hash = str(commitments.payload.get("sum_hash"))
        body = self.client.get_bytes(f"/blobs/{sum_hash}", max_bytes=_sum_bytes(proposal))
        request = SumRequest(
            plan=item.documents["plan"],
            commitments=commitments,
            attestations=item.attestations,
            pad_commitments=shown_commitments(item.documents),
            body=body,
        )
        checked = check_sum_request(
            proposal,
            self.custody.round_key(item.study, item.round),
            request,
            answered_sum=self.custody.answered_sum(item.study, item.round),
        )
        answer = self.custody.answer(checked, self._helped(proposal, item))
        result = SumResult(
            study=item.study,
            round=item.round,
            sum_hash=answer.sum_hash,
            integers_hash=answer.integers_hash,
            plan_hash=checked.plan_hash,
            list_hash=checked.list_hash,
        )
        sites = sorted({site for sites in checked.contributors.values() for site in sites})
        entry = {**dump(result), "sites": sites}
        events = [(f"answer-{item.study}-{item.round}", "decrypted", entry)]
        opening = _opening_of(item, checked, answer)
        if opening is not None:
            events.insert(0, (f"opening-{item.study}-{item.round}", "opened", dump(opening)))
        self.served.journal_each_once(events)
        if opening is not None and answer.opening is not None:  # published before its result
            signed = seal(self.home.identity(), "opening", opening)
            self._put(item, "opening", pack_envelope(signed, answer.opening))
        signed = seal(self.home.identity(), "sum-result", result)
        self._put(item, "result", pack_envelope(signed, answer.integers))

    def _put(self, item: WorkItem, what: str, body: bytes) -> None:
        self.client.put_bytes(f"/studies/{item.study}/rounds/{item.round}/{what}", body)

    def _helped(self, proposal: Proposal, item: WorkItem) -> list[HelperAnswer]:
        """Return what the study's helpers answered in this round, with the pad sums that come along."""
        found = []
        for helper in proposal.helpers:
            signed = item.documents.get(f"pads/{helper.name}")
            if signed is not None:
                sums = open_sealed(signed, "pads", helper.public_key, PadSums, since=proposal.canonical)
                if (sums.study, sums.round, sums.helper) != (item.study, item.round, helper.name):
                    raise Refused(f"the pad sums of {helper.name} are of another study or round")
                size = sum_bytes(counts_of(proposal), proposal.encryption)
                digest = sums.parts.get(str(MISSING_PART), "")
                found.append(HelperAnswer(sums=sums, body=self.client.get_bytes(f"/blobs/{digest}", max_bytes=size)))
        return found

    def _void(self, item: WorkItem) -> None:
        """Say under signature that a list is never answered here."""
        listed = void_list(self.served.study(item.study), item)
        key = self.custody.void(item.study, item.round, listed.list_hash)
        self.served.declare_void(item, listed.list_hash, key.pad_key)

    def _clear(self, item: WorkItem) -> None:
        """Say under signature that no earlier update of a hospital that was started anew is opened here."""
        proposal = self.served.study(item.study)
        clearance = self.custody.clear(arrival_in(proposal, item), proposal.keyholder.name)
        self.served.send(item, "clearance", clearance)

    @property
    def served(self) -> Served:
        """The studies that are served here."""
        return Served(home=self.home, client=self.client, journal=self.journal)

    def _forget(self, study: str) -> None:
        self.custody.forget(study)
        self.served.journal_once(f"forget-{study}", "study-over", {"study": study})


def _opening_of(item: WorkItem, checked: CheckedSum, answer: Answer) -> Opening | None:
    """Return what says which key and pad sums of an answered round are published, where the study does so."""
    if answer.opening is None:
        return None
    _, sums, _ = split_opening(checked.proposal, answer.opening)
    return Opening(
        study=item.study,
        round=item.round,
        list_hash=checked.list_hash,
        sum_hash=answer.sum_hash,
        integers_hash=answer.integers_hash,
        parts={str(part): sha256_hex(data) for part, data in sums.items()},
        body_hash=sha256_hex(answer.opening),
    )


def _sum_bytes(proposal: Proposal) -> int:
    """Return exactly how long a study's sum is."""
    return body_bytes(counts_of(proposal), proposal.encryption)


def run(folder: Path) -> None:
    """Work until the process is asked to end.

    Raises:
        InvalidInput: the folder is no keyholder's.
        Refused: another process runs on it.
    """
    with alone_in(folder) as home:
        _serve(home)


def _serve(home: Home) -> None:
    folder = home.folder
    config, identity = home.config(), home.identity()
    remove_unfinished(folder)
    client = SignedClient(
        identity, config.orchestrator_url, home.roster().orchestrator.public_key, ca=config.ca, proxy=config.proxy
    )
    custody = KeyCustody(folder / "keys", identity)
    journal = Journal(folder / "journal.sqlite", identity)
    standing = KeyholderStanding(home=home, client=client, custody=custody, journal=journal)

    def _trouble() -> str:
        return standing.trouble or lack_of_room(folder)

    witness = Witness(home=home, client=client, proposals=lambda: served_proposals(home), trouble=_trouble)
    keyholder = Keyholder(
        home=home,
        client=client,
        custody=custody,
        journal=journal,
        queue=WorkQueue(client, witness=witness),
        standing=standing,
        witness=witness,
    )
    with watched(home):
        work_until_asked(folder, "keyholder", keyholder.step, client, custody, journal)
