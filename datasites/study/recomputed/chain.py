"""The chain of a study's models: every site recomputes each next one and refuses a plan that names any other.

Whoever chooses a model chooses whose gradient is in the sum: one gate in the first layer, or absurd centres, and "the
sum of four" is one hospital's update. So the proposal binds the initial model, and the next ones follow from what the
keyholder signed: the integers of the one list of a round, under the one plan of that round. The plan's weights and
scales follow as well, from the numbers that the sites signed (:mod:`datasites.study.recomputed.planning`).

    >>> chain = ModelChain(proposal, initial)
    >>> chain.check_plan(plan)                 # model, weights and scales of round 1
    >>> chain.take(evidence)                   # what the keyholder answered in round 1
    >>> chain.check_plan(next_plan)            # of round 2
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from datasites.strategy.own_step import Stepping
from datasites.study.messages import Commitments, LostRound, RoundPlan, SumResult, UpdateHeader
from datasites.study.proposal import Proposal
from datasites.study.recomputed.checks import check_plan_bounds, enough
from datasites.study.recomputed.next_model import Arrays, ServerOptimizer, model_from_bytes, model_to_bytes, next_model
from datasites.study.recomputed.planning import FinishedRound, Planner
from datasites.study.recomputed.released_numbers import checked_header_numbers
from datasites.study.schema.public_constants import check_constants
from datasites.study.signing import Message, Signed, dump, open_sealed, parse
from privacy.canonical import sha256_hex
from privacy.errors import InvalidInput, Refused, Tampered
from privacy.sentences import say

_HEADER_BYTES = 1 << 16
_MODEL, _MOMENT, _STATE = "model/", "moment/", "chain"


@dataclass(frozen=True, kw_only=True)
class RoundEvidence(Message):
    """What everybody needs to compute the model after one round: the documents that the orchestrator shows.

    Of a finished round ``plan`` and ``commitments`` (signed by the orchestrator) and ``result`` (by the keyholder); of
    one without a sum only ``lost`` (by the orchestrator). In a study that publishes, also the round's ``key`` and
    ``opening`` (by the keyholder), the ``helped`` pad sums (by helpers), the ``attestations`` (by the sites) and the
    ``pad_commitments`` that these are under (by keyholder and helpers).
    """

    plan: Signed | None = None
    commitments: Signed | None = None
    result: Signed | None = None
    lost: Signed | None = None
    key: Signed | None = None
    opening: Signed | None = None
    helped: tuple[Signed, ...] = ()
    attestations: tuple[Signed, ...] = ()
    pad_commitments: tuple[Signed, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Link(Message):
    """One round of a chain: who was in its sum, with which released numbers; a lost round has no ``integers_hash``."""

    number: int
    sites: tuple[str, ...]
    releases: Mapping[str, Mapping[str, float]]
    integers_hash: str


class ModelChain:
    """The models of one study, as far as its rounds were recomputed.

    Args:
        proposal: with a checked chain.
        initial: the initial model as safetensors bytes; its hash is the proposal's.
        own: runs the study's own server's rule, if it brings one.

    Raises:
        Refused: it is another model than the proposal binds.
    """

    def __init__(self, proposal: Proposal, initial: bytes, own: Stepping | None = None) -> None:
        if proposal.chain is None or sha256_hex(initial) != proposal.chain.model_hash:
            raise Refused("the initial model is not the one that the proposal binds; propose the study again")
        if proposal.constants is not None:
            check_constants(model_from_bytes(initial), proposal.constants)
        self.proposal = proposal
        self.links: list[Link] = []
        self._optimizer = ServerOptimizer(proposal.training, own=own)
        self._planner = Planner(proposal)
        self._advance(model_from_bytes(initial))

    def _advance(self, model: Arrays) -> None:
        self._model, self.model = model, model_to_bytes(model)

    @property
    def round(self) -> int:
        """The last round that was recomputed; 0 before the first."""
        return len(self.links)

    def check_plan(self, plan: RoundPlan) -> None:
        """Check that the plan of the next round names the model of this chain, and the weights that follow.

        Raises:
            Refused: another model, weights or scales than everybody computes, or not the next round.
        """
        if plan.round != self.round + 1:
            raise Refused(f"expected the plan of round {self.round + 1}, got that of round {plan.round}")
        if plan.model_hash != sha256_hex(self.model):
            raise Refused(
                f"the plan of round {plan.round} names another model than follows from the keyholder's signed sums; "
                "no record is read for it"
            )
        if dict(plan.scales) != self._planner.scales():
            raise Refused(f"the plan of round {plan.round} has other scales than follow from the released numbers")
        if {b: dict(w) for b, w in plan.weights.items()} != self._planner.weights():
            raise Refused(f"the plan of round {plan.round} has other weights than follow from the released numbers")

    def take(self, evidence: RoundEvidence, integers: bytes) -> None:
        """Compute the model after the next round from what was signed about it.

        Args:
            evidence: of round ``self.round + 1``.
            integers: the bytes that the keyholder's result names; nothing for a lost round.

        Raises:
            Refused: something does not hold; the chain stays where it was.
        """
        try:
            if evidence.lost is not None:
                self._note(self._lost(evidence.lost))
                return
            link, totals, plan = self._finished(evidence, integers)
        except (InvalidInput, Tampered) as error:
            raise Refused(f"round {self.round + 1} cannot be recomputed: {error}") from error
        self._advance(next_model(self.proposal, plan, self._optimizer, self._model, totals, link.sites))
        self._note(link)

    def _note(self, link: Link) -> None:
        self.links.append(link)
        self._planner.observe(FinishedRound(number=link.number, sites=link.sites, releases=link.releases))

    def _lost(self, signed: Signed) -> Link:
        lost = open_sealed(
            signed, "round-lost", self.proposal.orchestrator.public_key, LostRound, since=self.proposal.canonical
        )
        expected = (self.proposal.study, self.proposal.proposal_hash, self.round + 1)
        if (lost.study, lost.proposal_hash, lost.round) != expected:
            raise Refused("the lost round is of another study or number")
        return Link(number=lost.round, sites=(), releases={}, integers_hash="")

    def _finished(self, evidence: RoundEvidence, integers: bytes) -> tuple[Link, Mapping[str, np.ndarray], RoundPlan]:
        proposal = self.proposal
        if evidence.plan is None or evidence.commitments is None or evidence.result is None:
            raise Refused(f"round {self.round + 1} has no signed sum: its plan, list or result is missing")
        plan = open_sealed(
            evidence.plan, "round-plan", proposal.orchestrator.public_key, RoundPlan, since=proposal.canonical
        )
        check_plan_bounds(proposal, plan)
        self.check_plan(plan)
        listed = open_sealed(
            evidence.commitments, "commitments", proposal.orchestrator.public_key, Commitments, since=proposal.canonical
        )
        result = open_sealed(
            evidence.result, "sum-result", proposal.keyholder.public_key, SumResult, since=proposal.canonical
        )
        about = (proposal.study, plan.round, plan.plan_hash, listed.list_hash, listed.sum_hash)
        if (listed.study, listed.round, listed.plan_hash, listed.canonical) != (*about[:3], plan.canonical):
            raise Refused("the list is of another study, round or plan")
        if (result.study, result.round, result.plan_hash, result.list_hash, result.sum_hash) != about:
            raise Refused("the keyholder's result is of another study, round, plan, list or sum")
        releases = _releases(proposal, plan, listed)
        if not enough(proposal, plan.weights, releases):
            raise Refused(f"the sum of round {plan.round} is of fewer than {proposal.min_sites} institutions")
        totals = checked_totals(proposal, integers, result.integers_hash, releases)
        sites = tuple(sorted(releases))
        link = Link(number=plan.round, sites=sites, releases=releases, integers_hash=result.integers_hash)
        return link, totals, plan

    def to_bytes(self) -> bytes:
        """Return this chain as one file: safetensors with model and moments, and its rounds in the metadata."""
        arrays = {_MODEL + name: value for name, value in self._model.items()}
        arrays |= {_MOMENT + name: value for name, value in self._optimizer.moments.items()}
        state = {"proposal_hash": self.proposal.proposal_hash, "links": [dump(link) for link in self.links]}
        return bytes(
            save({n: np.ascontiguousarray(v) for n, v in arrays.items()}, metadata={_STATE: json.dumps(state)})
        )

    @classmethod
    def from_bytes(cls, proposal: Proposal, data: bytes, own: Stepping | None = None) -> ModelChain:
        """Read what :meth:`to_bytes` wrote into this site's own folder.

        Raises:
            InvalidInput: it is no chain of this proposal.
        """
        try:
            header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
            state, arrays = json.loads(header["__metadata__"][_STATE]), load(data)
            links = [parse(Link, link) for link in state["links"]]
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            raise InvalidInput("expected a stored chain of models, could not read it") from error
        if state["proposal_hash"] != proposal.proposal_hash:
            raise InvalidInput("the stored chain of models is of another proposal")
        chain = cls.__new__(cls)
        chain.proposal, chain.links = proposal, []
        chain._optimizer, chain._planner = ServerOptimizer(proposal.training, own=own), Planner(proposal)
        chain._optimizer.moments = {n.removeprefix(_MOMENT): v for n, v in arrays.items() if n.startswith(_MOMENT)}
        chain._advance({n.removeprefix(_MODEL): v for n, v in arrays.items() if n.startswith(_MODEL)})
        for link in links:
            chain._note(link)
        return chain


def _releases(proposal: Proposal, plan: RoundPlan, listed: Commitments) -> dict[str, dict[str, float]]:
    """Return the released numbers of everybody in a list, each signed by its site under this plan."""
    found: dict[str, dict[str, float]] = {}
    for update in listed.updates:
        name = str(update.payload.get("site"))
        header = open_sealed(
            update, "update", proposal.participant(name).public_key, UpdateHeader, since=proposal.canonical
        )
        if (header.proposal_hash, header.plan_hash) != (proposal.proposal_hash, plan.plan_hash) or name in found:
            raise Refused(f"{name} stands twice in the list, or with an update of another plan")
        found[name] = checked_header_numbers(proposal, name, plan.round, header.releases)
    return found


def checked_totals(
    proposal: Proposal, integers: bytes, integers_hash: str, sites: Collection[str]
) -> dict[str, np.ndarray]:
    """Return decrypted sums by block, int [block.length], after their size, hash, layout and values were checked.

    Args:
        proposal: the study's.
        integers: safetensors, as the keyholder signed its hash.
        integers_hash: that hash.
        sites: whose updates are in the sums.

    Raises:
        InvalidInput: what is wrong; no value is said.
    """
    if len(integers) > integers_limit(proposal) or sha256_hex(integers) != integers_hash:
        raise InvalidInput("the integers are not those whose hash the keyholder signed")
    try:
        totals = load(integers)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise InvalidInput("expected the sum's integers as safetensors") from error
    check_totals(proposal, totals, sites)
    return totals


def integers_limit(proposal: Proposal) -> int:
    """Return the longest safetensors file, in bytes, that holds a round's sums."""
    return _HEADER_BYTES + 8 * sum(block.length for block in proposal.exchanged_blocks())


def check_totals(proposal: Proposal, totals: Mapping[str, np.ndarray], sites: Collection[str]) -> None:
    """Check decrypted sums against the proposal.

    Args:
        proposal: the study's.
        totals: by block, integers [block.length].
        sites: whose updates are in the sums.

    Raises:
        InvalidInput: what is wrong; no value is said.
    """
    blocks = proposal.exchanged_blocks()
    if set(totals) != {block.name for block in blocks}:
        raise InvalidInput("the result has other blocks than the proposal exchanges")
    for block in blocks:
        values = totals[block.name]
        if values.shape != (block.length,) or not np.issubdtype(values.dtype, np.signedinteger):
            raise InvalidInput(f"expected {block.length} signed integers in block {block.name!r} of the result")
        reach = proposal.encryption.levels * len(set(sites) & set(proposal.contributors(block)))
        if int(np.abs(values.astype(np.int64)).max(initial=0)) > reach:
            raise InvalidInput(f"block {block.name!r} of the result is beyond what its contributors can send together")


def check_layout(model: bytes, expected: bytes) -> None:
    """Check that a model has the parameters of another one: names, shapes, float32, and only finite values.

    Args:
        model: safetensors bytes from somebody else.
        expected: a model of the approved configuration, built here.

    Raises:
        Refused: it has not; nothing else of it is parsed before its length was compared.
    """
    if abs(len(model) - len(expected)) > _HEADER_BYTES:
        raise Refused(f"expected a model of about {len(expected)} bytes, got {len(model)}; no record is read for it")
    try:
        found, wanted = load(model), load(expected)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise Refused("the model's bytes are no safetensors; no record is read for it") from error
    if {n: (v.shape, v.dtype) for n, v in found.items()} != {n: (v.shape, v.dtype) for n, v in wanted.items()}:
        raise Refused("the model has other parameters than the approved one; no record is read for it")
    if not all(np.isfinite(v).all() for v in found.values()):
        raise Refused("the model has values that are not finite; no record is read for it")


def voids(proposal: Proposal, *, knows: Mapping[str, str] | None = None) -> str:
    """Return in one sentence what an unchecked chain takes from a study's protection; empty where all is checked.

    Args:
        proposal: the study's.
        knows: the last model's hash of each study that this site has recomputed itself, by proposal hash.
    """
    known = knows or {}
    chain = proposal.chain
    if chain is None or not chain.checked:
        return say(
            "Nobody checks the models of this study: the orchestrator may name any model in any round, and one made "
            "for it turns the sum of all hospitals into the update of a single hospital, so that encryption and sums "
            "no longer hide this hospital's own update from the orchestrator, and only the noise protects patients."
        )
    if chain.origin == "study" and known.get(chain.study, chain.model_hash) != chain.model_hash:
        return say(
            "This study says that it begins with the last model of a study that was recomputed here, and names another "
            "one: no round of it is trained here; deny it and ask the scientist."
        )
    if chain.origin == "given" or (chain.origin == "study" and chain.study not in known):
        return say(
            "Nobody here can recompute this study's initial model: whoever made it may have made it so that the first "
            "sums show the update of a single hospital, which then only the noise covers; the later models are checked."
        )
    return ""
