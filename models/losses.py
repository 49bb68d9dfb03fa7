"""One loss per record: the ordinal cross-entropy over cumulative logits, [B, classes - 1] against labels [B]."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from models.batch import Batch, has
from models.config import ModelConfig
from models.mlp import LateFusionNetwork


def ordinal_loss(logits: Tensor, label: Tensor) -> Tensor:
    """Return the sum of the binary cross-entropies "later than class k", float32 [B].

    Two classes give logistic loss: ``ordinal_loss(tensor([[0.]]), tensor([1]))`` is ``log 2``. For more classes
    see CORAL (Cao, Mirjalili and Raschka 2020, section 3).

    Args:
        logits: float32 [B, classes - 1]; entry k is the log-odds of a stage later than k.
        label: int64 [B] in 0..classes-1.
    """
    steps = torch.arange(logits.shape[1])
    later = (label[:, None] > steps).to(logits.dtype)  # [B, classes - 1]
    return functional.binary_cross_entropy_with_logits(logits, later, reduction="none").sum(dim=1)


def probabilities(logits: Tensor) -> Tensor:
    """Return class probabilities [B, classes] from cumulative logits, monotone by a running minimum."""
    later = torch.cummin(torch.sigmoid(logits), dim=1).values
    edge = torch.ones_like(later[:, :1])
    return torch.cat([edge, later], dim=1) - torch.cat([later, 0 * edge], dim=1)


def batch_loss(model: torch.nn.Module, batch: Batch, config: ModelConfig) -> Tensor:
    """Return the training loss of every record, float32 [B]; no record's loss depends on another's."""
    if isinstance(model, LateFusionNetwork):
        loss = _with_auxiliary(model, batch, config.auxiliary)
    else:
        loss = ordinal_loss(model(batch), batch["label"])
    if config.class_weights:
        loss = loss * torch.tensor(config.class_weights)[batch["label"]]
    return loss


def _with_auxiliary(model: LateFusionNetwork, batch: Batch, weight: float) -> Tensor:
    bias, unimodal = model.parts(batch)
    loss = ordinal_loss(bias + torch.stack(list(unimodal.values())).sum(dim=0), batch["label"])
    for modality, logits in unimodal.items():
        present = has(batch, modality)[:, 0]
        loss = loss + weight * present * ordinal_loss(bias.detach() + logits, batch["label"])
    return loss
