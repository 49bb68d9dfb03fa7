"""From what a model returns and what happened to a record: its loss, its prediction, and what evaluation counts.

A model returns float32 [B, outputs] (:class:`models.config.ModelConfig`):

=============  ==========================================  =========================================================
outcome        outputs                                     loss of one record
=============  ==========================================  =========================================================
ordered        log-odds of "later than class k"            sum of the binary cross-entropies (CORAL)
categorical    one logit per class                         cross-entropy of the softmax
count          log of the mean over the typical value      half the deviance of a negative binomial of dispersion 1
continuous     (mean - typical) / spread                   Huber's, quadratic up to one spread
survival       log-odds of the event in each interval      sum of the binary cross-entropies of the intervals entered
=============  ==========================================  =========================================================

No record's loss depends on another's. A Cox partial likelihood compares a record with everybody still at risk, so one
patient moves many terms and clipping by record bounds nothing: hence hazards of intervals (Gensheimer and Narasimhan
2019).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from models.config import ModelConfig
from models.targets import InvalidModel, Target


def outcome_loss(outputs: Tensor, label: Tensor, config: ModelConfig) -> Tensor:
    """Return the loss of every record, float32 [B].

    Args:
        outputs: float32 [B, config.outputs].
        label: [B], int64, or float32 of a continuous outcome.
        config: the model's.
    """
    target = config.predicts
    if target is None:
        return ordinal_loss(outputs, label)
    if target.kind == "categorical":
        return functional.cross_entropy(outputs, label, reduction="none")
    if target.kind == "count":
        return count_loss(outputs[:, 0] + math.log(target.typical), label)
    if target.kind == "continuous":
        scaled = (label.to(outputs.dtype) - target.typical) / target.spread
        return functional.huber_loss(outputs[:, 0], scaled, reduction="none")
    return survival_loss(outputs + _start(target), label)


def ordinal_loss(logits: Tensor, label: Tensor) -> Tensor:
    """Return the sum of the binary cross-entropies "later than class k", float32 [B].

    Two classes give logistic loss: ``ordinal_loss(tensor([[0.]]), tensor([1]))`` is ``log 2``. For more classes
    see CORAL (Cao, Mirjalili and Raschka 2020, section 3).

    Args:
        logits: float32 [B, classes - 1]; entry k is the log-odds of a stage later than k.
        label: int64 [B] in 0..classes-1.
    """
    steps = torch.arange(logits.shape[1], device=logits.device)
    later = (label[:, None] > steps).to(logits.dtype)  # [B, classes - 1]
    return functional.binary_cross_entropy_with_logits(logits, later, reduction="none").sum(dim=1)


def count_loss(log_mean: Tensor, label: Tensor) -> Tensor:
    """Return half the negative-binomial deviance at dispersion 1, float32 [B]; 0 where mean and count agree.

    The gradient by the log of the mean is ``1 - (count + 1) / (mean + 1)``: the error relative to the mean, so that a
    thousand of a thousand weighs like one of one. The mean is estimated right whatever the true dispersion is.
    """
    count = label.to(log_mean.dtype)
    best = torch.log1p(count) + torch.where(count > 0, count * torch.log1p(1.0 / count.clamp(min=1.0)), 0.0)
    return log_mean + (count + 1.0) * functional.softplus(-log_mean) - best


def survival_loss(logits: Tensor, label: Tensor) -> Tensor:
    """Return the sum of the cross-entropies of the intervals that each patient entered, float32 [B].

    Who was followed for less than one interval has loss 0.

    Args:
        logits: float32 [B, intervals], log-odds of the event in an interval among those who entered it.
        label: int64 [B] (:meth:`models.targets.Target.interval_label`).
    """
    whole, event = (label // 2)[:, None], (label % 2)[:, None]
    steps = torch.arange(logits.shape[1], device=logits.device)
    entered = (steps < whole + event).to(logits.dtype)
    here = ((steps == whole) & (event == 1)).to(logits.dtype)
    return (entered * functional.binary_cross_entropy_with_logits(logits, here, reduction="none")).sum(dim=1)


def probabilities(logits: Tensor) -> Tensor:
    """Return class probabilities [B, classes] from cumulative logits, monotone by a running minimum."""
    later = torch.cummin(torch.sigmoid(logits), dim=1).values
    edge = torch.ones_like(later[:, :1])
    return torch.cat([edge, later], dim=1) - torch.cat([later, 0 * edge], dim=1)


def predicted(outputs: Tensor, config: ModelConfig) -> Tensor:
    """Return what the model predicts of every record.

    Returns:
        probabilities of classes [B, classes]; the expected number [B, 1] in its unit, within its bounds; or the
        probability of no event until each edge [B, edges].
    """
    target = config.predicts
    if target is None:
        return probabilities(outputs)
    if target.kind == "categorical":
        return torch.softmax(outputs, dim=1)
    if target.kind == "count":
        return (torch.exp(outputs.clamp(-80.0, 80.0)) * target.typical).clamp(target.low, target.high)
    if target.kind == "continuous":
        return (target.typical + target.spread * outputs).clamp(target.low, target.high)
    return torch.exp(functional.logsigmoid(-(outputs + _start(target))).cumsum(dim=1))


def scores(outputs: Tensor, label: Tensor, config: ModelConfig) -> Tensor:
    """Return what the private evaluation counts of every record, float32 [B, config.scores] in 0..1.

    * ordered: the probability of a stage later than each class but the last; categorical: of each class;
    * a number: a monotone image of the prediction, and the absolute error over ``error_span``;
    * survival: the share of the follow-up that is expected to be lost, and the probability of no event until each
      horizon.
    """
    target = config.predicts
    if target is None:
        return probabilities(outputs).flip(1).cumsum(1).flip(1)[:, 1:]
    found = predicted(outputs, config)
    if target.kind == "categorical":
        return found
    if target.is_quantity:
        error = (found[:, 0] - label).abs() / target.error_span
        return torch.stack([torch.sigmoid(2.0 * outputs[:, 0]), error.clamp(max=1.0)], dim=1)
    return torch.cat([expected_loss(found, target)[:, None], found[:, [h - 1 for h in target.horizons]]], dim=1)


def expected_loss(survival: Tensor, target: Target) -> Tensor:
    """Return which share of the follow-up a patient is expected to lose, float32 [B]: one minus the restricted mean.

    Args:
        survival: float32 [B, edges], the probability of no event until each edge.
        target: the outcome.
    """
    edges = torch.tensor((0.0, *target.edges), device=survival.device)
    return 1.0 - (survival * edges.diff() / edges[-1]).sum(dim=1)


def cells(label: Tensor, config: ModelConfig) -> Tensor:
    """Return the group of outcomes that each record falls into, int64 [B] in 0..config.cells-1.

    Classes are their own groups; numbers are parted at :attr:`models.targets.Target.cuts`; of survival the intervals
    between horizons take the place of the edges', with the same rule for labels.

    Raises:
        InvalidModel: a label that the outcome does not have.
    """
    target = config.predicts
    if target is None or target.kind == "categorical":
        found = label.to(torch.int64)
    elif target.is_quantity:
        found = torch.bucketize(
            label.to(torch.float64), torch.tensor(target.cuts, dtype=torch.float64, device=label.device)
        )
    else:
        ends = torch.tensor(target.horizons, device=label.device)
        whole, event = label // 2, label % 2
        found = 2 * (ends[None, :] <= whole[:, None]).sum(dim=1) + event
    if len(found) and not 0 <= int(found.min()) <= int(found.max()) < config.cells:
        raise InvalidModel(f"expected outcomes in {config.cells} groups")
    return found


def _start(target: Target) -> float:
    """Return the log-odds of every interval with which half of all patients see the end of the follow-up."""
    hazard = 1.0 - 0.5 ** (1.0 / len(target.edges))
    return math.log(hazard / (1.0 - hazard))
