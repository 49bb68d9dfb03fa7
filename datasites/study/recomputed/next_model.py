"""From the decrypted integers of a round to the next global model, from public numbers alone.

The noise mode reads the mean update out of the sum, and the server's step turns it into the next model. The first round
of a centred study writes its feature means instead: there the mean update of a modality's block is a known length times
the mean of the scaled, clipped inputs, and the weights stay at zero (:mod:`datasites.study.recomputed.centring`).
Whoever holds the plan, the model and the sum gets the same bytes. numpy only, no torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from safetensors.numpy import load, save

from datasites.strategy.own_step import OWN, Stepping
from datasites.study.messages import RoundPlan
from datasites.study.proposal import Block, Proposal, Training
from datasites.study.recomputed.centring import Moment, centre_size, moment_of, shrunk, spreads_from
from datasites.study.recomputed.released_numbers import step_records
from models.config import CENTRES, SPREADS
from privacy.errors import InvalidInput

Arrays = dict[str, np.ndarray]


def flatten(arrays: Mapping[str, np.ndarray], block: Block) -> np.ndarray:
    """Return a block's arrays as one vector [block.length], in the order of its parameters.

    Raises:
        InvalidInput: another number of values than the block has.
    """
    values = np.concatenate([arrays[name].ravel() for name in block.parameters])
    if values.size != block.length:
        raise InvalidInput(f"expected {block.length} parameters in block {block.name!r}, got {values.size}")
    return values


def scatter(model: Arrays, block: Block, values: np.ndarray) -> None:
    """Write one float32 vector of ``block.length`` back into the model's parameters."""
    start = 0
    for name in block.parameters:
        size = model[name].size
        model[name] = values[start : start + size].reshape(model[name].shape).astype(np.float32)
        start += size


def restoring_gain(proposal: Proposal, plan: RoundPlan) -> float:
    """Return what the server multiplies modality blocks with, so that their scales average 1."""
    scales = [plan.scales.get(b.name, 1.0) for b in proposal.exchanged_blocks() if b.modality is not None]
    return len(scales) / sum(scales) if scales else 1.0


def mean_updates(
    proposal: Proposal,
    plan: RoundPlan,
    model: Mapping[str, np.ndarray],
    totals: Mapping[str, np.ndarray],
    sites: Sequence[str],
) -> Arrays:
    """Return each exchanged block's mean update from the decrypted integers, float32.

    Blending scales average 1 over the modalities here, whoever applied them.

    Args:
        proposal: the study's.
        plan: the round's.
        model: parameters before the round.
        totals: block name to integers.
        sites: whose updates are in the sum.
    """
    updates = {}
    for block in proposal.exchanged_blocks():
        total, before = totals[block.name].astype(np.int64), flatten(model, block)
        records = trained_records(proposal, block, plan.round, sites)
        update = proposal.noise_mode.mean_update(proposal, plan, block, total, before, sites, records)
        if block.modality is not None:
            update = update * np.float32(restoring_gain(proposal, plan))
        updates[block.name] = update
    return updates


def trained_records(proposal: Proposal, block: Block, number: int, sites: Sequence[str]) -> float:
    """Return how many records of ``sites`` that hold a block's modality train in a round, from the released counts.

    A counting study divides by none, so it is 1 there.
    """
    holders = [p for p in proposal.participants if p.name in sites and block.modality in (None, *p.modalities)]
    return step_records(proposal, number, sum(p.dataset.patients for p in holders))


def noise_deviation(proposal: Proposal, plan: RoundPlan, block: Block, sites: Sequence[str]) -> float:
    """Return the standard deviation of the noise on each coordinate of a block's mean update, from public numbers."""
    mechanism, contributors = proposal.mechanism, proposal.contributors(block)
    present = [site for site in sites if site in contributors]
    step = proposal.training.learning_rate * mechanism.share_deviation / mechanism.sampling_rate
    if not proposal.noise_mode.sites_train:
        return step * math.sqrt(len(present)) / trained_records(proposal, block, plan.round, sites)
    weights = plan.weights[block.name]
    parts = [weights[site] / trained_records(proposal, block, plan.round, [site]) for site in present]
    return step * math.sqrt(mechanism.steps_per_round) * math.hypot(*parts) / sum(weights[site] for site in present)


@dataclass
class ServerOptimizer:
    """The server's step on a whole model; its moments travel in the checkpoint.

    ``own`` runs the rule of the study's code tree, where the study brings one.
    """

    training: Training
    moments: Arrays = field(default_factory=dict)
    own: Stepping | None = None

    def step(self, model: Arrays, blocks: Sequence[Block], updates: Mapping[str, np.ndarray]) -> Arrays:
        """Return the next model.

        Args:
            model: parameter name to float32 array.
            blocks: the exchanged blocks.
            updates: block name to the weighted mean update, float32 of the block's length.
        """
        rule = self.training.server_step
        result = {name: np.array(value, np.float32) for name, value in model.items()}
        if rule.name == OWN and self.own is not None:
            return self._own_step(self.own, result, blocks, updates)
        for block in blocks:
            state = self._state(block)
            scatter(result, block, rule.step(flatten(result, block), updates[block.name], state))
            self.moments |= {f"{block.name}.{name}": value for name, value in state.items()}
        return result

    def _own_step(
        self, own: Stepping, model: Arrays, blocks: Sequence[Block], updates: Mapping[str, np.ndarray]
    ) -> Arrays:
        before = {block.name: flatten(model, block).astype(np.float32) for block in blocks}
        states = {block.name: self._state(block) for block in blocks}
        found = own(before, {block.name: updates[block.name] for block in blocks}, states)
        for block in blocks:
            scatter(model, block, found.models[block.name])
        kept = {block.name: found.states.get(block.name, {}) for block in blocks}
        self.moments = {f"{block}.{name}": value for block, state in kept.items() for name, value in state.items()}
        return model

    def _state(self, block: Block) -> Arrays:
        found = {name.rpartition("."): value for name, value in self.moments.items()}
        return {own: value for (owner, _, own), value in found.items() if owner == block.name}


def with_centres(
    model: Mapping[str, np.ndarray],
    blocks: Sequence[Block],
    updates: Mapping[str, np.ndarray],
    size: float,
    moment: Moment = "means",
    deviations: Mapping[str, float] | None = None,
) -> Arrays:
    """Return the model with its centres or spreads written from the mean updates of a round that releases them.

    Args:
        model: parameter name to float32 array, with one ``centres.MODALITY`` for each modality, and one
            ``spreads.MODALITY`` for each that is standardised.
        blocks: the exchanged blocks; those of a modality hold its weights and nothing else.
        updates: block name to mean update, float32 of the block's length.
        size: the update per unit of a mean: the step's length times the loss's unit.
        moment: what the round released.
        deviations: of a model that shrinks its means: the noise in each block's mean update, by its name.
    """
    result = {name: np.array(value, np.float32) for name, value in model.items()}
    for block in blocks:
        if block.modality is None or (moment != "means" and SPREADS + block.modality not in result):
            continue
        features = result[
            CENTRES + block.modality
        ].size  # of classes without an order the first weight vector holds them
        found = (updates[block.name][:features] / np.float32(size)).astype(np.float32)
        if deviations is not None and moment == "means":
            found = shrunk(found, deviations[block.name] / size)
        if moment == "spreads":
            result[SPREADS + block.modality] = spreads_from(found)
        else:
            before = result[CENTRES + block.modality] if moment == "remainders" else np.float32(0.0)
            result[CENTRES + block.modality] = (before + found).astype(np.float32)
    return result


def next_model(
    proposal: Proposal,
    plan: RoundPlan,
    optimizer: ServerOptimizer,
    model: Arrays,
    totals: Mapping[str, np.ndarray],
    sites: Sequence[str],
) -> Arrays:
    """Return the model after a round, from the decrypted integers of ``sites`` (in the order of their names)."""
    updates = mean_updates(proposal, plan, model, totals, sites)
    moment = moment_of(proposal.model, plan.round)
    if moment is not None:
        training = proposal.training
        pull = training.weight_decay + training.proximal_mu
        size = centre_size(proposal.mechanism, rate=training.learning_rate, pull=pull, moment=moment)
        blocks = proposal.exchanged_blocks()
        deviations = {b.name: noise_deviation(proposal, plan, b, sites) for b in blocks}
        return with_centres(model, blocks, updates, size, moment, deviations if proposal.model.shrunk else None)
    return optimizer.step(model, proposal.exchanged_blocks(), updates)


def model_to_bytes(model: Mapping[str, np.ndarray]) -> bytes:
    """Return a model as safetensors; the same model gives the same bytes."""
    return bytes(save({name: np.ascontiguousarray(model[name]) for name in sorted(model)}))


def model_from_bytes(data: bytes) -> Arrays:
    """Read what :func:`model_to_bytes` wrote."""
    return dict(load(data))
