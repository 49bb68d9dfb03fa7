"""Full-batch gradient steps of the linear model with its gradient written out: what autograd gives, twice as fast.

For :class:`models.networks.LinearFusion` and the ordinal loss the gradient is residuals times inputs. Modalities that
no record has are skipped. A test compares with autograd; every other model and all private training use autograd.
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.batch import cohort_indicator, modalities_of
from models.networks import LinearFusion
from orchestrator.simulation.sites import Records


def descend(
    model: LinearFusion, records: Records, *, steps: int, learning_rate: float, weight_decay: float, proximal_mu: float
) -> None:
    """Take ``steps`` of gradient descent on the mean loss of ``records``, in place.

    Args:
        model: without class weights and centres.
        records: a batch, see :mod:`models.batch`; at least one record.
        steps: at least 1.
        learning_rate: above 0.
        weight_decay: decoupled, per step times the rate.
        proximal_mu: pull towards where the steps began.
    """
    order = modalities_of(records)
    held = {m: order.index(m) for m in model.branches if bool(records["presence"][:, order.index(m)].any())}
    indicator = cohort_indicator(records, model.cohorts) * model.cohort_gain  # [B, cohorts]
    outputs = model.cohort.weight.shape[0]
    later = (records["label"][:, None] > torch.arange(outputs)).to(torch.float32)  # [B, classes - 1]
    with torch.no_grad():
        parameters = dict(model.named_parameters())
        start = {n: p.clone() for n, p in parameters.items()}
        for _ in range(steps):
            gradients = _gradients(model, records, held, indicator, later)
            for name, parameter in parameters.items():
                gradient = gradients.get(name, torch.zeros_like(parameter)) + proximal_mu * (parameter - start[name])
                parameter.mul_(1 - learning_rate * weight_decay).add_(gradient, alpha=-learning_rate)


def _gradients(
    model: LinearFusion, records: Records, held: dict[str, int], indicator: Tensor, later: Tensor
) -> dict[str, Tensor]:
    logits = indicator @ model.cohort.weight.T  # [B, classes - 1]
    for modality, column in held.items():
        weight = model.get_parameter(f"branches.{modality}.weight")[0] * model.scales[modality]
        logits += (records[modality] @ weight * records["presence"][:, column])[:, None]
    residual = (torch.sigmoid(logits) - later) / len(later)
    gradients = {"cohort.weight": residual.T @ indicator}
    total = residual.sum(dim=1)
    for modality, column in held.items():
        own = (total * records["presence"][:, column]) @ records[modality] * model.scales[modality]
        gradients[f"branches.{modality}.weight"] = own[None, :]
    return gradients
