"""Does this machine give a record the same bits wherever it stands among others? Tried before the first charge.

The sensitivity bound counts one record. It holds only if a record that comes or goes leaves the numbers of all others
as they were, to the last bit (:mod:`privacy.dp.fixed_batches`). That is a property of the machine's kernels for the
shapes of one network, so it is tried there, on made-up records, with the study's own network.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from models.batch import Batch, RecordLoss
from privacy.dp.fixed_batches import fixed_batches

_RECORDS = 5
_SEED = 20_231


def same_bits(model: nn.Module, record_loss: RecordLoss, inputs: Batch, together: int) -> bool:
    """Say whether loss, activations and gradients of records have the same bits in every place of a piece.

    Args:
        model: the study's network; it is left as it was.
        record_loss: the plan's loss, float32 [B].
        inputs: made-up records, at least one.
        together: rows of a piece; with 1 there is nothing to compare.
    """
    count = len(next(iter(inputs.values())))
    if together == 1 or count == 0:
        return True
    order = torch.Generator().manual_seed(_SEED)
    for record in range(min(count, _RECORDS)):
        company = torch.randint(count, (together,), generator=order)
        seen: list[Tensor] | None = None
        for place in _places(together):
            rows = torch.cat([company[:place], torch.tensor([record]), company[place + 1 :]])
            found = _numbers(model, record_loss, {name: tensor[rows] for name, tensor in inputs.items()}, place)
            if seen is not None and not _equal(seen, found):
                return False
            seen = found
            company = company[torch.randperm(together, generator=order)]  # and among others
    return True


def _places(together: int) -> list[int]:
    return sorted(
        {0, 1, 2, 3, 7, 8, together // 2 - 1, together // 2, together - 2, together - 1} & set(range(together))
    )


def _equal(one: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
    return len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def _numbers(model: nn.Module, record_loss: RecordLoss, rows: Batch, place: int) -> list[Tensor]:
    """Return what one row of a piece gives: its loss, and at each layer its input and the gradient of its output."""
    ((piece, records),) = list(fixed_batches(rows, len(next(iter(rows.values())))))
    with _watched(model, records, place) as found:
        losses = record_loss(model, piece)
        torch.autograd.grad(losses.sum(), [p for p in model.parameters() if p.requires_grad], allow_unused=True)
        return [losses[place].detach().clone(), *found]


@contextmanager
def _watched(model: nn.Module, records: int, place: int) -> Iterator[list[Tensor]]:
    """Yield a list that collects one row of every layer's input and of the gradient of every layer's output."""
    found: list[Tensor] = []

    def keep(values: Tensor) -> None:
        if values.dim() and len(values) == records:
            found.append(values.detach()[place].clone())

    def entered(_module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        for value in arguments:
            if isinstance(value, Tensor):
                keep(value)
        if isinstance(output, Tensor) and output.requires_grad:
            output.register_hook(keep)  # type: ignore[no-untyped-call]

    layers = [module for module in model.modules() if any(True for _ in module.parameters(recurse=False))]
    hooks = [layer.register_forward_hook(entered) for layer in layers]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
