"""The round that releases feature means: DP-SGD on a loss whose gradient is the record's inputs.

Under DP-SGD a record's gradient is clipped as a whole, and a linear model's gradient is a residual times the inputs.
Most of the norm of the TCGA slide features is their mean (squared norm 1.6 of 2.3), which says nothing about a
patient, yet eats the clipping norm, sets the largest stable step and leaves the informative directions untrained when
the budget ends. A centred study's first round therefore trains on :func:`centring_loss` from zero: what its sum holds
is the noised mean of the clipped inputs, in the blocks that else hold weights. Sampling, clipping norm, noise, packing
and accounting are those of every other round; nothing downstream can tell it from one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from torch import Tensor, nn

from models.batch import Batch, has
from models.errors import InvalidModel
from models.linear import LinearFusion


def centring_loss(unit: float, modalities: Collection[str]) -> Callable[[nn.Module, Batch], Tensor]:
    """Return a loss per record, float32 [B], whose gradient is ``-unit`` times the record's scaled inputs.

    Args:
        unit: see :func:`models.config.centring_unit`; above 0.
        modalities: whose means are wanted; the others' gradient is zero, and so is that of the cohort's bias.
    """

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        if not isinstance(model, LinearFusion):
            raise InvalidModel("only the linear model centres its inputs")
        total = 0.0 * model.bias(batch).sum(dim=1, keepdim=True)  # every parameter needs a gradient per record
        for modality, branch in model.branches.items():
            wanted = float(modality in modalities)
            total = total - unit * wanted * branch(model.scaled(batch, modality)) * has(batch, modality)
        return total[:, 0]

    return loss
