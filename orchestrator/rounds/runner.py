"""One study, round after round: ask for a key, plan, collect, close, attest, decrypt, step.

Every step leaves a signed document in the store before anybody is told, so a restart finds where it was and goes on
(docs/architecture.md, "One round"). What a party has to do is published on the board; what parties answer arrives
through :class:`Rounds` (the server calls it) and wakes the runner.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from datasites.node.tracing.spans import round_span
from datasites.study.messages import Commitments, RoundPlan, UpdateHeader, WorkItem
from datasites.study.parties import parse_time
from datasites.study.proposal import Proposal
from datasites.study.recomputed.checks import enough
from datasites.study.recomputed.next_model import ServerOptimizer, model_from_bytes, model_to_bytes
from datasites.study.recomputed.planning import Planner
from datasites.study.signing import Signed, open_sealed, parse, seal
from orchestrator.rounds import checkpoints as ends
from orchestrator.rounds.attendance import Arrivals, Attendance, Expected
from orchestrator.rounds.board import Board, Waiting, names
from orchestrator.rounds.checkpoints import NEXT_ROUND, StudyExpired, StudyPaused
from orchestrator.rounds.decryption import excluded_sites, serve
from orchestrator.rounds.helping import Helping
from orchestrator.rounds.refusals import Refusals
from orchestrator.rounds.restarting.unwritten import planned
from orchestrator.rounds.store import Store
from orchestrator.rounds.summing.intake import Intake, Upload
from orchestrator.rounds.summing.lists import Records, fixed_list
from orchestrator.rounds.thread import withdrawn_sites
from privacy.errors import InvalidInput
from privacy.identity import Identity
from privacy.ledger.journal import Journal


class StudyRunner:
    """Drives one approved study to its last round; everything runs on the event loop."""

    def __init__(self, *, study: str, store: Store, board: Board, identity: Identity, journal: Journal) -> None:
        self.proposal: Proposal = open_sealed(store.study(study)[0], "proposal", identity.public_key, Proposal)
        self._store, self._board, self._identity, self._journal = store, board, identity, journal
        self._records = Records(store=store, identity=identity, journal=journal)
        self.waits = Waiting()
        self.intake = Intake(self.proposal, store)
        self._refusals = Refusals()
        self._refusing = self._refusals.parties
        self.helping = Helping(self.proposal, store, board, self.waits, self._refusals)
        self.arrivals = Arrivals(self.proposal, board, self.waits)
        self.intake.excluded = self._excluded()
        self._attendance = Attendance(proposal=self.proposal, store=store, board=board)
        self._expected = Expected(asked=frozenset())
        self.optimizer = ServerOptimizer(self.proposal.training)
        self._planner = Planner(self.proposal)

    async def run(self) -> None:
        """Wait for every approval, then train all rounds; leaves the study finished, paused or failed.

        The end is written down last, with nothing left to await: whoever reads it may resume the study at once.
        """
        name = self.proposal.study
        try:
            await self._rounds()
        except StudyExpired as error:
            self._store.set_state(name, "expired", str(error))
            self._journal.append("study-ended", {"study": name, "state": "expired", "reason": str(error)})
        except StudyPaused as error:
            self._store.set_state(name, "paused", str(error))
            self._journal.append("study-paused", {"study": name, "reason": str(error)})
        else:
            self._store.set_state(name, "finished")
            self._journal.append("study-finished", {"study": name, "rounds": self.proposal.rounds})

    async def _rounds(self) -> None:
        """Train every round that is still to come; the summing process has ended afterwards."""
        name = self.proposal.study
        try:
            await self._approvals()
            ends.study_runs(self._store, self._journal, name)
            self._load_optimizer(self._store.last_round(name, "checkpoint"))
            for number in range(self._store.last_round(name, "checkpoint") + 1, self.proposal.rounds + 1):
                ends.require_centres(self._store, self.proposal, number)
                key = self.proposal.orchestrator.public_key
                with ends.in_time(self.proposal, number), round_span(key, name, number):
                    await self._round(number)
        finally:
            await self.intake.close()

    async def _approvals(self) -> None:
        missing = self._attendance.missing
        left = parse_time(self.proposal.expires) - dt.datetime.now(dt.UTC)
        await self.waits.until(lambda: not missing(), max(0.0, left.total_seconds()), missing)
        if missing():
            raise StudyExpired(f"the proposal expired at {self.proposal.expires} before all had approved it")

    async def _round(self, number: int) -> None:
        started = time.monotonic()
        key, helper_keys, _ = await asyncio.gather(self._key(number), self.helping.keys(number), self.intake.warm())
        plan = self._plan(number, key)
        if not self._closings(number):  # else it was closed before a restart: what comes now would be in no list
            await self._collect(number, {"plan": plan, "key": key, **helper_keys})
        closing = max(0, self._closings(number) - 1)  # after a restart only the newest list counts
        commitments, attestations = await self._close(number, plan, key, set(self.intake.headers(number)), closing)
        totals = await self._decrypt(number, plan, key, commitments, attestations)
        if totals is None:
            return  # lost; who cost it is in none of the later rounds
        await asyncio.to_thread(self._step, number, plan, commitments, totals, time.monotonic() - started)

    async def _key(self, number: int) -> Signed:
        keyholder = self.proposal.keyholder.name
        for wanted in range(number, min(number + 1, self.proposal.rounds) + 1):  # the next one while the sites train
            if keyholder not in self._documents(wanted, "key"):
                self._board.publish(keyholder, self._item("key", wanted))
            if wanted == number and not await self._answered(number, "key"):
                raise self._refusal(number)
        return parse(Signed, self._documents(number, "key")[keyholder])

    async def _answered(self, number: int, kind: str) -> bool:
        """Wait for the keyholder's document or refusal; return whether the document came."""
        keyholder = self.proposal.keyholder.name
        await self.waits.until(
            lambda: keyholder in self._documents(number, kind) or keyholder in self._refusing(number),
            None,
            lambda: f"round {number}: {keyholder} (keyholder), {'its key' if kind == 'key' else 'to decrypt the sum'}",
        )
        return keyholder in self._documents(number, kind)

    def _refusal(self, number: int) -> StudyPaused:
        return StudyPaused(f"round {number}: the keyholder refused: {self._reason(number)}")

    def _reason(self, number: int) -> str:
        refused = self._refusals.of(number, self.proposal.keyholder.name)
        return refused.reason if refused else ""

    def _lose(self, number: int, reason: str, without: Collection[str] = ()) -> None:
        """Write a round off whose sum the keyholder will never decrypt; the model stays as it was.

        ``without`` are left out of the rest of the study. The round is not closed again without them: the keyholder,
        who has seen its sum, would learn their updates from the difference.
        """
        before = self._store.document(self.proposal.study, number - 1, "checkpoint") or {}
        checkpoint = ends.lost_checkpoint(
            self.model_hash(number - 1),
            before.get("moments_hash") or self._store.put_blob(model_to_bytes({})),
            sum(int(u["payload"]["body_bytes"]) for u in self.intake.headers(number).values()),
            reason=reason,
            without=without,
        )
        self._store.put_document(self.proposal.study, number, "checkpoint", checkpoint)
        self._journal.append("round-lost", {"study": self.proposal.study, "round": number, "reason": reason})
        self._drop_updates(number)
        self.intake.excluded = self._excluded()

    def _drop_updates(self, number: int) -> None:
        digests = [str(u["payload"]["body_hash"]) for u in self.intake.headers(number).values()]
        self._store.drop_updates(self.proposal.study, number, digests)

    def _plan(self, number: int, key: Signed) -> Signed:
        found = self._store.document(self.proposal.study, number, "plan")
        if found is not None:
            return parse(Signed, found)
        self._look_back(number)
        plan = RoundPlan(
            study=self.proposal.study,
            proposal_hash=self.proposal.proposal_hash,
            round=number,
            model_hash=self.model_hash(number - 1),
            key_hash=str(key.payload["key_hash"]),
            weights=self._planner.weights(),
            scales=self._planner.scales(),
            deadline_seconds=self.proposal.deadline_seconds,
            canonical=self.proposal.canonical,
        )
        signed = seal(self._identity, "round-plan", plan)
        self._store.put_document(self.proposal.study, number, "plan", signed)
        self._journal.append("round-planned", planned(plan))
        return signed

    def _look_back(self, number: int) -> None:
        """Have the planner see every finished round before ``number``, also those before a restart."""
        for past in range(self._planner.finished + 1, number):
            self._planner.observe(ends.finished_round(self._store, self.proposal.study, past))

    async def _collect(self, number: int, documents: Mapping[str, Signed]) -> None:
        """Ask whom the round waits for, add what comes, stop in time; ask once more if too few came."""
        self._expected = self._attendance.expected(number, self.intake.excluded)
        await self.intake.open(number)
        for attempt in (1, 2):
            asked = self._expected.asked - set(self.intake.headers(number))
            self._refusals.forget(number, *asked)
            self._board.publish(asked, self.arrivals.ask(self._item("train", number, documents=documents)))
            await self._attendance.arrived(
                self.waits,
                number,
                missing=lambda: self._expected.asked - set(self.intake.headers(number)) - self._refusing(number),
                enough_came=lambda: self._enough(number, set(self.intake.headers(number))),
            )
            if self._enough(number, set(self.intake.headers(number))):
                break
            self._journal.append("round-repeated", {"study": self.proposal.study, "round": number, "attempt": attempt})
        self.arrivals.ended()
        await self.intake.shut()
        self._board.withdraw(self.proposal.study, when=lambda i: i.kind == "train")
        never = self._refusals.for_good(number)
        others = set(self._expected.asked) - never
        self._lose_unless_enough(number, never, others, "send an update in this round")
        self._require_enough(number, set(self.intake.headers(number)))

    async def _close(
        self, number: int, plan: Signed, key: Signed, present: set[str], closing: int
    ) -> tuple[Signed, list[Signed]]:
        """Fix the list and the sum; who vanishes before tagging, or tags wrongly, is taken out, the list redone."""
        updates = self.intake.headers(number)
        while True:
            closing += 1
            chosen = {s: updates[s] for s in sorted(present)}
            commitments = await fixed_list(self.proposal, self._records, self.intake, plan, chosen, closing)
            present = {str(u["payload"]["site"]) for u in commitments.payload["updates"]}
            if left_out := await self._unusable(number, plan, key, commitments):
                present -= left_out  # nobody has signed this list
                continue
            documents = {
                "commitments": commitments,
                **self.helping.chosen(number, closing),
                **self.helping.voids(number, closing),
            }
            self._refusals.forget(number, *present)
            self._board.publish(present, self._item("attest", number, closing, documents))
            await self._attested(number, closing, present)
            self._board.withdraw(self.proposal.study, when=lambda i: i.kind == "attest")
            attested = self._documents(number, "attestation", closing)
            if set(attested) >= present:
                return commitments, [parse(Signed, attested[s]) for s in sorted(present)]
            never = (present - set(attested)) & self._refusing(number) if self.proposal.helpers else set()
            self._lose_unless_enough(number, never, present - never, "sign the list of the round")
            present &= set(attested)
            self._require_enough(number, present)
            if reason := await self.helping.void(number, commitments):
                self._lose(number, reason)
                raise StudyPaused(f"round {number}: {reason}")

    async def _unusable(self, number: int, plan: Signed, key: Signed, commitments: Signed) -> frozenset[str]:
        """Have keyholder and helpers commit to a list's pad sums; return the sites whose pads cannot be used."""
        documents = {"plan": plan, "key": key, "commitments": commitments}
        vouching = await self.helping.vouching(number, documents)
        for party, sites in vouching.accused.items():
            about = {"round": number, "by": party, "sites": sorted(sites), "left_out": sorted(vouching.left_out)}
            self._journal.append("pads-unreadable", {"study": self.proposal.study, **about})
        listed = {str(u["payload"]["site"]) for u in commitments.payload["updates"]}
        if vouching.problem and not (vouching.left_out and self._enough(number, listed - vouching.left_out)):
            self._lose(number, vouching.problem)
            raise StudyPaused(f"round {number}: {vouching.problem}")
        return vouching.left_out

    def _lose_unless_enough(self, number: int, never: set[str], others: set[str], what: str) -> None:
        """Write a round off that cannot end, since some hospitals will never do their part and the others are too few.

        Who was started anew, for one, never signs a list with helpers, and sends an update only if it is cleared.
        """
        if never and not self._enough(number, others):
            reason = f"{names(never)} cannot {what}, and the others are too few"
            self._lose(number, reason)
            raise StudyPaused(f"round {number}: {reason}; {NEXT_ROUND}")

    async def _attested(self, number: int, closing: int, sites: set[str]) -> None:
        def missing() -> set[str]:
            return sites - set(self._documents(number, "attestation", closing))

        await self.waits.until(
            lambda: missing() <= self._refusing(number),
            self.proposal.deadline_seconds,
            lambda: f"round {number}: signatures under the list of {names(missing())}",
        )

    async def _decrypt(
        self, number: int, plan: Signed, key: Signed, commitments: Signed, attestations: list[Signed]
    ) -> dict[str, np.ndarray] | None:
        """Return the integers, or None where the keyholder cannot use what some sites sent."""
        keyholder = self.proposal.keyholder.name
        closing = int(commitments.payload["closing"])
        documents = {"plan": plan, "key": key, "commitments": commitments, **self.helping.chosen(number, closing)}
        item = self._item("decrypt", number, closing, documents)
        item = replace(item, attestations=tuple(attestations))
        serve(self._store, parse(Commitments, dict(commitments.payload)))
        await self.helping.answers(number, documents, attestations)
        if not await self._answered_with(number, item):
            refused = self._refusals.of(number, keyholder)
            listed = {str(u["payload"]["site"]) for u in commitments.payload["updates"]}
            named, why = self.helping.blamed(number, refused)
            unusable = listed & named
            self._lose(number, why if unusable else self._reason(number), unusable)
            if unusable:
                return None
            raise self._refusal(number)
        self._board.withdraw(self.proposal.study, party=keyholder, when=lambda i: i.kind == "decrypt")
        result = self._documents(number, "result")[keyholder]
        return model_from_bytes(self._store.blob(result["payload"]["integers_hash"]))

    async def _answered_with(self, number: int, item: WorkItem) -> bool:
        """Ask the keyholder to decrypt, once more with what it wants of helpers and sites; return whether it did."""
        keyholder, known = self.proposal.keyholder.name, self.helping.documents(number)
        while True:
            self._board.publish(keyholder, replace(item, documents={**item.documents, **known}))
            if await self._answered(number, "result"):
                return True
            again = await self.helping.confirmations(number, item.documents, [keyholder]) or item.attestations
            refused = self._refusals.of(number, keyholder)
            await self.helping.all_answers(number, refused.wants if refused else ())
            newer = self.helping.documents(number)
            if newer.keys() == known.keys() and again == item.attestations:
                return False
            known, item = newer, replace(item, attestations=again)
            self._refusals.forget(number, keyholder)

    def _step(
        self, number: int, plan: Signed, commitments: Signed, totals: Mapping[str, np.ndarray], seconds: float
    ) -> None:
        """Divide by the weight that arrived, take the server's step, write the checkpoint."""
        headers = [parse(UpdateHeader, dict(u["payload"])) for u in commitments.payload["updates"]]
        opened = parse(RoundPlan, dict(plan.payload))
        before, sites = model_from_bytes(self._store.blob(self.model_hash(number - 1))), [h.site for h in headers]
        model = ends.model_after(self.proposal, opened, self.optimizer, before, totals, sites)
        moments = self.optimizer.moments
        checkpoint = ends.finished_checkpoint(self._store, self.proposal, opened, headers, model, moments, seconds)
        checkpoint |= self._expected.noted
        checkpoint["at"] = self._journal.now().isoformat(timespec="seconds")
        self._store.put_document(self.proposal.study, number, "checkpoint", checkpoint)
        self._journal.append("round-finished", {"study": self.proposal.study, "round": number, **checkpoint})
        self._drop_updates(number)

    # what parties send -----------------------------------------------------------------------------------------

    async def receive_update(self, upload: Upload, header: UpdateHeader) -> None:
        """Keep and add one encrypted update whose header :meth:`Intake.announced` accepted."""
        await self.intake.take(upload, header)
        self._board.withdraw(self.proposal.study, party=header.site, when=lambda i: i.kind == "train")
        self.wake()

    def refused(
        self, party: str, number: int, reason: str, without: Collection[str] = (), wants: Collection[str] = ()
    ) -> None:
        """Take note that ``party`` will not do its part of a round, and why; what it was asked is withdrawn.

        ``without`` are the sites whose updates it cannot use, ``wants`` the helpers that the keyholder needs first.
        """
        self._refusals.note(party, number, reason, without, wants)
        self._board.withdraw(self.proposal.study, party=party, when=lambda i: i.round == number)
        self.wake()

    def leave_out(self, site: str, why: str) -> None:
        """Go on without a hospital that revoked its approval or was dropped."""
        self.intake.excluded = self._excluded()
        self.refused(site, self._store.last_round(self.proposal.study, "checkpoint") + 1, why)

    def wake(self) -> None:
        """Let the runner look again at what has arrived."""
        self.waits.wake()

    def model_hash(self, after_round: int) -> str:
        """Return the hash of the global model after a round (0: the initial model)."""
        kind = "checkpoint" if after_round else "initial"
        document = self._store.document(self.proposal.study, after_round, kind)
        if document is None:
            raise InvalidInput(f"study {self.proposal.study!r} has no model after round {after_round}")
        return str(document["model_hash"])

    def _load_optimizer(self, after_round: int) -> None:
        if (document := self._store.document(self.proposal.study, after_round, "checkpoint")) is not None:
            self.optimizer.moments = model_from_bytes(self._store.blob(document["moments_hash"]))

    def _closings(self, number: int) -> int:
        """Return how often the list of a round was closed; each list is numbered by it."""
        return self._store.count(self.proposal.study, number, "commitments", author="")

    def _documents(self, number: int, kind: str, closing: int | None = None) -> dict[str, dict[str, Any]]:
        return self._store.documents(self.proposal.study, number, kind, closing=closing)

    def _enough(self, number: int, sites: set[str]) -> bool:
        plan = self._store.document(self.proposal.study, number, "plan") or {"payload": {"weights": {}}}
        return enough(self.proposal, plan["payload"]["weights"], sites)

    def _require_enough(self, number: int, sites: set[str]) -> None:
        if not self._enough(number, sites):
            raise ends.too_few(self._store, self.proposal, number, sites)

    def _excluded(self) -> frozenset[str]:
        study = self.proposal.study
        return excluded_sites(self._store, study) | frozenset(withdrawn_sites(self._store, study))

    def _item(
        self, kind: Any, number: int, closing: int = 0, documents: Mapping[str, Signed] | None = None
    ) -> WorkItem:
        return WorkItem(kind=kind, study=self.proposal.study, round=number, closing=closing, documents=documents or {})
