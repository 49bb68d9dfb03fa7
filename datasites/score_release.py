"""Score histograms of a round: all that evaluation sees of private records, released with noise and charged.

Evaluated on the global model as it came, before training, and on the validation records alone, which never train.
The score of output k is the model's probability of a stage later than class k.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from datasites.released_numbers import named_histograms
from models.losses import probabilities
from privacy.errors import InvalidInput
from privacy.mechanism import HistogramRelease
from privacy.randomness import Randomness
from privacy.releases import score_histograms


def released_scores(
    model: nn.Module,
    validation: Mapping[str, Tensor],
    *,
    classes: int,
    release: HistogramRelease,
    randomness: Randomness,
) -> dict[str, float]:
    """Return the noised score histograms of one site as named numbers (:mod:`datasites.released_numbers`).

    Args:
        model: the global model of this round; gives cumulative logits float32 [B, classes - 1].
        validation: the records that validate; there may be none.
        classes: number of classes, public.
        release: noise and number of outputs that are charged.
        randomness: the round's keyed stream.

    Raises:
        InvalidInput: the model's output has another shape.
    """
    histograms = score_histograms(
        scores_of(model, validation, classes),
        validation["label"].numpy(),
        classes=classes,
        release=release,
        randomness=randomness,
    )
    return named_histograms(histograms)


def scores_of(model: nn.Module, batch: Mapping[str, Tensor], classes: int) -> np.ndarray:
    """Return the probability of a stage later than each class but the last, float64 [records, classes - 1]."""
    records = batch["label"].shape[0]
    if not records:
        return np.zeros((0, classes - 1))
    with torch.no_grad():
        logits = model(batch)
    if tuple(logits.shape) != (records, classes - 1):
        raise InvalidInput(f"expected cumulative logits [{records}, {classes - 1}], got {tuple(logits.shape)}")
    later = probabilities(logits).flip(1).cumsum(1).flip(1)[:, 1:]
    return np.asarray(later.numpy(), np.float64)
