"""Where the model of a round comes from at this hospital: it is computed here, and fetched only if the study says so.

The initial model is built in the sandbox, without data, from the public seed and configuration. Each next one follows
from what the keyholder signed (:mod:`datasites.study.recomputed.chain`). The chain lies in one file of the study's
folder; it can be lost, since it is recomputed from the first round on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from datasites.hospital.rounds.published import PublishedRounds, most_bytes
from datasites.node.files import write_atomically
from datasites.node.home import Home
from datasites.node.http import Declined, SignedClient
from datasites.study.messages import RoundPlan
from datasites.study.proposal import Chain, Proposal
from datasites.study.recomputed.chain import ModelChain, RoundEvidence, check_layout, integers_limit, voids
from datasites.study.recomputed.shown import documents_limit, read_shown
from datasites.study.signing import parse
from datasites.worker.rule import RuleOf, brings_none
from privacy.canonical import sha256_hex
from privacy.errors import InvalidInput, Refused
from privacy.ledger.journal import Journal

FOLLOWED, OTHER_PLAN = "models-followed", "other-plan-shown"
_SLACK_BYTES = 1 << 16


class InitialModel(Protocol):
    """Builds a study's model from its seed and configuration, in the sandbox and without data."""

    def __call__(self, proposal: Proposal) -> bytes:
        """Return the model as safetensors.

        Raises:
            Refused: it cannot be built here.
        """


@dataclass(frozen=True, kw_only=True)
class Models:
    """The models of this site's studies.

    ``rule_of`` gives the server's rule of a study that brings its own. ``public_key`` gives the public key of a round
    of a study that was encrypted under here, or nothing; whoever uses it compares its hash.
    """

    home: Home
    client: SignedClient
    journal: Journal
    build: InitialModel
    rule_of: RuleOf = brings_none
    public_key: Callable[[str, int], bytes] = lambda *_: b""

    def before(self, proposal: Proposal, plan: RoundPlan) -> bytes:
        """Return the model that a round begins with, as safetensors; nothing was charged yet.

        Raises:
            Refused: the plan names another model, or other weights, than follow; or one of another layout.
        """
        if proposal.chain is None or not proposal.chain.checked:
            return self._fetched(proposal, plan.model_hash)
        return self._followed(proposal, proposal.chain, plan.round - 1, plan).model

    def finish(self, proposal: Proposal) -> None:
        """Recompute the last model of a study that is over, and journal that it holds.

        Raises:
            Refused: it does not.
        """
        chain = proposal.chain
        if chain is None or not chain.checked or proposal.proposal_hash in self._entries():
            return
        found = self._followed(proposal, chain, proposal.rounds, None)
        body = {"study": proposal.study, "proposal_hash": proposal.proposal_hash, "model_hash": sha256_hex(found.model)}
        self.journal.append(FOLLOWED, {**body, "from_seed": not voids(proposal, knows=self.known)})

    def forget(self, proposal: Proposal) -> None:
        """Delete every model of a study that lies here, once its retention is over; what was signed stays."""
        own = [self._path(proposal, what) for what in ("chain", "initial")]
        short = [path.with_name(path.name.replace(proposal.proposal_hash, proposal.proposal_hash[:16])) for path in own]
        paths = [path for path in (*own, *short) if path.exists()]  # the short names are of homes from before
        for path in paths:
            path.unlink()
        body = {"study": proposal.study, "proposal_hash": proposal.proposal_hash}
        self.journal.append("models-deleted", {**body, "files": [path.name for path in paths]})

    @property
    def known(self) -> dict[str, str]:
        """By proposal hash, the last model of each study that was recomputed here from a known beginning."""
        return {hashed: model for hashed, (model, whole) in self._entries().items() if whole}

    def _entries(self) -> dict[str, tuple[str, bool]]:
        entries = self.journal.entries(kind=FOLLOWED)
        return {str(e.body["proposal_hash"]): (str(e.body["model_hash"]), bool(e.body["from_seed"])) for e in entries}

    # the chain -------------------------------------------------------------------------------------------------

    def _followed(self, proposal: Proposal, bound: Chain, number: int, plan: RoundPlan | None) -> ModelChain:
        """Return the chain up to round ``number``, with the next plan checked; a longer one that lies here stays.

        Raises:
            Refused: the plan does not follow, or a later round was recomputed here before.
        """
        kept = self._kept(proposal)
        if kept is not None and kept.round > number:
            raise Refused(f"round {number + 1} is over: the models were followed to round {kept.round} here")
        chain = kept or self._begun(proposal, bound)
        try:
            before = chain.round
            self._catch_up(chain, number)
            _check_end(chain, number, plan)
        except Declined:
            raise
        except Refused:
            if kept is None:
                raise
            chain, before = self._begun_again(proposal, bound, kept, number), -1
            _check_end(chain, number, plan)
        if chain.round != before or kept is None:
            write_atomically(self._path(proposal, "chain"), chain.to_bytes(), name_follows=True)  # it may be lost
        return chain

    def _begun(self, proposal: Proposal, bound: Chain) -> ModelChain:
        return ModelChain(proposal, self._initial(proposal, bound), self.rule_of(proposal))

    def _catch_up(self, chain: ModelChain, number: int) -> None:
        while chain.round < number:
            place = f"/studies/{chain.proposal.study}/rounds/{chain.round + 1}"
            most = documents_limit(chain.proposal) + most_bytes(chain.proposal)
            answer = self.client.get_bytes(f"{place}/evidence", params={"files": "yes"}, max_bytes=most)
            evidence, files = read_shown(answer)
            integers = b""
            if evidence.lost is None and chain.proposal.published:
                known = self.public_key(chain.proposal.study, chain.round + 1)
                files |= {"key": known} if known else {}
                published = PublishedRounds(client=self.client, journal=self.journal, files=files)
                integers = published.integers(chain.proposal, chain.round + 1, evidence)
            elif evidence.lost is None and "integers" in files:
                integers = files["integers"]
            elif evidence.lost is None:
                integers = self.client.get_bytes(f"{place}/integers", max_bytes=integers_limit(chain.proposal))
            chain.take(evidence, integers)
            self._note_other_plan(chain, evidence)

    def _note_other_plan(self, chain: ModelChain, evidence: RoundEvidence) -> None:
        """Journal that a round's sum was made under another plan than this hospital was sent; its people are told.

        An orchestrator that came back from a backup does that honestly, so the round counts all the same.
        """
        place = (chain.proposal.study, chain.round)
        sent = {said["plan_hash"] for said in self.journal.by_round("round-plan").get(place, ())}
        shown = evidence.plan and parse(RoundPlan, dict(evidence.plan.payload)).plan_hash
        if shown and sent and shown not in sent and place not in self.journal.by_round(OTHER_PLAN):
            self.journal.append(OTHER_PLAN, {"study": place[0], "round": place[1], "plan_hash": shown})

    def _begun_again(self, proposal: Proposal, bound: Chain, kept: ModelChain, number: int) -> ModelChain:
        """Recompute a chain from the first round: the orchestrator may have lost rounds that were finished here.

        Raises:
            Refused: of a round there is now another sum than was recomputed here before.
        """
        chain = self._begun(proposal, bound)
        self._catch_up(chain, number)
        for old, new in zip(kept.links, chain.links, strict=False):
            if new.integers_hash not in (old.integers_hash, ""):
                raise Refused(f"round {old.number} has another sum now than was signed for it before")
            if new.integers_hash != old.integers_hash:
                self.journal.append("round-lost-later", {"study": proposal.study, "round": old.number})
        return chain

    def _kept(self, proposal: Proposal) -> ModelChain | None:
        path = self._path(proposal, "chain")
        if not path.exists():
            return None
        try:
            return ModelChain.from_bytes(proposal, path.read_bytes(), self.rule_of(proposal))
        except InvalidInput:
            return None  # it is recomputed

    # the initial model -----------------------------------------------------------------------------------------

    def _initial(self, proposal: Proposal, bound: Chain) -> bytes:
        if bound.origin == "seed":
            built = self._built(proposal)
            if sha256_hex(built) != bound.model_hash:
                raise Refused("the study's public seed and configuration give another initial model than it binds")
            return built
        known = self.known.get(bound.study)
        if known not in (None, bound.model_hash):
            raise Refused("the study begins with another model than the last one of the study it names")
        return self._fetched(proposal, bound.model_hash)

    def _built(self, proposal: Proposal) -> bytes:
        """Return the model of the public seed; built once."""
        path = self._path(proposal, "initial")
        if not path.exists():
            write_atomically(path, self.build(proposal))
        return path.read_bytes()

    def _fetched(self, proposal: Proposal, digest: str) -> bytes:
        expected = self._built(proposal)
        data = self.client.get_bytes(f"/blobs/{digest}", max_bytes=len(expected) + _SLACK_BYTES)
        if sha256_hex(data) != digest:
            raise Refused("the orchestrator sent other bytes than the plan names")
        check_layout(data, expected)
        return data

    def _path(self, proposal: Proposal, what: str) -> Path:
        folder = self.home.round_folder(proposal.study, 0).parent
        return folder / f"{what}-{proposal.proposal_hash}.safetensors"


def _check_end(chain: ModelChain, number: int, plan: RoundPlan | None) -> None:
    if plan is not None:
        chain.check_plan(plan)
    elif chain.round != number:
        raise Refused(f"expected the chain of models to end with round {number}, got {chain.round}")
