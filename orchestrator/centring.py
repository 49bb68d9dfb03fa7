"""Feature means as one charged release, so that a private study trains on centred inputs.

Under DP-SGD a record's gradient is clipped as a whole, and a linear model's gradient is a residual times the inputs.
Most of the norm of the TCGA slide features is their mean (squared norm 1.6 of 2.3), which says nothing about a
patient, yet eats the clipping norm, sets the largest stable step and leaves the informative directions untrained when
the budget ends. The first of a study's charged rounds therefore releases no gradient but the clipped sum of the
records' inputs: same sampling, clipping norm and noise multiplier, hence the same event for the accountant. What is
left of the rounds trains with the released means subtracted, at the sites and wherever the model is used.

Without privacy the exact means are used. docs/results.md has what it brings.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from models.config import INPUT_GAINS, MODALITIES
from orchestrator.simulated_sites import Records, SimulatedSite
from privacy.mechanism import Mechanism
from privacy.randomness import Randomness

Centres = Mapping[str, NDArray[np.float32]]
NORM = 2.0
"""Public bound of the L2 norm of one record's inputs, all modalities together, after the linear model's scaling."""


def released_centres(sites: Sequence[SimulatedSite], mechanism: Mechanism | None, *, seed: int) -> Centres:
    """Return the mean input of every modality, float32 [features], noised as one step of ``mechanism``.

    Args:
        sites: each adds its clipped sum, and its noise or share of the noise.
        mechanism: of the study; None gives exact means of clipped inputs.
        seed: public; of the noise.
    """
    names = [m for m in MODALITIES if any(m in s.modalities for s in sites)]
    sums: dict[str, NDArray[np.float64]] = {}
    for site in sites:
        stream = Randomness.public(seed, site=site.name, study="simulation", round=0, plan_hash="centres")
        factors = _clip_factors(site)
        for modality in names:
            holds = modality in site.modalities
            if not holds and (mechanism is None or mechanism.noise == "local"):
                continue
            width = next(s.records[modality].shape[1] for s in sites if modality in s.modalities)
            total = np.zeros(width)
            if holds:
                total += (site.records[modality].numpy() * factors[:, None]).sum(axis=0) * _scale(modality, width)
            if mechanism is not None:
                total += stream.child(modality).gaussian((width,), _deviation(mechanism))
            sums[modality] = sums.get(modality, 0.0) + total
    return {m: _mean(sums[m], m, sites) for m in sums}


def centred(records: Records, centres: Centres) -> Records:
    """Return ``records`` with the centres subtracted where a modality is present; absent stays zero."""
    moved = {}
    for modality, centre in centres.items():
        if modality in records:
            present = records["presence"][:, MODALITIES.index(modality), None]
            moved[modality] = records[modality] - present * torch.from_numpy(centre)
    return {**records, **moved}


def centred_sites(sites: Sequence[SimulatedSite], centres: Centres) -> list[SimulatedSite]:
    """Return ``sites`` with centred records."""
    return [replace(s, records=centred(s.records, {m: centres[m] for m in s.modalities})) for s in sites]


def _clip_factors(site: SimulatedSite) -> NDArray[np.float32]:
    squares = np.zeros(site.patients)
    for modality in site.modalities:
        values = site.records[modality].numpy()
        squares += (values.astype(np.float64) ** 2).sum(axis=1) * _scale(modality, values.shape[1]) ** 2
    return np.minimum(1.0, NORM / np.maximum(np.sqrt(squares), 1e-12)).astype(np.float32)


def _scale(modality: str, width: int) -> float:
    return INPUT_GAINS[modality] / math.sqrt(width)


def _deviation(mechanism: Mechanism) -> float:
    """Standard deviation of one site's noise, with this release's norm instead of the gradients'."""
    return NORM * mechanism.share_deviation / mechanism.max_grad_norm


def _mean(total: NDArray[np.float64], modality: str, sites: Sequence[SimulatedSite]) -> NDArray[np.float32]:
    patients = sum(s.patients for s in sites if modality in s.modalities)
    return (total / (patients * _scale(modality, len(total)))).astype(np.float32)
