"""What a plan's model and loss must keep to, tried on mock records before people approve it.

DP-SGD bounds what one record can do only if each record's gradient is its own. A plan that mixes records
(``x - x.mean(0)``), keeps state between calls, or holds parameters outside the layers that are clipped is found here.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from datasites.language import mark
from models.batch import Batch, RecordLoss
from privacy.dp.clipping import check_coverage, check_model
from privacy.errors import TesseraError

_RECORDS = 6
_TOLERANCE = 1e-4


def check_independence(model: nn.Module, record_loss: RecordLoss, inputs: Batch) -> list[tuple[str, bool]]:
    """Try a plan on a few records; return what was tried, each with whether it held.

    Args:
        model: what the plan's ``build_model`` made; it is left as it was but for state that the plan itself keeps.
        record_loss: the plan's loss, float32 [B].
        inputs: tensors with a common first dimension, at least two records.
    """
    batch = {name: tensor[:_RECORDS] for name, tensor in inputs.items()}
    found = [(mark("every trainable parameter sits in one layer that is clipped per record"), _is_kept(model))]
    first = record_loss(model, batch)
    records = next(iter(batch.values())).shape[0]
    shape_holds = first.shape == (records,)
    found.append((mark("the loss gives one number per record"), shape_holds))
    if not shape_holds:
        return found
    buffers = [buffer.clone() for buffer in model.buffers()]
    alone = [record_loss(model, _row(batch, i)) for i in range(records)]
    again = record_loss(model, batch)
    unchanged = all(torch.equal(a, b) for a, b in zip(buffers, model.buffers(), strict=True))
    same = torch.equal(first.detach(), again.detach())
    found.append((mark("the same records give the same loss again: no state, no chance"), unchanged and same))
    found.append(
        (mark("every record's loss and gradient are the same alone and among others"), _agree(model, first, alone))
    )
    if all(held for _, held in found):
        covered = _is_covered(model, record_loss, batch)
        found.append((mark("every use of a parameter goes through its layer's own call"), covered))
    return found


def _is_kept(model: nn.Module) -> bool:
    try:
        check_model(model)
    except TesseraError:
        return False
    return True


def _is_covered(model: nn.Module, record_loss: RecordLoss, batch: Batch) -> bool:
    try:
        check_coverage(model, batch, record_loss, records=_RECORDS)
    except TesseraError:
        return False
    return True


def _agree(model: nn.Module, together: Tensor, alone: list[Tensor]) -> bool:
    return all(
        loss.shape == (1,)
        and torch.allclose(loss[0], together[i], atol=_TOLERANCE)
        and torch.allclose(_gradient(model, loss[0]), _gradient(model, together[i]), atol=_TOLERANCE)
        for i, loss in enumerate(alone)
    )


def _gradient(model: nn.Module, loss: Tensor) -> Tensor:
    """Return the gradient by all trainable parameters as one vector."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return torch.cat(
        [(torch.zeros_like(p) if g is None else g).reshape(-1) for p, g in zip(parameters, gradients, strict=True)]
    )


def _row(batch: Batch, index: int) -> dict[str, Tensor]:
    return {name: tensor[index : index + 1] for name, tensor in batch.items()}
