"""From the decrypted integers of a round to the next global model; numpy only, no torch.

The mean update is a pseudo-gradient for the server's optimiser (Reddi et al. 2021, "Adaptive federated
optimization", Algorithm 2): ``sgd`` with rate 1 is FedAvg, ``adam`` is FedAdam.

Also here:

* From the sum of a centring round to the feature means of the next model; everything here is public.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from safetensors.numpy import load, save

from datasites.study.centring import centre_size, releases_centres
from datasites.study.checks import restoring_gain
from datasites.study.messages import RoundPlan
from datasites.study.proposal import Block, Proposal, Training
from datasites.training.encoding import block_gradient
from models.config import CENTRES
from privacy.encryption.packing import dequantise
from privacy.errors import InvalidInput

Arrays = dict[str, np.ndarray]


def with_centres(
    model: Mapping[str, np.ndarray], blocks: Sequence[Block], updates: Mapping[str, np.ndarray], size: float
) -> Arrays:
    """Return the model with its centres written from the mean updates of a centring round.

    Args:
        model: parameter name to float32 array, with one ``centres.MODALITY`` for each modality.
        blocks: the exchanged blocks; those of a modality hold its weights and nothing else.
        updates: block name to mean update, float32 [features].
        size: the update per unit of a mean input: the step's length times the loss's unit.
    """
    result = {name: np.array(value, np.float32) for name, value in model.items()}
    for block in blocks:
        if block.modality is not None:
            result[CENTRES + block.modality] = (updates[block.name] / np.float32(size)).astype(np.float32)
    return result


_BETA_1, _BETA_2, _TAU = 0.9, 0.99, 1e-3
_MOMENTUM = 0.7
"""FedAvg with server momentum (Hsu, Qi and Brown 2019): 0.9, usual over thousands of rounds, overshoots in forty."""


def gather(model: Mapping[str, np.ndarray], block: Block) -> np.ndarray:
    """Return a block's parameters as one float32 vector of ``block.length``."""
    values = np.concatenate([np.asarray(model[name], np.float32).ravel() for name in block.parameters])
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


def mean_updates(
    proposal: Proposal,
    plan: RoundPlan,
    model: Mapping[str, np.ndarray],
    totals: Mapping[str, np.ndarray],
    sites: Sequence[str],
) -> Arrays:
    """Return each exchanged block's mean update from the decrypted integers, float32.

    Blending scales average 1 over the modalities here, whoever applied them (:mod:`datasites.study.checks`). Under
    local noise the mean is over the weights that arrived. Under shared noise the total is a noised gradient sum
    over the union of the hospitals, and the update is one step of gradient descent with weight decay.

    Args:
        proposal: the study's.
        plan: the round's.
        model: parameters before the round.
        totals: block name to integers.
        sites: whose updates are in the sum.
    """
    updates = {}
    for block in proposal.exchanged_blocks():
        total = totals[block.name].astype(np.int64)
        if proposal.noise == "shared":
            gradient = block_gradient(proposal, block, total, sites, plan.round)
            gradient = gradient + proposal.training.weight_decay * gather(model, block)
            scale = plan.scales.get(block.name, 1.0)
            updates[block.name] = (-proposal.training.learning_rate * scale * gradient).astype(np.float32)
        else:
            weights = plan.weights[block.name]
            updates[block.name] = dequantise(
                total,
                bound=proposal.training.update_bound,
                levels=proposal.encryption.levels,
                total_weight=sum(weights[site] for site in sites if site in weights),
            )
        if block.modality is not None:
            updates[block.name] = updates[block.name] * np.float32(restoring_gain(proposal, plan))
    return updates


@dataclass
class ServerOptimizer:
    """The server's step; its moments travel in the checkpoint."""

    training: Training
    moments: Arrays = field(default_factory=dict)

    def step(self, model: Arrays, blocks: Sequence[Block], updates: Mapping[str, np.ndarray]) -> Arrays:
        """Return the next model.

        Args:
            model: parameter name to float32 array.
            blocks: the exchanged blocks.
            updates: block name to the weighted mean update, float32 of the block's length.
        """
        result = {name: np.array(value, np.float32) for name, value in model.items()}
        for block in blocks:
            step = self._direction(block.name, updates[block.name])
            scatter(result, block, gather(result, block) + self.training.server_learning_rate * step)
        return result

    def _direction(self, block: str, update: np.ndarray) -> np.ndarray:
        if self.training.server_optimizer == "sgd":
            return update
        beta = _MOMENTUM if self.training.server_optimizer == "momentum" else _BETA_1
        first = self._moment(f"{block}.first", beta * self._zero(f"{block}.first", update) + (1 - beta) * update)
        if self.training.server_optimizer == "momentum":
            return first
        second = self._zero(f"{block}.second", update)
        second = self._moment(f"{block}.second", _BETA_2 * second + (1 - _BETA_2) * update**2)
        return np.asarray(first / (np.sqrt(second) + _TAU), np.float32)

    def _zero(self, name: str, like: np.ndarray) -> np.ndarray:
        return self.moments.get(name, np.zeros_like(like))

    def _moment(self, name: str, value: np.ndarray) -> np.ndarray:
        self.moments[name] = value.astype(np.float32)
        return self.moments[name]


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
    if releases_centres(proposal.model, plan.round):
        training = proposal.training
        pull = training.weight_decay + training.proximal_mu
        size = centre_size(proposal.mechanism, rate=training.learning_rate, pull=pull)
        return with_centres(model, proposal.exchanged_blocks(), updates, size)
    return optimizer.step(model, proposal.exchanged_blocks(), updates)


def model_to_bytes(model: Mapping[str, np.ndarray]) -> bytes:
    """Return a model as safetensors; the same model gives the same bytes."""
    return bytes(save({name: np.ascontiguousarray(model[name]) for name in sorted(model)}))


def model_from_bytes(data: bytes) -> Arrays:
    """Read what :func:`model_to_bytes` wrote."""
    return dict(load(data))
