"""Public blending scales of a round: how much longer or shorter each modality's step is than the others'.

A site multiplies its step sizes by the plan's scales (:func:`privacy.dp_sgd.train`), after the optimiser's
normalisation, so that they act under any optimiser; under shared noise the server does it. Scales are at most 1, so
that an update stays in its public box; the server gives back the length that this takes (:func:`restoring_gain`):
blending decides where the step goes, not how long it is.
"""

from __future__ import annotations

import math

from datasites.contract import Proposal, RoundPlan
from privacy.errors import Refused


def check_scales(proposal: Proposal, plan: RoundPlan) -> None:
    """Check a plan's scales.

    Raises:
        Refused: a scale outside (0, 1], of a block that is not exchanged, or other than 1 in a study without blending.
    """
    if not all(math.isfinite(s) and 0 < s <= 1 for s in plan.scales.values()):
        raise Refused("expected blending scales above 0 and at most 1")
    if not set(plan.scales) <= {b.name for b in proposal.exchanged_blocks()}:
        raise Refused("the plan's blending scales are for other blocks than the proposal's")
    if "dgb" not in proposal.training.aggregation and set(plan.scales.values()) - {1.0}:
        raise Refused("the approved study does not blend modalities: expected every scale to be 1")


def restoring_gain(proposal: Proposal, plan: RoundPlan) -> float:
    """Return what the server multiplies modality blocks with, so that their scales average 1."""
    scales = [plan.scales.get(b.name, 1.0) for b in proposal.exchanged_blocks() if b.modality is not None]
    return len(scales) / sum(scales) if scales else 1.0
