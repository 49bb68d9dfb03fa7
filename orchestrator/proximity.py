"""Proximity-aware client weighting: sites whose updates agree with the others' count more.

The published weight compares a site's update with the global one, which contains it::

    prox_k = <update_k, global update>

That rewards whoever dominates the average, so ours is **leave-one-out**: the site takes its own weighted update out
of the public mean first. Only the angle counts (an inflated norm gains nothing), it is smoothed over rounds, and
the weights go through the bounds that sites and keyholder enforce (:mod:`orchestrator.weights`).

Under local noise a site's own noised update and the public model are already released: this is post-processing and
costs nothing. Under shared noise a single update carries too little noise, so weighting by it is refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from privacy.errors import InvalidInput, Refused

Vector = NDArray[np.floating]
Similarity = Literal["cosine", "inner-product"]


@dataclass(frozen=True, kw_only=True)
class ProximityRule:
    """How proximities become weights.

    ``sharpness`` b: the weight is exp(b cosine); ``smoothing`` in [0, 1) is the weight of past rounds.
    ``published`` uses the raw similarity with the whole global update, cut at zero, without smoothing.
    """

    similarity: Similarity = "cosine"
    published: bool = False
    sharpness: float = 5.0
    smoothing: float = 0.8

    def __post_init__(self) -> None:
        if not (self.sharpness >= 0 and 0 <= self.smoothing < 1):
            raise InvalidInput("expected sharpness of at least 0 and smoothing in [0, 1)")


def proximity(update: Vector, mean: Vector, share: float, rule: ProximityRule) -> float:
    """Return how far a site's own update [n] points where the others' went.

    Args:
        update: the site's noised update of one block.
        mean: the public weighted mean of all sites' updates of that block.
        share: the site's share of that mean, its weight over the sum of weights, in [0, 1).
        rule: which similarity; the published rule does not take the site out.

    Returns:
        A cosine in [-1, 1], or an inner product; 0 where either vector is zero.
    """
    if update.shape != mean.shape or not 0 <= share < 1:
        raise InvalidInput(f"expected vectors of one shape and a share in [0, 1), got {update.shape}, {mean.shape}")
    own = update.astype(np.float64)
    other = mean.astype(np.float64)
    if not rule.published:
        other = (other - share * own) / (1.0 - share)
    inner = float(own @ other)
    if rule.similarity == "inner-product":
        return inner
    norms = float(np.linalg.norm(own) * np.linalg.norm(other))
    return max(-1.0, min(1.0, inner / norms)) if norms > 0 else 0.0


def smooth(past: Mapping[str, float], now: Mapping[str, float], rule: ProximityRule) -> dict[str, float]:
    """Return proximities by site, averaged with those of past rounds; a site's first one counts as it is."""
    keep = 0.0 if rule.published else rule.smoothing
    return {**past, **{s: keep * past.get(s, value) + (1 - keep) * value for s, value in now.items()}}


def weighted(counts: Mapping[str, float], proximities: Mapping[str, float], rule: ProximityRule) -> dict[str, float]:
    """Return raw weights by site: the patient count times the factor of its proximity; bound them before use.

    A site without a proximity yet gets the mean factor. All proximities at or below zero (published rule): counts.
    """
    factor = {s: _factor(proximities[s], rule) for s in counts if s in proximities}
    if not factor or max(factor.values()) <= 0:
        return dict(counts)
    usual = sum(factor.values()) / len(factor)
    return {s: n * factor.get(s, usual) for s, n in counts.items()}


def refuse_under_shared_noise(noise: str) -> None:
    """Refuse proximity weighting where a site's update carries only a share of the noise.

    Raises:
        Refused: the noise is shared.
    """
    if noise == "shared":
        raise Refused(
            "proximity weighting reads single updates, which carry only a share of the noise here; "
            "use local noise, or weights that are all 1"
        )


def _factor(value: float, rule: ProximityRule) -> float:
    if rule.published:
        return max(0.0, value)
    if rule.similarity == "inner-product":
        return max(0.0, value)
    return math.exp(rule.sharpness * value)
