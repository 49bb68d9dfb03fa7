"""From a worker's vectors to the integers that are encrypted; a simulation adds the same integers in the clear."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from datasites.contract import Proposal, RoundPlan
from datasites.round_checks import checked_update
from datasites.shared_encoding import checked_integers
from privacy.quantise import quantise
from privacy.randomness import Randomness

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
        randomness: :func:`datasites.round_randomness.daemon_stream` of the round.
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
