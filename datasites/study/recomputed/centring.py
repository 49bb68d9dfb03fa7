"""Which first rounds of a centred study release feature means and spreads, what is trained in them and what comes out.

Round 1 releases the means of all modalities. Where the model standardises modalities (their features have no public
scale), round 2 releases what is left of the means of these, clipped at a quarter of the first bound and so with a
quarter of the noise, and round 3 the mean distances from them. All are ordinary rounds with another loss
(:mod:`models.losses`): clipping norm, noise, encryption and cost are those of any round.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from datasites.study.proposal import Proposal
from models.config import (
    CENTRING_NORM,
    REFINING_NORM,
    USUAL_SPREAD,
    ModelConfig,
    centring_unit,
)
from privacy.dp.mechanism import Mechanism

CENTRING_ROUND = 1
"""The round that releases the means: weights are still zero, which is where the release reads them from."""

Moment = Literal["means", "remainders", "spreads"]
_MOMENTS: tuple[Moment, ...] = ("means", "remainders", "spreads")
_TO_DEVIATION = math.sqrt(math.pi / 2)
"""A normal variable's standard deviation over its mean distance from the mean."""
_LEAST_SPREAD = 0.25
"""Of the usual spread of a modality's features: a smaller one is mostly noise, or a feature that never varies."""


def moment_of(model: ModelConfig, number: int) -> Moment | None:
    """Return what round ``number`` of a study of ``model`` releases in place of a gradient; None: it trains."""
    return _MOMENTS[number - CENTRING_ROUND] if number < CENTRING_ROUND + moment_rounds(model) else None


def moment_rounds(model: ModelConfig) -> int:
    """Return how many rounds of a study of ``model`` release means and spreads before one trains."""
    if model.public_centres:
        return 0
    return len(_MOMENTS) if model.standardised else int(model.centred)


def releases_centres(model: ModelConfig, number: int) -> bool:
    """Return whether round ``number`` of a study of ``model`` releases feature means or spreads and trains nothing."""
    return moment_of(model, number) is not None


def first_training_round(proposal: Proposal) -> int:
    """Return the first round that trains the model."""
    return CENTRING_ROUND + moment_rounds(proposal.model)


def unit_of(moment: Moment, max_grad_norm: float) -> float:
    """Return the factor on what a round releases, so that clipping the gradient clips it at its public bound."""
    return centring_unit(max_grad_norm, REFINING_NORM if moment == "remainders" else CENTRING_NORM)


def centre_size(mechanism: Mechanism, *, rate: float, pull: float, moment: Moment = "means") -> float:
    """Return the mean update of a modality's block per unit of a released mean.

    Weight decay and the proximal term both pull back to zero, the start: step k of n counts (1 - rate pull)^(n - k).

    Args:
        mechanism: of the study.
        rate: of learning.
        pull: weight decay plus proximal mu.
        moment: what the round releases.
    """
    pulled = sum((1.0 - rate * pull) ** k for k in range(mechanism.steps_per_round))
    return unit_of(moment, mechanism.max_grad_norm) * rate * pulled


def shrunk(released: np.ndarray, deviation: float) -> np.ndarray:
    """Return released means pulled towards zero by what the noise adds to their norm, where noise is the larger part.

    The positive part of James and Stein's estimator (1961). Where the means are larger than their noise they stay as
    they are: there it costs AUROC on TCGA (docs/results.md).

    Args:
        released: float32 [features], the means with their noise.
        deviation: standard deviation of the noise on each of them.
    """
    noise, all_of_it = released.size * deviation**2, float(np.square(released.astype(np.float64)).sum())
    if noise <= all_of_it - noise:
        return released
    return (released * np.float32(max(0.0, 1.0 - noise / all_of_it) if all_of_it > 0 else 0.0)).astype(np.float32)


def spreads_from(released: np.ndarray) -> np.ndarray:
    """Return what centred, scaled inputs are divided by, from a modality's noised mean distances.

    Noise that a feature's distance drowns in is taken back by a floor at a quarter of the usual one. Where nothing
    stands out of the noise at all, every feature keeps the usual spread.

    Args:
        released: float32 [features], mean distances as released: over ``USUAL_SPREAD`` and the root of the number of
            features.
    """
    found = np.asarray(released, np.float64) * USUAL_SPREAD * math.sqrt(released.size) * _TO_DEVIATION
    usual = float(np.mean(found))
    if not usual > 0.0:
        return np.full(released.size, USUAL_SPREAD, np.float32)
    return np.maximum(found, _LEAST_SPREAD * usual).astype(np.float32)
