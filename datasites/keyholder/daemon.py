"""The keyholder's process: dials the orchestrator, offers round keys, answers sums that pass every check.

It listens nowhere. Every key, answer and refusal goes to its journal; a refusal is told to the orchestrator with the
reason, and says nothing about values.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasites.keyholder.checks import SumRequest, check_study, check_sum_request
from datasites.keyholder.custody import BadPads, KeyCustody
from datasites.keyholder.rollback import KeyholderStanding, journaled_mark
from datasites.node.files import lack_of_room, remove_unfinished, write_atomically
from datasites.node.home import Home
from datasites.node.http import Declined, SignedClient
from datasites.node.process import Loop, announce, keep_private, stop_loops, wait_for_signal
from datasites.node.work import Witness, WorkQueue
from datasites.study.messages import Refusal, SumResult, WorkItem
from datasites.study.proposal import Proposal
from datasites.study.signing import Signed, dump, pack_envelope, parse, seal
from privacy.canonical import sha256_hex
from privacy.encryption.ciphertexts import body_bytes
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

    def handle(self, item: WorkItem) -> None:
        """Do one work item; what is refused is journaled and told."""
        try:
            if item.kind == "key":
                self._offer_key(item)
            elif item.kind == "decrypt":
                self._answer(item)
            elif item.kind in ("finished", "forget"):
                self._forget(item.study)
        except BadPads as error:
            self._refuse(item, str(error), without=error.sites)
        except Declined:  # the orchestrator's no, not ours: nothing is refused here
            raise
        except (Refused, InvalidInput, Tampered) as error:
            self._refuse(item, str(error))
        except KeyError:
            self._refuse(item, "the work item lacks a document")

    def _offer_key(self, item: WorkItem) -> None:
        proposal = self._study(item.study)
        key, public = self.custody.open_round(proposal, item.round)
        signed = seal(self.home.identity(), "round-key", key)
        self._journal_once(f"key-{item.study}-{item.round}", "round-key", dump(key))
        self.client.put_bytes(f"/studies/{item.study}/rounds/{item.round}/key", pack_envelope(signed, public))

    def _answer(self, item: WorkItem) -> None:
        proposal = self._study(item.study)
        commitments = item.documents["commitments"]
        sum_hash = str(commitments.payload.get("sum_hash"))
        body = self.client.get_bytes(f"/blobs/{sum_hash}", max_bytes=_sum_bytes(proposal))
        request = SumRequest(
            plan=item.documents["plan"], commitments=commitments, attestations=item.attestations, body=body
        )
        checked = check_sum_request(
            proposal,
            self.custody.round_key(item.study, item.round),
            request,
            answered_sum=self.custody.answered_sum(item.study, item.round),
        )
        answer = self.custody.answer(checked)
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
        self._journal_once(f"answer-{item.study}-{item.round}", "decrypted", entry)
        signed = seal(self.home.identity(), "sum-result", result)
        self.client.put_bytes(
            f"/studies/{item.study}/rounds/{item.round}/result", pack_envelope(signed, answer.integers)
        )

    def _study(self, study: str) -> Proposal:
        """Return the proposal of ``study`` after checking that every participant has approved it."""
        roster = self.home.roster()
        path = self.home.folder / "studies" / f"{sha256_hex(study.encode())[:16]}.json"
        status = json.loads(path.read_bytes()) if path.exists() else self.client.get_json(f"/studies/{study}")
        proposal = check_study(
            parse(Signed, status["proposal"]),
            [parse(Signed, document) for document in status["approvals"].values()],
            orchestrator=roster.orchestrator,
            keyholder=roster.keyholder,
            hospitals=roster.sites,
            now=self.journal.now(),
        )
        if not path.exists():
            kept = {"proposal": status["proposal"], "approvals": status["approvals"]}
            write_atomically(path, json.dumps(kept).encode())
            self.journal.append("study-served", {"study": study, "proposal_hash": proposal.proposal_hash})
        return proposal

    def _journal_once(self, what: str, kind: str, body: dict[str, Any]) -> None:
        """Journal an event; a repeated answer is no new one (after a crash in between it may stand there twice)."""
        mark = journaled_mark(self.home, what)
        if not mark.exists():
            self.journal.append(kind, body)
            mark.parent.mkdir(exist_ok=True)
            mark.touch(mode=0o600)

    def _forget(self, study: str) -> None:
        self.custody.forget(study)
        self._journal_once(f"forget-{study}", "study-over", {"study": study})

    def _refuse(self, item: WorkItem, reason: str, *, without: tuple[str, ...] = ()) -> None:
        party = self.home.config().name
        refusal = Refusal(study=item.study, round=item.round, party=party, reason=reason[:500], without=without)
        self.journal.append("refused", {"item": item.kind, **dump(refusal)})
        path = f"/studies/{item.study}/rounds/{item.round}/refusal"
        self.client.post_json(path, dump(seal(self.home.identity(), "refusal", refusal)))


def _sum_bytes(proposal: Proposal) -> int:
    """Return exactly how long a study's sum is."""
    counts = {b.name: proposal.encryption.ciphertexts_for(b.length) for b in proposal.exchanged_blocks()}
    return body_bytes(counts, proposal.encryption)


def _served(home: Home) -> list[Signed]:
    """Return the signed proposals of all studies that were served here."""
    paths = sorted((home.folder / "studies").glob("*.json"))
    return [parse(Signed, json.loads(path.read_bytes())["proposal"]) for path in paths]


def run(folder: Path) -> None:
    """Work until the process is asked to end.

    Raises:
        InvalidInput: the folder is no keyholder's.
    """
    keep_private(folder)
    home = Home(folder=folder)
    config, identity = home.config(), home.identity()
    remove_unfinished(folder)
    client = SignedClient(identity, config.orchestrator_url, home.roster().orchestrator.public_key, ca=config.ca)
    custody = KeyCustody(folder / "keys", identity)
    journal = Journal(folder / "journal.sqlite", identity)
    standing = KeyholderStanding(home=home, client=client, custody=custody, journal=journal)

    def _trouble() -> str:
        return standing.trouble or lack_of_room(folder)

    witness = Witness(home=home, client=client, proposals=lambda: _served(home), trouble=_trouble)
    keyholder = Keyholder(
        home=home,
        client=client,
        custody=custody,
        journal=journal,
        queue=WorkQueue(client, witness=witness),
        standing=standing,
        witness=witness,
    )
    loop = Loop("keyholder", keyholder.step)
    try:
        loop.start()
        announce(folder, None, "keyholder")
        wait_for_signal()
    finally:
        stop_loops([loop])
        client.close()
        custody.close()
        journal.close()
        (folder / "address.json").unlink(missing_ok=True)
