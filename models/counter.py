"""The "model" of a counting study: its weights are the cells, and a record's gradient is what it adds to them.

    >>> counter = Counter(config)                                   # doctest: +SKIP
    >>> counting_loss(counter, batch).sum().backward()              # doctest: +SKIP
    >>> -counter.cells.total.weight.grad[0]                         # doctest: +SKIP
    tensor([31., 17.])

The output is the sum of the weights of the cells that a record falls into, times what it adds there; the loss is that
with a minus, so that one step of gradient descent from zero is the vector of all cells. What a record adds is rounded
to multiples of 2**-12: sums of fewer than 2**40 records are exact, whatever their order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from models.batch import Batch, has
from models.config import ModelConfig
from models.counting import Axis, Count, Factor
from models.targets import InvalidModel

_GRID = 4096.0


class Counter(nn.Module):
    """All cells of ``config.counting`` as the weights of one linear layer; gives float32 [B, 1]."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        if config.counting is None:
            raise InvalidModel("expected a configuration with something to count")
        self.counting = config.counting
        self.cells = nn.ModuleDict({"total": nn.Linear(config.counting.length, 1, bias=False)})

    def forward(self, batch: Batch) -> Tensor:
        """Return the weights of every record's cells, summed, float32 [B, 1]."""
        found: Tensor = self.cells["total"](contributions(batch, self.counting.counts))
        return found


def counting_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Return the loss whose gradient is minus what each record adds, float32 [B]."""
    found: Tensor = -model(batch)[:, 0]
    return found


def contributions(batch: Batch, counts: Sequence[Count]) -> Tensor:
    """Return what every record adds to every cell, float32 [B, cells]; at most one entry per table is not 0."""
    return torch.cat([_table(batch, count) for count in counts], dim=1)


def _table(batch: Batch, count: Count) -> Tensor:
    records = len(batch["cohort"])
    place = torch.zeros_like(batch["cohort"])
    for axis in count.axes:
        place = place * len(axis.groups) + group_of(batch, axis)
    added = torch.ones_like(batch["presence"][:, 0])
    for factor in (*count.needs, *count.factors):
        added = torch.where(_measured(batch, factor.modality, factor.missing), added, torch.zeros_like(added))
    for factor in count.factors:
        added = added * _value(batch, factor)
    added = torch.round(added * _GRID) / _GRID
    found = torch.zeros(records, count.cells, device=added.device)
    return found.scatter(1, place[:, None], added[:, None])


def group_of(batch: Batch, axis: Axis) -> Tensor:
    """Return the group of every record on one axis, int64 [B] in 0..len(axis.groups) - 1."""
    found = _GROUPS[axis.kind](batch, axis).to(torch.int64)
    return found.clamp(0, len(axis.groups) - 1)


def _value(batch: Batch, factor: Factor) -> Tensor:
    scaled = (batch[factor.modality][:, factor.column] - factor.centre) / factor.half
    return torch.nan_to_num(scaled, nan=0.0).clamp(-1.0, 1.0)


def _measured(batch: Batch, modality: str, missing: int) -> Tensor:
    found = has(batch, modality)[:, 0] > 0
    return found if missing < 0 else found & (batch[modality][:, missing] < 0.5)


def _number(batch: Batch, axis: Axis) -> Tensor:
    inside = _between(batch[axis.modality][:, axis.column], axis.edges)
    nothing = torch.full_like(inside, len(axis.groups) - 1)
    return torch.where(_measured(batch, axis.modality, axis.missing), inside, nothing)


def _between(values: Tensor, edges: Sequence[float]) -> Tensor:
    inner = torch.tensor(edges[1:-1], dtype=values.dtype, device=values.device)
    return torch.bucketize(values.contiguous(), inner, right=True)


def _category(batch: Batch, axis: Axis) -> Tensor:
    levels = len(axis.groups) - 2
    held = batch[axis.modality][:, axis.column : axis.column + levels] > 0.5
    number = held.sum(dim=1)
    found = torch.where(number > 1, levels, held.to(torch.int64).argmax(dim=1))
    measured = _measured(batch, axis.modality, axis.missing) & (number > 0)
    return torch.where(measured, found, levels + 1)


def _pattern(batch: Batch, axis: Axis) -> Tensor:
    digits = [has(batch, m)[:, 0] > 0 for m in axis.modalities]
    return torch.stack([d.to(torch.int64) << k for k, d in enumerate(reversed(digits))]).sum(dim=0)


def _survival(batch: Batch, axis: Axis) -> Tensor:
    label = batch["label"].to(torch.int64)
    ends = torch.tensor(axis.ends, device=label.device)
    whole = (ends[None, :] <= (label // 2)[:, None]).sum(dim=1)
    return 2 * whole + label % 2


_GROUPS: Mapping[str, Callable[[Batch, Axis], Tensor]] = {
    "cohort": lambda batch, _axis: batch["cohort"],
    "modality": lambda batch, axis: has(batch, axis.modality)[:, 0] > 0,
    "pattern": _pattern,
    "number": _number,
    "category": _category,
    "outcome-class": lambda batch, _axis: batch["label"],
    "outcome-number": lambda batch, axis: _between(batch["label"].to(torch.float64), axis.edges),
    "survival": _survival,
}


def centre_and_half(low: float, high: float) -> tuple[float, float]:
    """Return the middle of a range and half its width.

    Raises:
        InvalidModel: the range is empty.
    """
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InvalidModel(f"expected a finite range, got {low:g} to {high:g}")
    return (low + high) / 2, (high - low) / 2
