"""Train and validation loss of every modality combination: what gradient blending observes.

In a study these are noised sums from the ledger (``Mechanism.losses``); the simulation adds the same noise.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from datasites.strategy.blending import Evaluation
from models.batch import RecordLoss, modalities_of
from orchestrator.simulation.sites import Records, SimulatedSite
from privacy.dp.mechanism import Mechanism

BOUND = 3.0
"""Largest loss a record adds where no mechanism sets another bound, in nats."""


def evaluate_losses(
    model: nn.Module,
    sites: Sequence[SimulatedSite],
    record_loss: RecordLoss,
    mechanism: Mechanism | None,
    seed: int,
    number: int,
) -> Evaluation:
    """Return mean clipped losses by combination: each modality alone, and each site's own combination."""
    release = mechanism.losses if mechanism is not None else None
    bound = release.bound if release is not None else BOUND
    deviation = release.noise_multiplier * release.sensitivity if release is not None else 0.0
    noise = np.random.default_rng([seed, number, 7])
    train: dict[str, list[float]] = {}
    validation: dict[str, list[float]] = {}
    for site in sites:
        for combination in terms(site.modalities):
            losses, present = _losses(model, site.records, combination, record_loss, bound)
            for side, into in ((site.trains, train), (~site.trains, validation)):
                rows = side & present
                total = float(losses[rows].sum()) + deviation * noise.normal()
                mean = total / max(1, int(rows.sum()))
                into.setdefault("+".join(combination), []).append(min(bound, max(0.0, mean)))
    return Evaluation(
        train={name: float(np.mean(values)) for name, values in train.items()},
        validation={name: float(np.mean(values)) for name, values in validation.items()},
    )


def terms(modalities: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the terms of a site: each modality alone, and all of its modalities together."""
    return list(dict.fromkeys([*((m,) for m in modalities), tuple(modalities)]))


def _losses(
    model: nn.Module, records: Records, combination: Sequence[str], record_loss: RecordLoss, bound: float
) -> tuple[Tensor, Tensor]:
    columns = [modalities_of(records).index(m) for m in combination]
    keep = torch.zeros(len(modalities_of(records)))
    keep[columns] = 1.0
    with torch.no_grad():
        losses = record_loss(model, {**records, "presence": records["presence"] * keep}).clamp(0.0, bound)
    return losses, records["presence"][:, columns].amax(dim=1) > 0
