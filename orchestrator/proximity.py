"""Proximity-aware client weighting: sites whose updates agree with their peers' count more.

The published weight compares a site's update with the global one, which contains it::

    prox_k = <update_k, global update>

Ours changes five things, each for a reason seen on the TCGA federations (docs/results.md):

* **leave-one-out**: the site takes its own weighted update out of the public mean first; the published rule rewards
  whoever dominates the average;
* only the angle counts: an inflated norm gains nothing;
* a site is compared with the sites of its own cohort, whose total weight is kept: another cancer is not bad data;
* cosines are smoothed, and only what is clearly below the cohort (``tolerance``) is turned down;
* they are read in the first ``rounds`` rounds and then kept: near the optimum honest sites disagree with each other
  as much as bad ones do.

Weights then go through the bounds that sites and keyholder enforce (:mod:`orchestrator.weights`). Under local noise
a site's own noised update and the public model are already released: this is post-processing and costs nothing.
Under shared noise a single update carries too little noise, so weighting by it is refused.
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

    ``sharpness`` b: the weight is exp(-b shortfall), where the shortfall is how far a site's proximity lies more than
    ``tolerance`` below its cohort's; ``smoothing`` in [0, 1) is the weight of past rounds; ``rounds`` is how many
    rounds are read. ``published`` uses the raw similarity with the whole global update, block by block, every round,
    cut at zero.
    """

    similarity: Similarity = "cosine"
    published: bool = False
    sharpness: float = 10.0
    tolerance: float = 0.1
    smoothing: float = 0.8
    rounds: int = 6

    def __post_init__(self) -> None:
        if not (self.sharpness >= 0 and self.tolerance >= 0 and 0 <= self.smoothing < 1 and self.rounds >= 1):
            raise InvalidInput("expected sharpness and tolerance >= 0, smoothing in [0, 1) and a round to read")

    def reads(self, number: int) -> bool:
        """Return whether round ``number`` (from 1) is read."""
        return self.published or number <= self.rounds


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


def shortfalls(
    proximities: Mapping[str, Mapping[str, float]], counts: Mapping[str, float], cohorts: Mapping[str, object]
) -> dict[str, float]:
    """Return how far every site's proximity lies above (+) or below (-) its cohort's, averaged over its blocks.

    Args:
        proximities: smoothed proximities by modality block and site.
        counts: patients by site.
        cohorts: the cohort of each site; a site alone in its cohort for a block has no shortfall there.
    """
    found: dict[str, list[float]] = {site: [] for site in counts}
    for by_site in proximities.values():
        for site, value in by_site.items():
            peers = [s for s in by_site if cohorts[s] == cohorts[site]]
            if len(peers) > 1:
                mean = sum(counts[s] * by_site[s] for s in peers) / sum(counts[s] for s in peers)
                found[site].append(value - mean)
    return {site: sum(values) / len(values) if values else 0.0 for site, values in found.items()}


def weighted(
    counts: Mapping[str, float], below: Mapping[str, float], cohorts: Mapping[str, object], rule: ProximityRule
) -> dict[str, float]:
    """Return raw weights by site: patient counts turned down by the shortfall, each cohort's total kept.

    Args:
        counts: patients of the sites that hold a block.
        below: see :func:`shortfalls`.
        cohorts: the cohort of each site.
        rule: sharpness and tolerance.
    """
    raw = {s: n * math.exp(rule.sharpness * min(0.0, below.get(s, 0.0) + rule.tolerance)) for s, n in counts.items()}
    result = {}
    for site in counts:
        peers = [s for s in counts if cohorts[s] == cohorts[site]]
        result[site] = raw[site] * sum(counts[s] for s in peers) / sum(raw[s] for s in peers)
    return result


def weighted_as_published(counts: Mapping[str, float], proximities: Mapping[str, float]) -> dict[str, float]:
    """Return patient counts times the proximity cut at zero; the counts alone where nothing is above zero."""
    factor = {s: max(0.0, proximities.get(s, 0.0)) for s in counts}
    if not proximities or max(factor.values()) <= 0:
        return dict(counts)
    return {s: n * factor[s] for s, n in counts.items()}


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
