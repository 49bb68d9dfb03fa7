"""Does book-keeping see every gradient of a plan? Checked on mock data before the plan may see private records.

A weight that is used outside its layer's own call (``F.linear(x, layer.weight)``) gets a gradient that no hook sees.
Together with the independence of records (``datasites.plan_checks``) this is what clipping rests on.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from privacy.bookkeeping import RECORD, Batch, BookKeeper, RecordLoss, batch_size, checked_losses
from privacy.errors import Refused

_UNBOUNDED = 1e30


def check_coverage(
    model: nn.Module, inputs: Batch, record_loss: RecordLoss, *, records: int = 6, tolerance: float = 1e-4
) -> None:
    """Compare book-kept sums and norms with autograd's on a few mock records.

    Args:
        model: as it will train; without dropout, or in evaluation mode.
        inputs: mock records, at least 1.
        record_loss: as it will train.
        records: how many to compare.
        tolerance: relative, for float32.

    Raises:
        Refused: they differ, or the model cannot be book-kept at all.
    """
    batch = {name: value[:records] for name, value in inputs.items()}
    with BookKeeper(model) as keeper:
        sums = keeper.clipped_sum(batch, record_loss, {RECORD: _UNBOUNDED})
        squared = keeper.squared_norms(batch, record_loss)[RECORD]
    gradients = _gradients(model, batch, record_loss)
    if not _close(torch.cat([total.flatten() for total in sums.values()]), gradients.sum(dim=0), tolerance):
        raise Refused("the model uses a parameter outside its layer's own call; every use must go through the layer")
    if not _close(squared.sqrt(), gradients.norm(dim=1), tolerance):
        raise Refused("the model's per-record gradient norms are not those of its layers; use each layer plainly")


def _gradients(model: nn.Module, batch: Batch, record_loss: RecordLoss) -> Tensor:
    """Return every record's gradient over all trainable parameters, float [B, P]."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    losses = checked_losses(record_loss(model, dict(batch)), batch_size(batch))
    rows = []
    for loss in losses:
        found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        pairs = zip(parameters, found, strict=True)
        rows.append(torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for p, g in pairs]))
    return torch.stack(rows)


def _close(one: Tensor, other: Tensor, tolerance: float) -> bool:
    return bool((one - other).norm() <= tolerance * (other.norm() + tolerance))
