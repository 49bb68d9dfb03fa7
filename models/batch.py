"""The shape of what every model reads: a dictionary of tensors with one row per patient.

=============  ==========================  ===========================================================
key            tensor                      meaning
=============  ==========================  ===========================================================
each modality  float32 [B, features]       the model's inputs of the modality; zeros where absent
presence       float32 [B, modalities]     1 where the patient has the modality (:func:`modalities_of`)
cohort         int64 [B]                   index into ``ModelConfig.cohorts``
label          int64 [B]                   stage class, 0 is the earliest
=============  ==========================  ===========================================================
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.config import RESERVED, in_order

Batch = Mapping[str, Tensor]
RecordLoss = Callable[[nn.Module, Batch], Tensor]
"""The loss of every record of a batch under a model, float32 [B]; no record's depends on another's."""


def to_tensors(arrays: Mapping[str, NDArray[np.generic]]) -> dict[str, Tensor]:
    """Return numpy arrays as a batch: floating values as float32, integers as int64; rows are not copied twice."""
    tensors: dict[str, Tensor] = {}
    for name, array in arrays.items():
        wanted = np.float32 if np.issubdtype(array.dtype, np.floating) else np.int64
        tensors[name] = torch.from_numpy(np.ascontiguousarray(array, dtype=wanted))
    return tensors


def modalities_of(batch: Mapping[str, object]) -> tuple[str, ...]:
    """Return the modalities of a batch in the order of the columns of ``presence``."""
    return in_order(set(batch) - RESERVED)


def restricted(batch: Batch, modalities: Collection[str]) -> dict[str, Tensor]:
    """Return a batch with some of its modalities only, as if there were no others.

    Args:
        batch: as above.
        modalities: which to keep; those that the batch lacks are ignored.
    """
    columns = [place for place, name in enumerate(modalities_of(batch)) if name in modalities]
    kept = {name: values for name, values in batch.items() if name in modalities or name in RESERVED}
    return {**kept, "presence": batch["presence"][:, columns]}


def has(batch: Batch, modality: str) -> Tensor:
    """Return which records of ``batch`` have ``modality``, as float32 [B, 1]."""
    column = modalities_of(batch).index(modality)
    return batch["presence"][:, column : column + 1]


def drop_modalities(batch: Batch, probability: float) -> Batch:
    """Return ``batch`` with modalities left out at random, each record by itself and never all it has.

    Args:
        batch: as above.
        probability: of leaving out one modality of one record.
    """
    present = batch["presence"]
    kept = present * (torch.rand_like(present) >= probability)
    nothing = kept.amax(dim=1, keepdim=True) == 0
    return {**batch, "presence": torch.where(nothing, present, kept)}


def cohort_indicator(batch: Batch, cohorts: int) -> Tensor:
    """Return the cohort of every record one-hot, as float32 [B, cohorts]; it also serves as the bias."""
    return torch.nn.functional.one_hot(batch["cohort"], cohorts).to(torch.float32)
