"""Loss sums and score histograms of a round: all that blending and evaluation see of private records.

Both are taken of the global model as it came, before training, and are released with noise and charged.

* Loss sums are over training and over validation records. Terms are every modality alone and the site's own
  combination; a record that lacks a term's modalities adds nothing.
* Score histograms are of the validation records alone, which never train. What is counted depends on the outcome
  (:func:`models.outcomes.scores`): of ordered classes the model's probability of a stage later than class k.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from datasites.study.recomputed.released_numbers import named_histograms, terms_of
from models.batch import Batch, RecordLoss, has, modalities_of
from models.config import ModelConfig
from models.outcomes import cells, scores
from privacy.dp.fixed_batches import TOGETHER, fixed_batches
from privacy.dp.mechanism import HistogramRelease, LossRelease
from privacy.dp.randomness import Randomness
from privacy.dp.releases import loss_sums, score_histograms
from privacy.errors import InvalidInput


def released_losses(
    model: nn.Module,
    record_loss: RecordLoss,
    training: Batch,
    validation: Batch,
    *,
    modalities: tuple[str, ...],
    release: LossRelease,
    randomness: Randomness,
    together: int = TOGETHER,
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
        together: rows per pass (:mod:`privacy.dp.fixed_batches`).
    """
    terms = terms_of(modalities, release.terms)
    return loss_sums(
        _losses(model, record_loss, training, terms, together),
        _losses(model, record_loss, validation, terms, together),
        terms=terms,
        release=release,
        randomness=randomness,
    )


def _losses(
    model: nn.Module, record_loss: RecordLoss, batch: Batch, terms: tuple[str, ...], together: int
) -> NDArray[np.float64]:
    """Return float64 [records, terms]; 0 where a record has none of a term's modalities."""
    pieces = [np.zeros((0, len(terms)))]
    for rows, records in fixed_batches(batch, together):
        columns = np.zeros((records, len(terms)))
        for place, term in enumerate(terms):
            keep = torch.tensor(
                [float(m in term.split("+")) for m in modalities_of(rows)], device=rows["presence"].device
            )
            presence = rows["presence"] * keep
            with torch.no_grad():
                losses = record_loss(model, {**rows, "presence": presence})
            columns[:, place] = torch.where(presence.amax(dim=1) > 0, losses, torch.zeros_like(losses))[:records].cpu()
        pieces.append(columns)
    return np.concatenate(pieces)


def released_scores(
    model: nn.Module,
    validation: Mapping[str, Tensor],
    *,
    config: ModelConfig,
    release: HistogramRelease,
    randomness: Randomness,
    patterns_of: tuple[str, ...] = (),
    together: int = TOGETHER,
) -> dict[str, float]:
    """Return the noised score histograms of one site as named numbers
    (:mod:`datasites.study.recomputed.released_numbers`).

    Args:
        model: the global model of this round; gives float32 [B, config.outputs].
        validation: the records that validate; there may be none.
        config: of the model; it says what the outcome is.
        release: noise and number of outputs that are charged.
        randomness: the round's keyed stream.
        patterns_of: the site's modalities, if records are counted apart by which of them they have.
        together: rows per pass (:mod:`privacy.dp.fixed_batches`).

    Raises:
        InvalidInput: the model's output has another shape.
    """
    groups, several = cells(validation["label"], config), (1 << len(patterns_of)) - 1 if patterns_of else 1
    if patterns_of:
        groups = groups + config.cells * _pattern(validation, patterns_of)
    histograms = score_histograms(
        scores_of(model, validation, config, together),
        groups.cpu().numpy(),
        classes=config.cells * several,
        release=release,
        randomness=randomness,
    )
    return named_histograms(histograms)


def _pattern(batch: Mapping[str, Tensor], modalities: tuple[str, ...]) -> Tensor:
    """Return which combination of ``modalities`` every record has, int64 [B] from 0 on; every record has one."""
    place = torch.zeros(len(batch["label"]), dtype=torch.int64, device=batch["label"].device)
    for name in modalities:
        place = 2 * place + (has(batch, name)[:, 0] > 0)
    return (place - 1).clamp(min=0)


def scores_of(
    model: nn.Module, batch: Mapping[str, Tensor], config: ModelConfig, together: int = TOGETHER
) -> NDArray[np.float64]:
    """Return what is counted of every record, float64 [records, config.scores] in 0..1."""
    pieces = [np.zeros((0, config.scores))]
    for rows, records in fixed_batches(batch, together):
        with torch.no_grad():
            outputs = model(rows)
        if tuple(outputs.shape) != (together, config.outputs):
            raise InvalidInput(f"expected outputs [{together}, {config.outputs}], got {tuple(outputs.shape)}")
        pieces.append(np.asarray(scores(outputs, rows["label"], config)[:records].cpu().numpy(), np.float64))
    return np.concatenate(pieces)
