"""The loss of each record: that of a study's outcome, and the loss whose gradient releases feature means.

:func:`batch_loss` compares what a model returns with labels [B] (:mod:`models.outcomes`).

A centred study trains its first round on :func:`centring_loss` instead. Under DP-SGD a record's gradient is clipped as
a whole, and a linear model's gradient is a residual times the inputs. Most of the norm of the TCGA slide features is
their mean (squared norm 1.6 of 2.3). The mean says nothing about a patient, yet it uses up the clipping norm and
limits the stable step. The gradient of :func:`centring_loss` is the record's inputs, so the noised sum of that round
holds the mean of the clipped inputs. It travels in the blocks that hold weights in every other round; sampling,
clipping norm, noise, packing and accounting are the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection

import torch
from torch import Tensor, nn

from models.batch import Batch, has
from models.config import USUAL_SPREAD, InvalidModel, ModelConfig
from models.counter import Counter, counting_loss
from models.networks import LateFusionNetwork, LinearFusion
from models.outcomes import outcome_loss


def batch_loss(model: torch.nn.Module, batch: Batch, config: ModelConfig) -> Tensor:
    """Return the training loss of every record, float32 [B]; no record's loss depends on another's."""
    if isinstance(model, Counter):
        return counting_loss(model, batch)
    if isinstance(model, LateFusionNetwork):
        loss = _with_auxiliary(model, batch, config)
    else:
        loss = outcome_loss(model(batch), batch["label"], config)
    if config.class_weights:
        loss = loss * torch.tensor(config.class_weights, device=loss.device)[batch["label"]]
    return loss


def _with_auxiliary(model: LateFusionNetwork, batch: Batch, config: ModelConfig) -> Tensor:
    bias, unimodal = model.parts(batch)
    loss = outcome_loss(bias + torch.stack(list(unimodal.values())).sum(dim=0), batch["label"], config)
    for modality, logits in unimodal.items():
        present = has(batch, modality)[:, 0]
        loss = loss + config.auxiliary * present * outcome_loss(bias.detach() + logits, batch["label"], config)
    return loss


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
            total = total - unit * wanted * branch(model.scaled(batch, modality))[:, :1] * has(batch, modality)
        return total[:, 0]

    return loss


def refining_loss(unit: float, modalities: Collection[str], *, spreads: bool) -> Callable[[nn.Module, Batch], Tensor]:
    """Return a loss per record, float32 [B], whose gradient is ``-unit`` times what is left around the means.

    Args:
        unit: see :func:`models.config.centring_unit`; above 0.
        modalities: those that the model standardises; the others' gradient is zero.
        spreads: the distances from the means, each over :data:`models.config.USUAL_SPREAD` and the root of the number
            of features, in place of what is left of the scaled inputs without them.
    """

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        if not isinstance(model, LinearFusion):
            raise InvalidModel("only the linear model standardises its inputs")
        total = 0.0 * model.bias(batch).sum(dim=1, keepdim=True)
        for modality, branch in model.branches.items():
            left = model.centred(batch, modality)
            if spreads:
                left = left.abs() / (model.scales[modality] * USUAL_SPREAD * math.sqrt(left.shape[1]))
            total = total - unit * float(modality in modalities) * branch(left)[:, :1] * has(batch, modality)
        return total[:, 0]

    return loss
