"""Which round of a centred study releases feature means, what is trained in it and what comes out (models.losses)."""

from __future__ import annotations

from datasites.study.proposal import Proposal
from models.config import ModelConfig, centring_unit
from privacy.dp.mechanism import Mechanism

CENTRING_ROUND = 1
"""The round that releases the means: weights are still zero, which is where the release reads them from."""


def releases_centres(model: ModelConfig, number: int) -> bool:
    """Return whether round ``number`` of a study of ``model`` releases feature means in place of a gradient."""
    return model.centred and number == CENTRING_ROUND


def first_training_round(proposal: Proposal) -> int:
    """Return the first round that trains the model."""
    return CENTRING_ROUND + 1 if proposal.model.centred else CENTRING_ROUND


def centre_size(mechanism: Mechanism, *, rate: float, pull: float) -> float:
    """Return the mean update of a modality's block per unit of a scaled mean input.

    Weight decay and the proximal term both pull back to zero, the start: step k of n counts (1 - rate pull)^(n - k).

    Args:
        mechanism: of the study.
        rate: of learning.
        pull: weight decay plus proximal mu.
    """
    pulled = sum((1.0 - rate * pull) ** k for k in range(mechanism.steps_per_round))
    return centring_unit(mechanism.max_grad_norm) * rate * pulled
