"""Which round of a centred study releases feature means, and what a site trains in it (:mod:`models.centring`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from datasites.contract import Proposal

if TYPE_CHECKING:
    from torch import Tensor, nn

    RecordLoss = Callable[[nn.Module, Mapping[str, Tensor]], Tensor]

ROUND = 1
"""The round that releases the means: weights are still zero, which is where the release reads them from."""


def releases_centres(proposal: Proposal, number: int) -> bool:
    """Return whether round ``number`` releases feature means in place of a gradient."""
    return proposal.model.centred and number == ROUND


def first_training_round(proposal: Proposal) -> int:
    """Return the first round that trains the model."""
    return ROUND + 1 if proposal.model.centred else ROUND


def loss_of(proposal: Proposal, number: int, record_loss: RecordLoss) -> RecordLoss:
    """Return what a site trains on in round ``number``: the study's loss, or the one whose gradient is the inputs."""
    if not releases_centres(proposal, number):
        return record_loss
    from models.centring import centring_loss
    from models.config import centring_unit

    exchanged = {block.modality for block in proposal.exchanged_blocks() if block.modality is not None}
    return centring_loss(centring_unit(proposal.mechanism.max_grad_norm), exchanged)


def length_of_step(proposal: Proposal) -> float:
    """Return how far a constant gradient of 1 moves a parameter in the centring round of a study."""
    training = proposal.training
    steps = 1 if proposal.noise == "shared" else proposal.mechanism.steps_per_round
    return length_of(steps, rate=training.learning_rate, pull=training.weight_decay + training.proximal_mu)


def length_of(steps: int, *, rate: float, pull: float) -> float:
    """Return how far ``steps`` of gradient descent along a constant gradient of 1 move a parameter from zero.

    Weight decay and the proximal term both pull back to zero, the start: step k of n counts (1 - rate pull)^(n - k).
    """
    return rate * sum((1.0 - rate * pull) ** k for k in range(steps))
