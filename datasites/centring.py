"""Which round of a centred study releases feature means, what is trained in it and what comes out (models.centring)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from datasites.contract import Block, Proposal
from models.config import ModelConfig, centring_unit
from privacy.mechanism import Mechanism

if TYPE_CHECKING:
    from models.batch import RecordLoss

ROUND = 1
"""The round that releases the means: weights are still zero, which is where the release reads them from."""


def releases_centres(model: ModelConfig, number: int) -> bool:
    """Return whether round ``number`` of a study of ``model`` releases feature means in place of a gradient."""
    return model.centred and number == ROUND


def first_training_round(proposal: Proposal) -> int:
    """Return the first round that trains the model."""
    return ROUND + 1 if proposal.model.centred else ROUND


def centring_loss_of(mechanism: Mechanism, exchanged: Iterable[Block]) -> RecordLoss:
    """Return the loss whose gradient is the exchanged modalities' inputs, in the unit that ``mechanism`` clips."""
    from models.centring import centring_loss  # needs torch, which a daemon does not load

    modalities = {block.modality for block in exchanged if block.modality is not None}
    return centring_loss(centring_unit(mechanism.max_grad_norm), modalities)


def centre_size(mechanism: Mechanism, *, rate: float, pull: float) -> float:
    """Return the mean update of a modality's block per unit of a scaled mean input.

    Weight decay and the proximal term both pull back to zero, the start: step k of n counts (1 - rate pull)^(n - k).

    Args:
        mechanism: of the study; under shared noise a round is one step.
        rate: of learning.
        pull: weight decay plus proximal mu.
    """
    steps = mechanism.steps_per_round if mechanism.noise == "local" else 1
    return centring_unit(mechanism.max_grad_norm) * rate * sum((1.0 - rate * pull) ** k for k in range(steps))
