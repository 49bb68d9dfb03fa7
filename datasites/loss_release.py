"""Loss sums of a round: what gradient blending observes of a site, released with noise and charged.

Evaluated on the global model as it came, before training: the sum over the training and over the validation records
of each term's loss, clipped and noised (:func:`privacy.releases.loss_sums`). Terms are every modality alone and the
site's own combination, as METHOD.md's blending wants them; a record that lacks a term's modalities adds nothing.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from datasites.released_numbers import terms_of
from models.batch import Batch, RecordLoss
from models.config import MODALITIES
from privacy.mechanism import LossRelease
from privacy.randomness import Randomness
from privacy.releases import loss_sums


def released_losses(
    model: nn.Module,
    record_loss: RecordLoss,
    training: Batch,
    validation: Batch,
    *,
    modalities: tuple[str, ...],
    release: LossRelease,
    randomness: Randomness,
) -> dict[str, float]:
    """Return the noised loss sums of one site.

    Args:
        model: the global model of this round.
        record_loss: float32 [B] per record.
        training: the records that train.
        validation: the records that validate; disjoint from ``training``.
        modalities: what the site contributes.
        release: bound, noise and how many terms are charged.
        randomness: the round's keyed stream.
    """
    terms = terms_of(modalities, release.terms)
    return loss_sums(
        _losses(model, record_loss, training, terms),
        _losses(model, record_loss, validation, terms),
        terms=terms,
        release=release,
        randomness=randomness,
    )


def _losses(model: nn.Module, record_loss: RecordLoss, batch: Batch, terms: tuple[str, ...]) -> NDArray[np.float64]:
    """Return float64 [records, terms]; 0 where a record has none of a term's modalities."""
    records = batch["presence"].shape[0]
    columns = np.zeros((records, len(terms)))
    for place, term in enumerate(terms):
        if not records:
            break
        keep = torch.tensor([float(m in term.split("+")) for m in MODALITIES])
        presence = batch["presence"] * keep
        with torch.no_grad():
            losses = record_loss(model, {**batch, "presence": presence})
        columns[:, place] = torch.where(presence.amax(dim=1) > 0, losses, torch.zeros_like(losses)).numpy()
    return columns
