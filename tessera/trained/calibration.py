"""Calibration of a trained model on patients of one's own: two numbers, so that its probabilities say how often.

Platt's scaling (Platt 1999) of the log-odds: ``slope * output + shift``, one slope and a shift for each threshold of
ordered classes. Classes without an order keep their shifts at 0 (temperature scaling, Guo et al. 2017, section 4.2).
A weak prior pulls slope to 1 and shifts to 0, so that few patients change little. What is fitted carries no noise:
a model that was calibrated on a hospital's records stays at that hospital.

    >>> fit(torch.tensor([[4.0], [-4.0]] * 50), torch.tensor([1, 0, 0, 1] * 25), ordered=True).slope < 0.1
    True
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from models.config import ModelConfig
from models.outcomes import ordinal_loss, predicted
from privacy.errors import InvalidInput
from tessera.facts import Calibration

FEWEST = 30
"""With fewer patients nothing is fitted."""
_BINS = 10
_STEPS = 200


def calibrated(outputs: Tensor, label: Tensor, config: ModelConfig, *, where: str, confined: bool) -> Calibration:
    """Return the calibration of a model's outputs on labelled patients.

    Args:
        outputs: float32 [B, outputs] of the uncalibrated model.
        label: int64 [B], class numbers.
        config: the model's.
        where: whose patients they are.
        confined: whether they are private records.

    Raises:
        InvalidInput: a model of numbers or survival, too few patients, or one class alone.
    """
    if config.predicts is not None and config.predicts.kind != "categorical":
        raise InvalidInput("expected a model of classes; numbers and survival have no probabilities to calibrate here")
    if len(label) < FEWEST or len(set(label.tolist())) < 2:
        raise InvalidInput(
            f"expected at least {FEWEST} patients of at least two classes to calibrate on, got {len(label)} patients"
        )
    found = fit(outputs, label, ordered=config.predicts is None)
    before, after = (
        _error(predicted(values, config), label) for values in (outputs, found.slope * outputs + found.shift)
    )
    return Calibration(
        slope=found.slope,
        shifts=tuple(float(value) for value in found.shift),
        patients=len(label),
        where=where,
        error_before=before,
        error_after=after,
        confined=confined,
    )


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A slope above 0 and float32 [outputs] shifts."""

    slope: float
    shift: Tensor


def fit(outputs: Tensor, label: Tensor, *, ordered: bool) -> Fit:
    """Return the slope and shifts of the smallest loss plus the prior's.

    Args:
        outputs: float32 [B, outputs].
        label: int64 [B].
        ordered: whether outputs are log-odds of "later than class k"; otherwise logits of classes.
    """
    values = outputs.detach().to(torch.float64)
    log_slope = torch.zeros((), dtype=torch.float64, requires_grad=True)
    shift = torch.zeros(values.shape[1], dtype=torch.float64, requires_grad=ordered)
    free = [log_slope, shift] if ordered else [log_slope]
    optimizer = torch.optim.LBFGS(free, max_iter=_STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        scaled = log_slope.exp() * values + shift
        each = ordinal_loss(scaled, label) if ordered else functional.cross_entropy(scaled, label, reduction="none")
        total: Tensor = each.sum() + 0.5 * log_slope**2 + 0.5 * (shift**2).sum()
        total.backward()  # type: ignore[no-untyped-call]
        return total

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return Fit(slope=float(log_slope.detach().exp()), shift=shift.detach().to(torch.float32))


def _error(probabilities: Tensor, label: Tensor) -> float:
    """Return the expected calibration error of the most probable class, in 10 bins of equal width."""
    sure, chosen = probabilities.max(dim=1)
    right = (chosen == label).to(torch.float64)
    place = (sure * _BINS).long().clamp(max=_BINS - 1)
    gaps = [
        float(abs(right[place == b].mean() - sure[place == b].double().mean())) * int((place == b).sum())
        for b in set(place.tolist())
    ]
    return sum(gaps) / len(label)
