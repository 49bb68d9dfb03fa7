"""Batches of one fixed size, so that no record's numbers depend on who else is in the batch.

The low bits of a matrix product depend on the shape of the whole batch: with one record more, *other* records'
gradients, losses and scores move by a rounding error, and a score may pass into another bin. The bounds of the
accounting count one record only. So a batch is cut into pieces of ``TOGETHER`` rows, and the last piece is filled up
with copies of its first row, whose results are dropped.

Within a piece of 64 rows every place gives the same bits for the networks of ``models`` with widths in multiples of 16
(a test compares them). For others, and for code that we do not know, ``together=1`` computes every record alone. Every
piece has memory of its own, since kernels also take other paths by where in memory a row begins.

    >>> [(len(rows["x"]), records) for rows, records in fixed_batches({"x": torch.zeros(70, 2)})]
    [(64, 64), (64, 6)]
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from privacy.errors import InvalidInput

Batch = Mapping[str, Tensor]
TOGETHER = 64
"""Rows of a piece: a multiple of every kernel's tile, so that no row is a remainder."""


def batch_size(inputs: Batch) -> int:
    """Return the common first dimension of ``inputs``.

    Raises:
        InvalidInput: there is none.
    """
    sizes = {len(value) if value.dim() else -1 for value in inputs.values()}
    if len(sizes) != 1 or -1 in sizes:
        raise InvalidInput("expected at least one input tensor, and all with the same first dimension")
    return sizes.pop()


def fixed_batches(inputs: Batch, together: int = TOGETHER) -> Iterator[tuple[dict[str, Tensor], int]]:
    """Yield pieces of exactly ``together`` rows, each with how many of its rows are records; nothing for no records.

    Args:
        inputs: tensors with a common first dimension, at least 0.
        together: rows of a piece, at least 1.
    """
    records = batch_size(inputs)
    for start in range(0, records, together):
        held = min(together, records - start)
        yield {name: _filled(value[start : start + held], together) for name, value in inputs.items()}, held


def _filled(rows: Tensor, together: int) -> Tensor:
    missing = together - len(rows)
    if missing:
        return torch.cat([rows, rows[:1].expand(missing, *rows.shape[1:])])
    return rows.clone(memory_format=torch.contiguous_format)
