"""A hospital's part in a round: check, charge, train, encrypt, send; then attest.

Nothing here trusts the orchestrator. Before a record is read the approval and everything it covers is checked
again, the plan must be the first and only one of its round, weights must lie in their bounds and the round key must
be signed by the study's keyholder. From the moment the worker may read a record the round is charged; a worker that
fails sends noise-only zeros, so that failure says nothing. What was sent is stored first, so a restart sends the same
bytes again.
"""

from __future__ import annotations

import datetime as dt
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from datasites.hospital.rounds import round_pads, tidying
from datasites.hospital.rounds.attesting import Attesting
from datasites.hospital.rounds.beginnings import Beginning, Clearing, NeverInThisRound, require_never_sent
from datasites.hospital.rounds.failures import Failures, usable
from datasites.hospital.rounds.models import InitialModel, Models
from datasites.hospital.rounds.round_pads import PadKeys, Sent
from datasites.hospital.thread import Thread
from datasites.node.files import require_room, write_atomically
from datasites.node.home import Home
from datasites.node.http import Declined, SignedClient
from datasites.node.tracing.spans import traced
from datasites.review.approvals import ApprovalStore
from datasites.review.environment import current_environment
from datasites.study.messages import (
    BlockShape,
    Refusal,
    RoundPlan,
    UpdateHeader,
    WorkItem,
)
from datasites.study.proposal import DatasetReference, Proposal
from datasites.study.recomputed import checks
from datasites.study.recomputed.released_numbers import checked_header_numbers, empty_numbers
from datasites.study.signing import Signed, dump, open_sealed, pack_envelope, parse, seal
from datasites.study.streams import daemon_stream, noise_secret
from datasites.study.thread import accepted
from datasites.training import encoding, local_parameters, proximity
from datasites.training.encoding import Integers, encode_update
from datasites.worker.job import Trainer, TrainingJob, TrainingResult
from datasites.worker.rule import RuleOf, brings_none
from privacy.canonical import sha256_hex
from privacy.dp.randomness import Randomness
from privacy.encryption import ckks
from privacy.errors import InvalidInput, Refused, Tampered, TesseraError, Withheld
from privacy.ledger.journal import Journal
from privacy.ledger.ledger import Ledger

_KEY_BYTES = 4 << 20


class DatasetHere(Protocol):
    """The dataset a study was approved for, as it is now."""

    def __call__(self, name: str) -> tuple[DatasetReference, Path]:
        """Return its reference (fingerprinted again) and the folder of its private part."""


@dataclass(frozen=True, kw_only=True)
class RoundParticipant:
    """Does the work items of one datasite.

    ``rule_of`` gives the server's rule of a study that brings its own. ``preflight`` tries a round before it is charged
    and raises Refused where it cannot run here. ``round_seconds`` is the owner's choice (``sandbox.round_seconds`` of
    the policy): updates leave at whole multiples of it only, so that their time does not tell how a worker fared on
    private data. ``sent_now`` are the rounds whose updates were made since this process began, with the keys that their
    pads were sealed to: only of those it knows every list that it signed, and the pads that it has to tag.
    ``beginning`` is this start.
    """

    site: str
    home: Home
    client: SignedClient
    approvals: ApprovalStore
    ledger: Ledger
    journal: Journal
    train: Trainer
    dataset: DatasetHere
    build: InitialModel
    rule_of: RuleOf = brings_none
    preflight: Callable[[TrainingJob], None] = lambda _: None
    round_seconds: float | Callable[[], float] = 0.0
    sent_now: dict[tuple[str, int], Sent] = field(default_factory=dict)
    beginning: Beginning = field(default_factory=Beginning)

    def __post_init__(self) -> None:
        if self.beginning.at is None:
            self.beginning.at = self.journal.now()

    @property
    def clearing(self) -> Clearing:
        """Has this hospital cleared for rounds after a start."""
        own, begun = self.home.identity(), self.beginning
        return Clearing(site=self.site, client=self.client, approvals=self.approvals, identity=own, beginning=begun)

    @property
    def failures(self) -> Failures:
        """The rounds that failed here, and what they hold up."""
        return Failures(journal=self.journal, approvals=self.approvals)

    @property
    def models(self) -> Models:
        """Where the models of rounds come from."""

        def public_key(study: str, number: int) -> bytes:
            sent = self.sent_now.get((study, number))
            return sent.public if sent else b""

        return Models(
            home=self.home,
            client=self.client,
            journal=self.journal,
            build=self.build,
            rule_of=self.rule_of,
            public_key=public_key,
        )

    @traced
    def handle(self, item: WorkItem) -> None:
        """Do one work item; a refusal is journaled and told to the orchestrator."""
        try:
            if item.kind == "train":
                self._train(item)
            elif item.kind in ("attest", "confirm"):
                self._attest(item)
            elif item.kind == "finished":
                self._finish(item)
        except Declined:  # the orchestrator's no, not ours: nothing is refused here
            raise
        except Withheld as error:
            self._refuse(item, error.outward, own=str(error))
        except (Refused, InvalidInput, Tampered) as error:
            self._refuse(item, str(error), for_good=isinstance(error, NeverInThisRound))
        except KeyError:
            self._refuse(item, "the work item lacks a document")

    # training --------------------------------------------------------------------------------------------------

    def _train(self, item: WorkItem) -> None:
        proposal = self._proposal(item.study)
        plan = self._checked_plan(proposal, item)
        folder = self.home.round_folder(item.study, item.round)
        tidying.require_kept(folder)
        if (folder / "header.json").exists():
            self._keep_first_plan(folder, plan)
            self.ledger.charge(plan.proposal_hash, plan.round)  # a restored copy may hold an update without its charge
        elif not self._updated(proposal, plan, item, folder):
            return
        self._send(folder, item)
        self.failures.tell(plan)

    def _updated(self, proposal: Proposal, plan: RoundPlan, item: WorkItem, folder: Path) -> bool:
        """Make and keep this round's update; False where keyholder and helpers have to clear this hospital first."""
        checks.require_newest_round(self.journal, item.study, item.round)
        model = self.models.before(proposal, plan)  # a plan with another model is not kept either
        self._keep_first_plan(folder, plan)
        tidying.tidy(self.home, self.journal, item.study, now_in=item.round)
        self.failures.require_none(plan)
        started = time.monotonic()
        require_never_sent(self.journal, item.study, item.round)
        if not self.clearing.is_cleared(proposal, item):
            return False  # they are asked; the item comes once more with what they say
        require_room(self.home.folder)  # before the charge: a full disk later would spend it for noise
        keys = self._pad_keys(proposal, plan, item)
        public = self._public_key(proposal, keys)
        own = self._own_numbers(proposal, item, model)
        job = self._job(proposal, plan, model)
        self.preflight(job)  # what fails whatever the records are must fail before the charge
        result = self._trained(job, model)
        local_parameters.keep(folder, result.own)
        integers = self._encoded(proposal, plan, result)
        proximity.keep_sent(proposal, plan, folder, integers, model)
        self._store_update(folder, proposal, plan, keys, public, integers, {**result.releases, **own})
        self._wait_for_usual_time(started)
        return True

    def _proposal(self, study: str) -> Proposal:
        """Return the approved proposal of ``study`` after checking everything it covers once more."""
        proposal = self._approved(study)
        reference, _ = self.dataset(proposal.participant(self.site).dataset.name)
        return self.approvals.check_before_round(
            proposal.proposal_hash,
            now=dt.datetime.now(dt.UTC),
            environment=current_environment(),
            dataset=reference,
            clock_high_water=self.journal.now(),
        )

    def _approved(self, study: str) -> Proposal:
        """Return the proposal of ``study`` that is approved here and not revoked."""
        for request in self.approvals.requests():
            if request.proposal.study == study and request.state == "approved":
                if not accepted(request.words, self.site):  # the scientist may have accepted a moment ago
                    Thread(client=self.client, approvals=self.approvals, journal=self.journal).look()
                return request.proposal
        raise Refused(f"study {study!r} is not approved here")

    def _checked_plan(self, proposal: Proposal, item: WorkItem) -> RoundPlan:
        plan = open_sealed(
            item.documents["plan"], "round-plan", proposal.orchestrator.public_key, RoundPlan, since=proposal.canonical
        )
        if plan.round != item.round:
            raise Refused(f"the plan of round {plan.round} came as that of round {item.round}")
        checks.check_plan(proposal, plan, self.site)
        return plan

    def _keep_first_plan(self, folder: Path, plan: RoundPlan) -> None:
        """Write down the first plan of this round; any other is refused for ever."""
        path = folder / "plan.json"
        if not path.exists():
            self._require_no_other_plan(plan)
            write_atomically(path, json.dumps(dump(plan)).encode(), name_follows=True)  # without it, the journal knows
        kept = parse(RoundPlan, path.read_bytes())
        if (plan.study, plan.round) not in self.journal.by_round("round-plan"):  # a kill may have come between the two
            self.journal.append("round-plan", {"study": kept.study, "round": kept.round, "plan_hash": kept.plan_hash})
        if kept.plan_hash != plan.plan_hash:
            raise Refused(f"round {plan.round} has another plan already; one plan per round")

    def _require_no_other_plan(self, plan: RoundPlan) -> None:
        """Refuse another plan of a round whose folder is gone: the round was charged for the first one."""
        known = self.journal.by_round("round-plan").get((plan.study, plan.round), ())
        if any(said["plan_hash"] != plan.plan_hash for said in known):
            raise Refused(f"round {plan.round} has another plan already; one plan per round")

    def _pad_keys(self, proposal: Proposal, plan: RoundPlan, item: WorkItem) -> PadKeys:
        return PadKeys.of(proposal, plan, item)

    def _public_key(self, proposal: Proposal, keys: PadKeys) -> bytes:
        public = self._blob(keys.round_key.key_hash, max(0, min(keys.round_key.key_bytes, _KEY_BYTES)))
        checks.check_public_key(proposal, keys.round_key.round, public)
        return public

    def _own_numbers(self, proposal: Proposal, item: WorkItem, model: bytes) -> dict[str, float]:
        """Return what the daemon releases besides the worker's numbers: how its last update agreed with the others'."""
        last = self.home.round_folder(item.study, item.round - 1) if item.round > 1 else self.home.folder
        kept = last / "plan.json"
        plan = parse(RoundPlan, kept.read_bytes()) if kept.exists() else None
        return proximity.own_numbers(proposal, item.round, self.site, last, plan, model)

    def _own_parameters(self, plan: RoundPlan) -> dict[str, np.ndarray]:
        """Return what this site keeps to itself, as the newest round before this one left it."""
        earlier = range(plan.round - 1, 0, -1)
        return local_parameters.newest(self.home.round_folder(plan.study, number) for number in earlier)

    def _job(self, proposal: Proposal, plan: RoundPlan, model: bytes) -> TrainingJob:
        _, folder = self.dataset(proposal.participant(self.site).dataset.name)
        return TrainingJob(
            proposal=proposal,
            plan=plan,
            model=local_parameters.with_own(proposal, model, self._own_parameters(plan)),
            dataset=folder,
            noise_secret=self._noise_secret(proposal),
        )

    def _trained(self, job: TrainingJob, model: bytes) -> TrainingResult:
        proposal, plan = job.proposal, job.plan
        randomness = self._randomness(proposal, plan)
        self.ledger.charge(plan.proposal_hash, plan.round)
        self.journal.append("round-charged", {"study": plan.study, "round": plan.round})
        try:
            result = usable(job, self.site, self.train(job))
        except TesseraError as error:  # no worker at all: charged or not, the same round is done again as it is
            raise TesseraError(f"round {plan.round} of {plan.study} waits for a worker: {error}") from error
        if result is None:
            self.failures.note(plan)
            updates = encoding.noise_only(proposal, plan, self.site, model, randomness.child("failed"))
            numbers = empty_numbers(proposal, self.site, plan.round, randomness.child("failed-numbers"))
            result = TrainingResult(updates=updates, releases=numbers)
        return result

    def _wait_for_usual_time(self, started: float) -> None:
        """Hold the update until a whole multiple of ``round_seconds`` after the work began, however it went."""
        seconds = self.round_seconds() if callable(self.round_seconds) else self.round_seconds
        if seconds > 0:
            time.sleep(seconds - (time.monotonic() - started) % seconds)

    def _noise_secret(self, proposal: Proposal) -> bytes:
        return noise_secret(proposal, self.site, lambda: self.home.identity().derive_secret("noise"))

    def _randomness(self, proposal: Proposal, plan: RoundPlan) -> Randomness:
        return daemon_stream(proposal, plan, self.site, self._noise_secret(proposal))

    def _encoded(self, proposal: Proposal, plan: RoundPlan, result: TrainingResult) -> Integers:
        return encode_update(proposal, plan, self.site, result.updates, self._randomness(proposal, plan))

    def _store_update(
        self,
        folder: Path,
        proposal: Proposal,
        plan: RoundPlan,
        keys: PadKeys,
        public: bytes,
        integers: Integers,
        numbers: Mapping[str, float],
    ) -> None:
        """Encrypt and pad; write the padded ciphertexts, then the signed header, which says that all is done."""
        releases = checked_header_numbers(proposal, self.site, plan.round, numbers)
        blocks = {name: ckks.encrypt(public, proposal.encryption, values) for name, values in integers.items()}
        padded = round_pads.padded(proposal, plan, self.site, keys, blocks)
        header = UpdateHeader(
            study=plan.study,
            proposal_hash=plan.proposal_hash,
            round=plan.round,
            plan_hash=plan.plan_hash,
            site=self.site,
            blocks=tuple(
                BlockShape(name=b.name, values=b.length, ciphertexts=len(blocks[b.name]))
                for b in proposal.blocks_of(self.site)
            ),
            body_hash=sha256_hex(padded.body),
            body_bytes=len(padded.body),
            pad=padded.pad,
            releases=releases,
            journal_head=self.journal.head.hash,
            ledger_head=self.ledger.head.hash,
            helper_pads=padded.helper_pads,
            seed_hashes=padded.seed_hashes,
            begun=self.clearing.word(proposal),
        )
        self._forget_pads(plan.study)
        self.sent_now[(plan.study, plan.round)] = Sent(keys=keys, public=public, own=padded.own)
        write_atomically(folder / "update.bin", padded.body, name_follows=True)  # with the header's
        signed = seal(self.home.identity(), "update", header)
        write_atomically(folder / "header.json", json.dumps(dump(signed)).encode())
        self.journal.append(
            "update-encrypted",
            {
                "study": plan.study,
                "round": plan.round,
                "body_hash": header.body_hash,
                "bytes": header.body_bytes,
                "releases": releases,
            },
        )

    def _send(self, folder: Path, item: WorkItem) -> None:
        signed = parse(Signed, (folder / "header.json").read_bytes())
        body = (folder / "update.bin").read_bytes()
        self.client.put_bytes(f"/studies/{item.study}/rounds/{item.round}/update", pack_envelope(signed, body))

    # attesting -------------------------------------------------------------------------------------------------

    def _attest(self, item: WorkItem) -> None:
        proposal = self._approved(item.study)  # all it covers was checked before this round's training
        self.approvals.check_decision(
            proposal.proposal_hash, now=dt.datetime.now(dt.UTC), clock_high_water=self.journal.now()
        )
        checks.require_newest_round(self.journal, item.study, item.round)
        attesting = Attesting(
            site=self.site, home=self.home, client=self.client, journal=self.journal, ledger=self.ledger
        )
        attesting.attest(proposal, item, self.sent_now.get((item.study, item.round)))

    def _finish(self, item: WorkItem) -> None:
        """Recompute the last model too; that it does not follow is for this hospital's people to read."""
        self._forget_pads(item.study)
        try:
            proposal = self._approved(item.study)
            self.models.finish(proposal)
            tidying.tidy(self.home, self.journal, item.study, now_in=proposal.rounds + 1)
        except (Refused, InvalidInput) as error:
            self.journal.append("models-unconfirmed", {"study": item.study, "reason": str(error)[:500]})

    def _forget_pads(self, study: str) -> None:
        """Forget the seeds of a study's earlier rounds, which nobody asks for any more."""
        for place in [place for place in list(self.sent_now) if place[0] == study]:  # other studies go on meanwhile
            self.sent_now.pop(place, None)

    # small things ----------------------------------------------------------------------------------------------

    def _blob(self, digest: str, limit_bytes: int) -> bytes:
        data = self.client.get_bytes(f"/blobs/{digest}", max_bytes=limit_bytes)
        if sha256_hex(data) != digest:
            raise Refused("the orchestrator sent other bytes than the plan names")
        return data

    def _refuse(self, item: WorkItem, reason: str, own: str = "", *, for_good: bool = False) -> None:
        """Journal a refusal, with the reason that only the own people read where there is one, and tell it."""
        without = (self.site,) if for_good else ()
        refusal = Refusal(study=item.study, round=item.round, party=self.site, reason=reason[:500], without=without)
        self.journal.append("refused", {"item": item.kind, **dump(refusal), "reason": (own or reason)[:500]})
        try:
            path = f"/studies/{item.study}/rounds/{item.round}/refusal"
            self.client.post_json(path, dump(seal(self.home.identity(), "refusal", refusal)))
        except TesseraError as error:
            self.journal.append("refusal-unsent", {"study": item.study, "round": item.round, "reason": str(error)})
