"""From a worker's vectors to the integers that are encrypted; a simulation adds the same integers in the clear."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load

from datasites.study.messages import RoundPlan
from datasites.study.proposal import Proposal
from datasites.study.recomputed.next_model import flatten
from datasites.study.recomputed.released_numbers import step_records
from privacy.dp.randomness import Randomness
from privacy.errors import InvalidInput

Integers = dict[str, NDArray[np.int64]]


def encode_update(
    proposal: Proposal, plan: RoundPlan, site: str, updates: Mapping[str, np.ndarray], randomness: Randomness
) -> Integers:
    """Return the integers of every block that ``site`` sends, as the study's noise has them encoded.

    Args:
        proposal: the study's.
        plan: the round's, with the site's weights.
        site: whose update.
        updates: float32 [block.length] by block.
        randomness: :func:`datasites.study.streams.daemon_stream` of the round.
    """
    encoded: Integers = {}
    for block in proposal.blocks_of(site):
        values = checked_update(updates[block.name], block.length)
        weight = float(plan.weights[block.name][site])
        encoded[block.name] = proposal.noise_mode.integers(proposal, block, values, weight, randomness)
    return encoded


def checked_update(values: np.ndarray, length: int) -> NDArray[np.float32]:
    """Return the worker's vector as finite float32 of the right length (what is not finite becomes 0)."""
    if values.shape != (length,):
        raise InvalidInput(f"expected {length} values from the worker, got {values.shape}")
    return np.nan_to_num(values.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)


def noise_only(
    proposal: Proposal, plan: RoundPlan, site: str, model: bytes, randomness: Randomness
) -> dict[str, NDArray[np.float32]]:
    """Return what a site sends when its worker failed: no data, the usual noise, the usual shapes.

    The pull of weight decay on the public model and the plan's blending scales are in it as in every update, or their
    absence would tell. The shape is that of plain gradient steps; a round of Adam or FedProx differs
    (docs/threat-model.md).
    """
    records = step_records(proposal, plan.round, proposal.participant(site).dataset.patients)
    parameters = load(model)
    return {
        block.name: proposal.noise_mode.without_data(
            proposal, plan, block, flatten(parameters, block), records, randomness
        )
        for block in proposal.blocks_of(site)
    }
