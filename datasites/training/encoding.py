"""From a worker's vectors to the integers that are encrypted; a simulation adds the same integers in the clear.

Also here:

* The public constants of shared noise in one study: the same at every site and at the orchestrator.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load

from datasites.study.messages import RoundPlan
from datasites.study.proposal import Block, Proposal
from datasites.study.released_numbers import training_share
from privacy.dp.randomness import Randomness
from privacy.dp.shared_noise import SharedEncoding, choose_encoding, encode, mean_gradient
from privacy.encryption.packing import quantise
from privacy.errors import InvalidInput


def encoding_of(proposal: Proposal) -> SharedEncoding:
    """Return the encoding that a proposal with shared noise fixes.

    Raises:
        Refused, InvalidInput: no encoding fits the proposal's levels and box.
    """
    return choose_encoding(
        proposal.mechanism,
        values=sum(block.length for block in proposal.exchanged_blocks()),
        bound=proposal.training.update_bound,
        levels=proposal.encryption.levels,
    )


def share_integers(proposal: Proposal, block: Block, gradient_sum: np.ndarray, randomness: Randomness) -> np.ndarray:
    """Return one block's integers with this site's share of the noise.

    Args:
        proposal: with shared noise.
        block: an exchanged block.
        gradient_sum: float64 [block.length], the clipped sum; zeros where the site lacks the modality.
        randomness: the round's stream.
    """
    return encode(gradient_sum, encoding_of(proposal), randomness.child(f"share of {block.name}"))


def checked_integers(proposal: Proposal, values: np.ndarray) -> np.ndarray:
    """Return the worker's vector as the integers it must hold, int64.

    Raises:
        InvalidInput: a value is no integer or beyond the encoding's levels.
    """
    integers: np.ndarray = np.rint(values).astype(np.int64)
    if not np.array_equal(integers, values) or int(np.abs(integers).max(initial=0)) > encoding_of(proposal).levels:
        raise InvalidInput("expected integers within the encoding's levels from the worker")
    return integers


def block_gradient(
    proposal: Proposal, block: Block, total: np.ndarray, sites: Sequence[str], number: int
) -> np.ndarray:
    """Return the noised mean gradient of a block from the decrypted sum of its integers, float64.

    Args:
        proposal: with shared noise.
        block: an exchanged block.
        total: int64 [block.length].
        sites: whose updates are in the sum; the mean is over the share that trains of the released patient counts of
            those that hold the block's modality.
        number: the round.
    """
    holders = [p for p in proposal.participants if p.name in sites and block.modality in (None, *p.modalities)]
    return mean_gradient(
        total.astype(np.int64),
        encoding_of(proposal),
        sampling_rate=proposal.mechanism.sampling_rate,
        expected_records=max(1.0, training_share(proposal, number) * sum(p.dataset.patients for p in holders)),
    )


Integers = dict[str, NDArray[np.int64]]


def encode_update(
    proposal: Proposal, plan: RoundPlan, site: str, updates: Mapping[str, np.ndarray], randomness: Randomness
) -> Integers:
    """Return the integers of every block that ``site`` sends.

    Local noise: bounded by the public box, weighted and rounded stochastically. Shared noise: the worker's integers,
    checked.

    Args:
        proposal: the study's.
        plan: the round's, with the site's weights.
        site: whose update.
        updates: float32 [block.length] by block.
        randomness: :func:`datasites.study.streams.daemon_stream` of the round.
    """
    rounding = randomness.child("rounding")
    encoded: Integers = {}
    for block in proposal.blocks_of(site):
        values = checked_update(updates[block.name], block.length)
        if proposal.noise == "shared":
            encoded[block.name] = checked_integers(proposal, values)
        else:
            encoded[block.name] = quantise(
                values,
                bound=proposal.training.update_bound,
                weight=float(plan.weights[block.name][site]),
                levels=proposal.encryption.levels,
                uniform=rounding.child(block.name).uniform,
            )
    return encoded


def checked_update(values: np.ndarray, length: int) -> np.ndarray:
    """Return the worker's vector as finite float32 of the right length (what is not finite becomes 0)."""
    if values.shape != (length,):
        raise InvalidInput(f"expected {length} values from the worker, got {values.shape}")
    return np.nan_to_num(values.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)


def noise_only(
    proposal: Proposal, plan: RoundPlan, site: str, model: bytes, randomness: Randomness
) -> TrainingResultParts:
    """Return what a site sends when its worker failed: no data, the usual noise, the usual shapes.

    The pull of weight decay on the public model and the plan's blending scales are in it as in every update, or their
    absence would tell. The shape is
    that of plain gradient steps; a round of Adam or FedProx differs (docs/threat-model.md).
    """
    mechanism, training = proposal.mechanism, proposal.training
    if proposal.noise == "shared":
        zeros = {b.name: share_integers(proposal, b, np.zeros(b.length), randomness) for b in proposal.blocks_of(site)}
        return {name: values.astype(np.float32) for name, values in zeros.items()}
    records = max(1.0, training_share(proposal, plan.round) * proposal.participant(site).dataset.patients)
    step = training.learning_rate * mechanism.share_deviation / (mechanism.sampling_rate * records)
    deviation = step * math.sqrt(mechanism.steps_per_round)
    parameters = load(model)
    result = {}
    for block in proposal.blocks_of(site):
        flat = np.concatenate([np.asarray(parameters[name], np.float32).reshape(-1) for name in block.parameters])
        scale = plan.scales.get(block.name, 1.0)
        pull = (1 - scale * training.learning_rate * training.weight_decay) ** mechanism.steps_per_round - 1
        noise = randomness.child(block.name).gaussian((block.length,), scale * deviation)
        result[block.name] = (noise + pull * flat).astype(np.float32)
    return result


TrainingResultParts = dict[str, np.ndarray]
